#include "arrivals.h"

#include "frames.h"
#include "python.h"

#include <stdlib.h>

typedef struct {
    VSNode *clip;
    VSVideoInfo info;
    VsrCallbacks python;
    int64_t instance;
} Arrivals;

static const VSFrame *VS_CC arrivals_frame(int n, int reason, void *instance, void **frame_data,
                                           VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    const Arrivals *d = instance;
    (void)frame_data;
    (void)core;
    if (reason == arInitial) vsapi->requestFrameFilter(n, d->clip, context);
    if (reason != arAllFramesReady) return NULL;
    const VSFrame *frame = vsapi->getFrameFilter(n, d->clip, context);
    /* One that does not fit is refused by the step that needs it. */
    if (python_is_up() && fits(frame, &d->info, vsapi)) {
        VsrFrame view;
        lay_out(&view, frame, NULL, vsapi);
        d->python.arrived(d->instance, n, &view, d->info.width, d->info.height, d->info.format.bytesPerSample);
    }
    return frame;
}

static void VS_CC arrivals_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Arrivals *d = instance;
    (void)core;
    vsapi->freeNode(d->clip);
    free(d);
}

VSNode *show_arrivals(VSNode *clip, const VsrCallbacks *python, int64_t instance, VSCore *core,
                      const VSAPI *vsapi) {
    Arrivals *d = malloc(sizeof *d);
    if (!d) {
        vsapi->freeNode(clip);
        return NULL;
    }
    *d = (Arrivals){clip, *vsapi->getVideoInfo(clip), *python, instance};
    VSFilterDependency dependency = {clip, rpStrictSpatial};
    return vsapi->createVideoFilter2("VsrArrivals", &d->info, arrivals_frame, arrivals_free, fmParallel, &dependency,
                                     1, d, core);
}
