#include "shares.h"
#include "VSHelper4.h"
#include "frames.h"

#include <stdlib.h>

static int is_set(const VSMap *props, const char *key, const VSAPI *vsapi) {
    int error = 0;
    int64_t value = vsapi->mapGetInt(props, key, 0, &error);
    return !error && value != 0;
}

void take_share(VSMap *props, int n, int frames_per_input, const VSAPI *vsapi) {
    int part = n % frames_per_input, no_num = 0, no_den = 0, no_time = 0;
    if (frames_per_input == 1) return;
    int64_t num = vsapi->mapGetInt(props, "_DurationNum", 0, &no_num);
    int64_t den = vsapi->mapGetInt(props, "_DurationDen", 0, &no_den);
    if (!no_num && !no_den && num > 0 && den > 0) {
        vsh_reduceRational(&num, &den);
        if (num % frames_per_input == 0) num /= frames_per_input;
        else if (den <= INT64_MAX / frames_per_input) den *= frames_per_input;
        else den = INT64_MAX; /* no shorter duration fits the property */
        vsapi->mapSetInt(props, "_DurationNum", num, maReplace);
        vsapi->mapSetInt(props, "_DurationDen", den, maReplace);
        double time = vsapi->mapGetFloat(props, "_AbsoluteTime", 0, &no_time);
        if (!no_time)
            vsapi->mapSetFloat(props, "_AbsoluteTime", time + (double)part * (double)num / (double)den,
                               maReplace);
    }
    if (part > 0 && is_set(props, "_SceneChangePrev", vsapi))
        vsapi->mapSetInt(props, "_SceneChangePrev", 0, maReplace);
    if (part < frames_per_input - 1 && is_set(props, "_SceneChangeNext", vsapi))
        vsapi->mapSetInt(props, "_SceneChangeNext", 0, maReplace);
}

typedef struct {
    VSNode *source, *interpolated;
    int frames_per_input;
} Originals;

static const VSFrame *VS_CC original_frame(int n, int reason, void *instance, void **frame_data,
                                           VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    const Originals *d = instance;
    (void)frame_data;
    int original = n % d->frames_per_input == 0;
    if (reason == arInitial) {
        vsapi->requestFrameFilter(n, d->interpolated, context);
        if (original) vsapi->requestFrameFilter(n / d->frames_per_input, d->source, context);
    }
    if (reason != arAllFramesReady) return NULL;
    const VSFrame *interpolated = vsapi->getFrameFilter(n, d->interpolated, context);
    if (!original) return interpolated;
    const VSFrame *source = vsapi->getFrameFilter(n / d->frames_per_input, d->source, context);
    const VSVideoFormat *format = vsapi->getVideoFrameFormat(source);
    const VSFrame *pictures[] = {source, source, source};
    const int planes[] = {0, 1, 2};
    VSFrame *joined = vsapi->newVideoFrame2(format, vsapi->getFrameWidth(source, 0),
                                            vsapi->getFrameHeight(source, 0), pictures, planes, interpolated,
                                            core);
    vsapi->freeFrame(source);
    vsapi->freeFrame(interpolated);
    return joined;
}

static void VS_CC originals_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Originals *d = instance;
    (void)core;
    vsapi->freeNode(d->source);
    vsapi->freeNode(d->interpolated);
    free(d);
}

VSNode *keep_originals(VSNode *source, VSNode *interpolated, int frames_per_input, VSCore *core,
                       const VSAPI *vsapi) {
    Originals *d = malloc(sizeof *d);
    if (!d) {
        vsapi->freeNode(source);
        vsapi->freeNode(interpolated);
        return NULL;
    }
    *d = (Originals){source, interpolated, frames_per_input};
    VSFilterDependency dependencies[] = {{source, rpGeneral}, {interpolated, rpNoFrameReuse}};
    return vsapi->createVideoFilterEx2("VsrOriginals", vsapi->getVideoInfo(interpolated), original_frame,
                                       originals_free, fmParallel, residency(source, vsapi), dependencies, 2, d,
                                       core);
}
