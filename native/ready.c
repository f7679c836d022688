#include "ready.h"

#include <stdlib.h>

typedef struct {
    VSNode *chunks, *early;
    int count;
    Carriers *carriers;
} Ready;

static const VSFrame *VS_CC ready_frame(int k, int reason, void *instance, void **frame_data,
                                        VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    const Ready *d = instance;
    (void)frame_data;
    (void)core;
    const VSFrame *carrier = NULL;
    if (reason == arInitial) {
        carrier = held_carrier(d->carriers, k);
        if (!carrier) vsapi->requestFrameFilter(k, d->chunks, context);
    } else if (reason == arAllFramesReady) {
        carrier = vsapi->getFrameFilter(k, d->chunks, context);
    }
    if (!carrier) return NULL;
    if (d->early && k + 1 < d->count && goes_through(d->carriers, k)) go_ahead(d->carriers, d->early, k + 1);
    wait_for(d->carriers, carrier);
    return carrier;
}

static void VS_CC ready_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Ready *d = instance;
    (void)core;
    release_carriers(d->carriers);
    vsapi->freeNode(d->early);
    vsapi->freeNode(d->chunks);
    free(d);
}

VSNode *ready_node(VSNode *chunks, VSNode *early, Carriers *carriers, VSCore *core, const VSAPI *vsapi) {
    Ready *d = malloc(sizeof *d);
    if (!d) {
        vsapi->freeNode(chunks);
        return NULL;
    }
    const VSVideoInfo *info = vsapi->getVideoInfo(chunks);
    *d = (Ready){chunks, early ? vsapi->addNodeRef(early) : NULL, info->numFrames, share_carriers(carriers)};
    VSFilterDependency dependency = {chunks, rpStrictSpatial};
    VSNode *node = vsapi->createVideoFilter2("VsrReady", info, ready_frame, ready_free, fmParallel, &dependency, 1,
                                             d, core);
    /* The carriers are kept by VsrChunk. */
    vsapi->setCacheMode(node, cmForceDisable);
    return node;
}
