/* Filters that put out several frames for each input frame (frame interpolation). */
#ifndef VSR_SHARES_H
#define VSR_SHARES_H

#include "VapourSynth4.h"

/* Where `rate` output frames come of one input frame, whose properties each has: gives the frame of
 * output frame n its part of the time and of the scene cut marks. */
void take_share(VSMap *props, int n, int rate, const VSAPI *vsapi);

/* `made`, with the pictures of `source`, whose size and format it has, at every `rate`-th place from
 * the first: bit for bit, where the way to RGB and back would change them. The properties are those
 * of `made`. Takes both references; NULL without memory. */
VSNode *keep_originals(VSNode *source, VSNode *made, int rate, VSCore *core, const VSAPI *vsapi);

#endif
