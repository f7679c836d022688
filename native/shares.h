/* Filters that put out several frames for each input frame (frame interpolation). */
#ifndef VSR_SHARES_H
#define VSR_SHARES_H

#include "VapourSynth4.h"

/* `props` are those of output frame n, copied from its input frame, as are those of all the
 * `frames_per_input` output frames made from it. Leaves this one its share of the time and of the
 * scene cut marks. */
void take_share(VSMap *props, int n, int frames_per_input, const VSAPI *vsapi);

/* `interpolated`, but every `frames_per_input`-th picture from the first is that of `source`, bit for
 * bit: the way to RGB and back would change it. Both have the same size and format; the properties
 * are those of `interpolated`. Takes both references; NULL without memory. */
VSNode *keep_originals(VSNode *source, VSNode *interpolated, int frames_per_input, VSCore *core,
                       const VSAPI *vsapi);

#endif
