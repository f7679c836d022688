/* Frames as Python sees them. */
#ifndef VSR_FRAMES_H
#define VSR_FRAMES_H

#include "VapourSynth4.h"
#include "abi.h"

/* What to say of a frame that does not fit; %s is the filter, %d the frame. */
#define NOT_AS_DECLARED                                                                                  \
    "%s: clip must give frames of the size and format it declares, got another at frame %d. Find the "   \
    "filter before it that changes them."

/* ffGPUOutput if the frames of `node` are on a GPU: what a node with frames of the same kind is made with. */
int residency(VSNode *node, const VSAPI *vsapi);

/* The marks of `frame` alone. */
void lay_out_marks(VsrFrame *view, const VSFrame *frame, const VSAPI *vsapi);

/* The planes and marks of `frame`; planes that may be written if it is given as `writable` too. */
void lay_out(VsrFrame *view, const VSFrame *frame, VSFrame *writable, const VSAPI *vsapi);

/* Whether `frame` has the size and format of `info`. */
int fits(const VSFrame *frame, const VSVideoInfo *info, const VSAPI *vsapi);

#endif
