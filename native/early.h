/* Frames that are asked for before anybody needs them. */
#ifndef VSR_EARLY_H
#define VSR_EARLY_H

#include "VapourSynth4.h"

/* Passes the frames of `node` through, for vsapi->getFrameAsync. The core merges requests for one frame
 * only if filters make them: asked through this node, a frame is not computed twice when a filter wants
 * it too. Adds a reference to `node`. */
VSNode *early_node(VSNode *node, VSCore *core, const VSAPI *vsapi);

#endif
