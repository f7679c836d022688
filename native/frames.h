/* Frames as Python sees them. */
#ifndef VSR_FRAMES_H
#define VSR_FRAMES_H

#include "VapourSynth4.h"
#include "abi.h"

/* The planes and marks of `frame`; planes that may be written if it is given as `writable` too. */
void lay_out(VsrFrame *view, const VSFrame *frame, VSFrame *writable, const VSAPI *vsapi);

/* Whether `frame` has the size and format of `info`. */
int fits(const VSFrame *frame, const VSVideoInfo *info, const VSAPI *vsapi);

#endif
