/* Waits until a device has computed a chunk. */
#ifndef VSR_READY_H
#define VSR_READY_H

#include "VapourSynth4.h"
#include "carriers.h"

/* Passes the carriers of `chunks` through once their pictures are computed. One thread waits here for a
 * chunk, however many of its frames are asked for: the others are free for the next one. That is asked
 * for here through `early`, if it is given, before the wait: then the device never runs out of work.
 * Takes `chunks`, adds a reference to `early`; NULL without memory. */
VSNode *ready_node(VSNode *chunks, VSNode *early, Carriers *carriers, VSCore *core, const VSAPI *vsapi);

#endif
