#include "shares.h"
#include "VSHelper4.h"

#include <stdlib.h>

static int is_set(const VSMap *props, const char *key, const VSAPI *vsapi) {
    int error = 0;
    int64_t value = vsapi->mapGetInt(props, key, 0, &error);
    return !error && value != 0;
}

void take_share(VSMap *props, int n, int rate, const VSAPI *vsapi) {
    int part = n % rate, no_number = 0, no_length = 0, no_time = 0;
    if (rate == 1) return;
    int64_t number = vsapi->mapGetInt(props, "_DurationNum", 0, &no_number);
    int64_t length = vsapi->mapGetInt(props, "_DurationDen", 0, &no_length);
    if (!no_number && !no_length && number > 0 && length > 0) {
        vsh_reduceRational(&number, &length);
        if (number % rate == 0) number /= rate;
        else if (length <= INT64_MAX / rate) length *= rate;
        else length = INT64_MAX; /* shorter cannot be said */
        vsapi->mapSetInt(props, "_DurationNum", number, maReplace);
        vsapi->mapSetInt(props, "_DurationDen", length, maReplace);
        double time = vsapi->mapGetFloat(props, "_AbsoluteTime", 0, &no_time);
        if (!no_time)
            vsapi->mapSetFloat(props, "_AbsoluteTime", time + (double)part * (double)number / (double)length,
                               maReplace);
    }
    if (part > 0 && is_set(props, "_SceneChangePrev", vsapi))
        vsapi->mapSetInt(props, "_SceneChangePrev", 0, maReplace);
    if (part < rate - 1 && is_set(props, "_SceneChangeNext", vsapi))
        vsapi->mapSetInt(props, "_SceneChangeNext", 0, maReplace);
}

typedef struct {
    VSNode *source, *made;
    int rate;
} Originals;

static const VSFrame *VS_CC original_frame(int n, int reason, void *instance, void **frame_data,
                                           VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    const Originals *d = instance;
    (void)frame_data;
    int original = n % d->rate == 0;
    if (reason == arInitial) {
        vsapi->requestFrameFilter(n, d->made, context);
        if (original) vsapi->requestFrameFilter(n / d->rate, d->source, context);
    }
    if (reason != arAllFramesReady) return NULL;
    const VSFrame *made = vsapi->getFrameFilter(n, d->made, context);
    if (!original) return made;
    const VSFrame *source = vsapi->getFrameFilter(n / d->rate, d->source, context);
    const VSVideoFormat *format = vsapi->getVideoFrameFormat(source);
    const VSFrame *pictures[] = {source, source, source};
    const int planes[] = {0, 1, 2};
    VSFrame *own = vsapi->newVideoFrame2(format, vsapi->getFrameWidth(source, 0), vsapi->getFrameHeight(source, 0),
                                         pictures, planes, made, core);
    vsapi->freeFrame(source);
    vsapi->freeFrame(made);
    return own;
}

static void VS_CC originals_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Originals *d = instance;
    (void)core;
    vsapi->freeNode(d->source);
    vsapi->freeNode(d->made);
    free(d);
}

VSNode *keep_originals(VSNode *source, VSNode *made, int rate, VSCore *core, const VSAPI *vsapi) {
    Originals *d = malloc(sizeof *d);
    if (!d) {
        vsapi->freeNode(source);
        vsapi->freeNode(made);
        return NULL;
    }
    *d = (Originals){source, made, rate};
    VSFilterDependency dependencies[] = {{source, rpGeneral}, {made, rpNoFrameReuse}};
    return vsapi->createVideoFilter2("VsrOriginals", vsapi->getVideoInfo(made), original_frame, originals_free,
                                     fmParallel, dependencies, 2, d, core);
}
