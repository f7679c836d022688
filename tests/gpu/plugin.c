/* Two filters over native/gpu.c, whose mathematics is a function that the test sets.
 *
 * Touch: one new frame for each frame. Carry: the same, but the new frames of a chunk travel in the
 * property of a 1x1 carrier, as those of VsrChunk. */
#include "abi.h"
#include "gpu.h"

#include <stdlib.h>
#include <string.h>

enum { CHUNK = 3 };

typedef struct {
    VsrGpuFrame in, out;
    int32_t n, width, height, sample_bytes;
    uint64_t read, written; /* values to publish */
    int32_t done;           /* preset 0 */
    char error[VSR_MESSAGE_SIZE];
} Work;
static void (*work_on)(Work *);
__attribute__((visibility("default"))) void set_work(void (*function)(Work *)) { work_on = function; }

typedef struct {
    VSNode *source;
    VSVideoInfo info;
    Gpu *gpu;
} Filter;

static VSFrame *touched(const Filter *d, int n, VSFrameContext *context, const VSAPI *vsapi, char *error) {
    Work work = {.n = n, .width = d->info.width, .height = d->info.height,
                 .sample_bytes = d->info.format.bytesPerSample};
    const VSFrame *source = gpu_take(d->gpu, n, d->source, context, &work.in, error);
    VSFrame *made = source ? gpu_make(d->gpu, &d->info, source, &work.out, error) : NULL;
    if (made) {
        work_on(&work);
        memcpy(error, work.error, sizeof work.error);
        gpu_publish(d->gpu, source, VSR_READS, work.read);
        gpu_publish(d->gpu, made, VSR_WRITES, work.written);
        gpu_close(&work.out);
    }
    if (source) gpu_close(&work.in);
    vsapi->freeFrame(source);
    if (!*error) return made;
    vsapi->freeFrame(made);
    return NULL;
}

static const VSFrame *VS_CC touch_frame(int n, int reason, void *instance, void **data, VSFrameContext *context,
                                        VSCore *core, const VSAPI *vsapi) {
    const Filter *d = instance;
    char error[VSR_MESSAGE_SIZE] = "";
    (void)data, (void)core;
    if (reason == arInitial) vsapi->requestFrameFilter(n, d->source, context);
    if (reason != arAllFramesReady) return NULL;
    const VSFrame *made = touched(d, n, context, vsapi, error);
    if (!made) vsapi->setFilterError(error, context);
    return made;
}

static const VSFrame *VS_CC chunk_frame(int k, int reason, void *instance, void **data, VSFrameContext *context,
                                        VSCore *core, const VSAPI *vsapi) {
    const Filter *d = instance;
    char error[VSR_MESSAGE_SIZE] = "";
    (void)data;
    int last = (k + 1) * CHUNK < d->info.numFrames ? (k + 1) * CHUNK : d->info.numFrames;
    for (int n = k * CHUNK; n < last && reason == arInitial; n++) vsapi->requestFrameFilter(n, d->source, context);
    if (reason != arAllFramesReady) return NULL;
    VSVideoFormat gray;
    vsapi->getVideoFormatByID(&gray, pfGray8, core);
    VSFrame *carrier = vsapi->newVideoFrame(&gray, 1, 1, NULL, core);
    for (int n = k * CHUNK; n < last && !*error; n++) {
        VSFrame *made = touched(d, n, context, vsapi, error);
        if (made) vsapi->mapConsumeFrame(vsapi->getFramePropertiesRW(carrier), "frames", made, maAppend);
    }
    if (!*error) return carrier;
    vsapi->setFilterError(error, context);
    vsapi->freeFrame(carrier);
    return NULL;
}

static const VSFrame *VS_CC handout_frame(int n, int reason, void *instance, void **data, VSFrameContext *context,
                                          VSCore *core, const VSAPI *vsapi) {
    const Filter *d = instance;
    (void)data, (void)core;
    if (reason == arInitial) vsapi->requestFrameFilter(n / CHUNK, d->source, context);
    if (reason != arAllFramesReady) return NULL;
    const VSFrame *carrier = vsapi->getFrameFilter(n / CHUNK, d->source, context);
    const VSFrame *made = vsapi->mapGetFrame(vsapi->getFramePropertiesRO(carrier), "frames", n % CHUNK, NULL);
    vsapi->freeFrame(carrier);
    return made;
}

static void VS_CC filter_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Filter *d = instance;
    (void)core;
    if (d->gpu) gpu_release(d->gpu);
    vsapi->freeNode(d->source);
    free(d);
}

static Filter *filter(VSNode *source, const VSVideoInfo *info, Gpu *gpu) {
    Filter *d = malloc(sizeof *d);
    *d = (Filter){source, *info, gpu};
    return d;
}

static void VS_CC create(const VSMap *in, VSMap *out, void *carries, VSCore *core, const VSAPI *vsapi) {
    char error[VSR_MESSAGE_SIZE] = "";
    VSNode *source = vsapi->mapGetNode(in, "clip", 0, NULL);
    VSVideoInfo info = *vsapi->getVideoInfo(source);
    Gpu *gpu = gpu_open("Touch", &info, core, vsapi, error);
    if (gpu && gpu_reserve(gpu, 1 << 20, error)) gpu_release(gpu), gpu = NULL;
    if (!gpu) {
        vsapi->mapSetError(out, error);
        vsapi->freeNode(source);
        return;
    }
    VSFilterDependency dependency = {source, carries ? rpNoFrameReuse : rpStrictSpatial};
    if (!carries) {
        vsapi->createVideoFilterEx(out, "Touch", &info, touch_frame, filter_free, fmParallelRequests, ffGPUOutput,
                                   &dependency, 1, filter(source, &info, gpu), core);
        return;
    }
    VSVideoInfo carrier = {.width = 1, .height = 1, .numFrames = (info.numFrames - 1) / CHUNK + 1};
    vsapi->getVideoFormatByID(&carrier.format, pfGray8, core);
    VSNode *chunks = vsapi->createVideoFilter2("Chunk", &carrier, chunk_frame, filter_free, fmParallelRequests,
                                               &dependency, 1, filter(source, &info, gpu), core);
    VSFilterDependency chunk = {chunks, rpGeneral};
    vsapi->createVideoFilterEx(out, "Carry", &info, handout_frame, filter_free, fmParallel, ffGPUOutput, &chunk, 1,
                               filter(chunks, &info, NULL), core);
}

VS_EXTERNAL_API(void) VapourSynthPluginInit2(VSPlugin *plugin, const VSPLUGINAPI *vspapi) {
    vspapi->configPlugin("vs-vsr.test.gpu", "touch", "A test", 1, VAPOURSYNTH_API_VERSION, 0, plugin);
    vspapi->registerFunction("Touch", "clip:vnode:all;", "clip:vnode:all;", create, NULL, plugin);
    vspapi->registerFunction("Carry", "clip:vnode:all;", "clip:vnode:all;", create, (void *)plugin, plugin);
}
