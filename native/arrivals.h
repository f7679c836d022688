/* Shows Python each input frame as it arrives, so that it can be on its way to the device before a step
 * asks for it. */
#ifndef VSR_ARRIVALS_H
#define VSR_ARRIVALS_H

#include "VapourSynth4.h"
#include "abi.h"

/* Passes `clip` through. Takes the reference; NULL without memory. */
VSNode *show_arrivals(VSNode *clip, const VsrCallbacks *python, int64_t instance, VSCore *core,
                      const VSAPI *vsapi);

#endif
