#include "taking.h"

#include "frames.h"
#include "python.h"
#include "text.h"

#include <stdlib.h>

typedef struct {
    VSNode *clip;
    VSVideoInfo info;
    Worker worker;
    Gpu *gpu;
    Mutex lock;
    int slots;
    Held *kept; /* the 1x1 frame of n is in place n % slots, if it is there */
} Taking;

/* The 1x1 frame of n, if Python has the picture still. */
static const VSFrame *kept(Taking *d, int n, const VSAPI *vsapi) {
    int32_t has = 0;
    const VSFrame *found = NULL;
    mutex_lock(&d->lock);
    const Held *slot = &d->kept[n % d->slots];
    if (slot->frame && slot->chunk == n) found = vsapi->addFrameRef(slot->frame);
    mutex_unlock(&d->lock);
    if (found && python_is_up()) d->worker.python.has(d->worker.instance, n, &has);
    if (has) return found;
    vsapi->freeFrame(found);
    return NULL;
}

static void keep(Taking *d, int n, const VSFrame *frame, const VSAPI *vsapi) {
    mutex_lock(&d->lock);
    Held *slot = &d->kept[n % d->slots];
    const VSFrame *released = slot->frame;
    *slot = (Held){vsapi->addFrameRef(frame), n};
    mutex_unlock(&d->lock);
    vsapi->freeFrame(released);
}

/* Shows Python frame n, and gives its 1x1 frame. */
static const VSFrame *take(Taking *d, int n, VSFrameContext *context, VSCore *core, const VSAPI *vsapi, char *error) {
    VsrGpuFrame view;
    const VSFrame *frame = gpu_take(d->gpu, n, d->clip, context, &view, error);
    if (!frame) return NULL;
    uint64_t value = 0;
    int32_t done = 0;
    if (!python_is_up()) write_text(error, VSR_MESSAGE_SIZE, PYTHON_IS_DOWN, d->worker.filter);
    /* A different one would be read past its end. */
    else if (!fits(frame, &d->info, vsapi)) write_text(error, VSR_MESSAGE_SIZE, NOT_AS_DECLARED, d->worker.filter, n);
    else d->worker.python.taken(d->worker.instance, n, &view, &value, &done, error);
    gpu_close(&view);
    if (!done && !*error) {
        /* Python may still use the frame: it is never freed. */
        write_text(error, VSR_MESSAGE_SIZE, "%s: reading frame %d was interrupted. Ask for it again.",
                   d->worker.filter, n);
        return NULL;
    }
    gpu_publish(d->gpu, frame, VSR_READS, value);
    VSFrame *small = NULL;
    if (done) {
        VSVideoFormat gray;
        vsapi->getVideoFormatByID(&gray, pfGray8, core);
        small = vsapi->newVideoFrame(&gray, 1, 1, frame, core);
        keep(d, n, small, vsapi);
    }
    vsapi->freeFrame(frame);
    return small;
}

static const VSFrame *VS_CC taking_frame(int n, int reason, void *instance, void **frame_data,
                                         VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    Taking *d = instance;
    (void)frame_data;
    const VSFrame *small = NULL;
    char error[VSR_MESSAGE_SIZE] = "";
    if (reason == arInitial) {
        small = kept(d, n, vsapi);
        if (!small) vsapi->requestFrameFilter(n, d->clip, context);
    } else if (reason == arAllFramesReady) {
        /* Another request for it may have been faster. */
        small = kept(d, n, vsapi);
        if (!small) small = take(d, n, context, core, vsapi, error);
        if (*error) vsapi->setFilterError(error, context);
    }
    return small;
}

static void VS_CC taking_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Taking *d = instance;
    (void)core;
    for (int i = 0; i < d->slots; i++) vsapi->freeFrame(d->kept[i].frame);
    free(d->kept);
    gpu_release(d->gpu);
    vsapi->freeNode(d->clip);
    mutex_free(&d->lock);
    free(d);
}

VSNode *take_arrivals(VSNode *clip, const Worker *worker, Gpu *gpu, int kept_frames, VSCore *core,
                      const VSAPI *vsapi) {
    Taking *d = calloc(1, sizeof *d);
    Held *slots = calloc((size_t)kept_frames, sizeof *slots);
    if (!d || !slots) {
        free(d);
        free(slots);
        vsapi->freeNode(clip);
        return NULL;
    }
    *d = (Taking){.clip = clip, .info = *vsapi->getVideoInfo(clip), .worker = *worker, .gpu = gpu_share(gpu),
                  .slots = kept_frames, .kept = slots};
    mutex_init(&d->lock);
    VSVideoInfo small = d->info;
    small.width = small.height = 1;
    vsapi->getVideoFormatByID(&small.format, pfGray8, core);
    VSFilterDependency dependency = {clip, rpStrictSpatial};
    VSNode *node = vsapi->createVideoFilter2("VsrTaking", &small, taking_frame, taking_free, fmParallel, &dependency,
                                             1, d, core);
    /* It must be asked each time, as a picture may be there no longer. */
    vsapi->setCacheMode(node, cmForceDisable);
    return node;
}
