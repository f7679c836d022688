#include "early.h"

static const VSFrame *VS_CC early_frame(int n, int reason, void *instance, void **frame_data,
                                        VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    (void)frame_data;
    (void)core;
    if (reason == arInitial) vsapi->requestFrameFilter(n, instance, context);
    return reason == arAllFramesReady ? vsapi->getFrameFilter(n, instance, context) : NULL;
}

static void VS_CC early_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    (void)core;
    vsapi->freeNode(instance);
}

VSNode *early_node(VSNode *node, VSCore *core, const VSAPI *vsapi) {
    VSFilterDependency dependency = {node, rpStrictSpatial};
    VSNode *early = vsapi->createVideoFilter2("VsrEarly", vsapi->getVideoInfo(node), early_frame, early_free,
                                              fmParallel, &dependency, 1, vsapi->addNodeRef(node), core);
    /* The frames are kept where they come from. */
    vsapi->setCacheMode(early, cmForceDisable);
    return early;
}
