/* Gives Python each input frame of a clip on a GPU as it arrives, and lets go of it at once: whoever keeps
 * such a frame makes the core copy it. */
#ifndef VSR_TAKING_H
#define VSR_TAKING_H

#include "VapourSynth4.h"
#include "carriers.h"
#include "gpu.h"

/* A node whose frame n is 1x1, with the properties of frame n of `clip`, which Python has when it is there.
 * Up to `kept` frames are not taken again as long as Python has them. Takes the reference; NULL without
 * memory. */
VSNode *take_arrivals(VSNode *clip, const Worker *worker, Gpu *gpu, int kept, VSCore *core, const VSAPI *vsapi);

#endif
