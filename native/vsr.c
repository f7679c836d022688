/* The VapourSynth side of vs_vsr: registers the filters, asks for frames, hands memory to Python.
 *
 *     clip -> VsrIn -> (resize) -> (VsrArrivals) -> VsrChunk -> Vsr -> (VsrOut -> resize) -> (VsrOriginals)
 *                                  (VsrTaking, if it is on a GPU)     (VsrReady before it, with a device)
 *
 * Frame k of VsrChunk is a 1x1 carrier whose property holds the output frames of chunk k, so the core's
 * own cache and scheduler make sure that each chunk is computed once. On a device that computes beside
 * the processor, a carrier is there as soon as the device has its work, otherwise as soon as its first
 * picture is made; its frames are empty until Vsr has their pictures delivered, one by one, before it
 * hands them out. All policy (arguments, plans, networks) is in Python; abi.h tells what passes between
 * the two.
 *
 * A clip on a GPU stays there: VsrTaking gives its frames to Python as they arrive, VsrChunk makes frames
 * on the GPU, and the core waits by itself until their pictures are there (gpu.h). */
#include "VSHelper4.h"
#include "VapourSynth4.h"
#include "abi.h"
#include "arrivals.h"
#include "carriers.h"
#include "convert.h"
#include "early.h"
#include "frames.h"
#include "gpu.h"
#include "portable.h"
#include "python.h"
#include "ready.h"
#include "shares.h"
#include "taking.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

/* The most that full-size pictures may take in a cache that the core does not shrink. */
static const int64_t CACHE_BYTES = (int64_t)2 << 30;
/* Carriers kept: enough for a reader that looks back FRAMES_BACK frames, or reads at three places, one
 * of which crosses a chunk's border. More would only hold memory, which must not grow with the clip. */
enum { FRAMES_BACK = 32, FEWEST_CARRIERS = 2 };
static const char *const NO_MEMORY =
    "%s: no memory is left for the filter. Close other programs, or use a smaller chunk.";

/* ---- the handshake with Python ---- */

static Mutex attach_lock = MUTEX_INIT;
static VsrCallbacks attached;
static int64_t last_instance;

static int32_t set_callbacks(const VsrCallbacks *callbacks) {
    if (callbacks->abi != VSR_ABI) return -1;
    attached = *callbacks;
    return 0;
}

typedef struct {
    VSCore *core;
    const VSAPI *vsapi;
} Host;

static void log_text(const void *host, const char *text) {
    const Host *h = host;
    h->vsapi->logMessage(mtInformation, text, h->core);
}

static int32_t reserve(void *gpu, int64_t bytes, char *error) { return gpu_reserve(gpu, bytes, error); }

static const VsrExports exports = {VSR_ABI, set_callbacks, log_text, reserve};

/* Runs at every creation, as vs_vsr may have been reloaded since the last one. A filter keeps the
 * callbacks it was made with; they live as long as the process. Returns the number of the new filter,
 * or 0 on failure. */
static int64_t attach(const char *filter, VsrCallbacks *python, char *error) {
    mutex_lock(&attach_lock);
    int failed = python_attach(filter, &exports, error, VSR_MESSAGE_SIZE);
    int64_t instance = failed ? 0 : ++last_instance;
    *python = attached;
    mutex_unlock(&attach_lock);
    return instance;
}

/* Makes Python let go of a filter. An interrupt may end a call before it has done anything, so it is
 * made again; the interrupt is raised anew at the end, as no error can be reported from here. */
static void forget(const VsrCallbacks *python, int64_t instance) {
    int interrupts = 0;
    for (int32_t gone = 0; !gone && interrupts < 1000 && python_is_up(); interrupts += !gone)
        python->destroy(instance, &gone);
    if (interrupts) python_interrupt();
}

/* ---- VsrChunk: computes ---- */

typedef struct {
    Worker worker;
    VSNode *in, *early; /* `early` only if frames are fetched ahead */
    VSVideoInfo in_info, out_info;
    Gpu *gpu; /* of a clip on a GPU: the frames of `in` are then 1x1 (taking.h) */
    int chunk, frames_per_input;
    Carriers *carriers;
    int kept_late; /* chunks whose pictures may still be late when the next one is rendered */
    int last_rendered;
} Chunk;

/* What one request has asked for: the frames of its rendering step, which stay to the end, and those
 * of its current step. */
typedef struct {
    VsrStep render, step;
} Request;

typedef struct {
    Carriers *carriers;
    const VSAPI *vsapi;
} Fetch;

static void VS_CC fetched(void *data, const VSFrame *frame, int n, VSNode *node, const char *error) {
    Fetch *fetch = data;
    (void)n;
    (void)error; /* the frame fails again, and is reported, when a step needs it */
    if (frame) fetch->vsapi->freeFrame(frame);
    fetch->vsapi->freeNode(node);
    mutex_lock(&fetch->carriers->lock);
    fetch->carriers->fetching--;
    mutex_unlock(&fetch->carriers->lock);
    release_carriers(fetch->carriers);
    free(fetch);
}

/* Asks for the next chunk's input, so that it is in the cache of `in` when the chunk's turn comes. */
static void fetch_ahead(Chunk *d, const VsrStep *step, const VSAPI *vsapi) {
    int in_order = step->chunk == 0 || step->chunk == d->last_rendered + 1;
    d->last_rendered = step->chunk;
    if (!d->early || !in_order) return;
    int wanted = d->chunk / d->frames_per_input, last = d->in_info.numFrames;
    if (last - step->last > wanted) last = step->last + wanted;
    mutex_lock(&d->carriers->lock);
    /* A few may not have reached their callbacks yet; a whole chunk of them means that the source lags. */
    if (d->carriers->fetching >= wanted) last = step->last;
    mutex_unlock(&d->carriers->lock);
    for (int n = step->last; n < last; n++) {
        Fetch *fetch = malloc(sizeof *fetch);
        if (!fetch) return; /* it only means that the frames are asked for later */
        *fetch = (Fetch){share_carriers(d->carriers), vsapi};
        mutex_lock(&d->carriers->lock);
        d->carriers->fetching++;
        mutex_unlock(&d->carriers->lock);
        vsapi->getFrameAsync(n, vsapi->addNodeRef(d->early), fetched, fetch);
    }
}

static int same(const VsrStep *a, const VsrStep *b) {
    return a->chunk == b->chunk && a->render == b->render && a->first == b->first && a->last == b->last;
}

/* Runs a step whose frames have arrived. `out` gets the frames of a rendering step, and `late` their
 * number if they are still empty, else 0. Returns 0, or -1 and `error`, or 1 if input frames must arrive
 * once more. */
static int run(Chunk *d, const VsrStep *step, VSFrame **out, int out_count, int64_t *late,
               VSFrameContext *context, VSCore *core, const VSAPI *vsapi, char *error) {
    *late = 0;
    int count = step->last - step->first;
    const VSFrame **in = calloc((size_t)count, sizeof *in);
    VsrFrame *views = calloc((size_t)(count + out_count), sizeof *views);
    VsrGpuFrame *gpu_views = calloc((size_t)out_count + 1, sizeof *gpu_views);
    if (!in || !views || !gpu_views) write_text(error, VSR_MESSAGE_SIZE, NO_MEMORY, d->worker.filter);
    for (int i = 0; i < count && !*error; i++) {
        in[i] = vsapi->getFrameFilter(step->first + i, d->in, context);
        /* A different one would be read past its end, or make the core end the process. */
        if (d->gpu) lay_out_marks(&views[i], in[i], vsapi);
        else if (fits(in[i], &d->in_info, vsapi)) lay_out(&views[i], in[i], NULL, vsapi);
        else write_text(error, VSR_MESSAGE_SIZE, NOT_AS_DECLARED, d->worker.filter, step->first + i);
    }
    for (int i = 0; i < out_count && !*error; i++) {
        /* The input frame whose properties this output frame takes. */
        int n = step->chunk * d->chunk + i, from = n / d->frames_per_input - step->first;
        const VSFrame *source = in[from < 0 ? 0 : from < count ? from : count - 1];
        if (d->gpu) out[i] = gpu_make(d->gpu, &d->out_info, source, &gpu_views[i], error);
        else out[i] = vsapi->newVideoFrame(&d->out_info.format, d->out_info.width, d->out_info.height, source, core);
        if (!out[i]) break;
        take_share(vsapi->getFramePropertiesRW(out[i]), n, d->frames_per_input, vsapi);
        if (!d->gpu) lay_out(&views[count + i], out[i], out[i], vsapi);
    }
    int done = 0, lost = 0, answered = 1;
    if (!*error) {
        const Host host = {core, vsapi};
        const VSVideoInfo *from = &d->in_info, *to = &d->out_info;
        VsrJob job = {*step, from->width, from->height, from->format.bytesPerSample, to->width, to->height,
                      to->format.bytesPerSample, count, out_count, views, views + count, &host, 0,
                      d->gpu ? gpu_views : NULL, 0, 0, 0, 0};
        d->worker.python.run(d->worker.instance, &job, error);
        done = job.done;
        lost = !done && job.lost;
        answered = done || lost || *error;
        for (int i = 0; i < out_count && done && d->gpu; i++) gpu_publish(d->gpu, out[i], VSR_WRITES, job.value);
        *late = done ? job.late : 0;
        if (done && job.stale) make_stale(d->carriers, core);
        if (!answered)
            write_text(error, VSR_MESSAGE_SIZE,
                       "%s: computing frames %d to %d was interrupted. Ask for them again.",
                       d->worker.filter, step->first, step->last - 1);
    }
    for (int i = 0; i < out_count && out[i] && d->gpu; i++) gpu_close(&gpu_views[i]);
    /* If Python has not answered, it may still use the frames: they are then never freed. */
    for (int i = 0; in && i < count && answered; i++) vsapi->freeFrame(in[i]);
    for (int i = 0; i < out_count && answered && !done; i++) vsapi->freeFrame(out[i]);
    free(in);
    free(views);
    free(gpu_views);
    return done ? 0 : lost ? 1 : -1;
}

/* Lets go of the frames of a step and asks for them again, as some have to arrive once more. */
static void ask_again(const Chunk *d, const VsrStep *step, VSFrameContext *context, const VSAPI *vsapi) {
    for (int n = step->first; n < step->last; n++) {
        vsapi->releaseFrameEarly(d->in, n, context);
        vsapi->requestFrameFilter(n, d->in, context);
    }
}

/* NULL with `error` empty: it has asked for more frames. */
static const VSFrame *render(Chunk *d, const VsrStep *step, VSFrameContext *context, VSCore *core,
                             const VSAPI *vsapi, char *error) {
    int count = d->out_info.numFrames - step->chunk * d->chunk;
    if (count > d->chunk) count = d->chunk;
    VSFrame **out = calloc((size_t)count, sizeof *out);
    if (!out) {
        write_text(error, VSR_MESSAGE_SIZE, NO_MEMORY, d->worker.filter);
        return NULL;
    }
    fetch_ahead(d, step, vsapi);
    make_room(d->carriers, d->kept_late, core);
    int64_t late;
    int failed = run(d, step, out, count, &late, context, core, vsapi, error);
    if (failed) {
        free(out);
        if (failed > 0) ask_again(d, step, context, vsapi);
        return NULL;
    }
    if (late && add_late(d->carriers, late, out, count)) {
        d->worker.python.drop(d->worker.instance, late);
        for (int i = 0; i < count; i++) vsapi->freeFrame(out[i]);
        free(out);
        write_text(error, VSR_MESSAGE_SIZE, NO_MEMORY, d->worker.filter);
        return NULL;
    }
    VSVideoFormat gray;
    vsapi->getVideoFormatByID(&gray, pfGray8, core);
    VSFrame *carrier = vsapi->newVideoFrame(&gray, 1, 1, NULL, core);
    VSMap *props = vsapi->getFramePropertiesRW(carrier);
    for (int i = 0; i < count; i++) vsapi->mapConsumeFrame(props, FRAMES, out[i], maAppend);
    vsapi->mapSetInt(props, GENERATION, generation(d->carriers), maReplace);
    if (late) vsapi->mapSetInt(props, LATE, late, maReplace);
    free(out);
    return carrier;
}

/* How a request for chunk k goes. The core calls chunk_frame with a reason; `next` is Python's answer to
 * "which step now, for k?", and is compared (`same`) with the steps whose frames were asked for:
 *
 *     arInitial         next(initial=1) -> the rendering step of k: ask for its frames, which stay
 *     arAllFramesReady  next(initial=0) -> what is due now
 *                         the rendering step asked for: run it -> carrier
 *                         the advancing step asked for: run it, let go of its frames, next(initial=0)
 *                             -> this step again: an error; else as above or below
 *                         any other step: ask for its frames -> arAllFramesReady
 *     arError           the source could not give the frames of the current step: `missing`
 *     at the end        ended(missing), once, with a carrier or an error
 *
 * Why twice: a request begins before its turn, beside others. The first answer assumes that by then the
 * chunks before k are done, so that reading in order waits for frames once. Which states there really
 * are is known only in its turn, when its frames are ready (fmParallelRequests: one at a time). */

/* The step that Python wants done now for chunk k. */
static int next_step(const Chunk *d, int k, int initial, VsrStep *step, char *error) {
    *step = (VsrStep){.chunk = -1};
    d->worker.python.next(d->worker.instance, k, initial, step, error);
    if (*error) return -1;
    if (step->chunk < 0)
        write_text(error, VSR_MESSAGE_SIZE,
                   "%s: planning chunk %d was interrupted. Ask for its frames again.", d->worker.filter, k);
    /* The core ends the process when a filter neither asks for frames nor returns one. */
    else if (step->first < 0 || step->first >= step->last || step->last > d->in_info.numFrames)
        write_text(error, VSR_MESSAGE_SIZE,
                   "%s: a step was planned on frames %d..%d of a clip of %d. Report this as a bug of vs-vsr.",
                   d->worker.filter, step->first, step->last, d->in_info.numFrames);
    return *error ? -1 : 0;
}

static void ask(const Chunk *d, const VsrStep *step, VSFrameContext *context, const VSAPI *vsapi) {
    for (int n = step->first; n < step->last; n++) vsapi->requestFrameFilter(n, d->in, context);
}

/* Lets go of the frames of the current step, except those that the rendering step needs too. */
static void let_go(const Chunk *d, const Request *request, VSFrameContext *context, const VSAPI *vsapi) {
    for (int n = request->step.first; n < request->step.last; n++)
        if (n < request->render.first || n >= request->render.last)
            vsapi->releaseFrameEarly(d->in, n, context);
}

/* Works through the steps of chunk k as far as their frames have arrived. Returns the carrier, or NULL:
 * with `error` empty, it has asked for more frames. */
static const VSFrame *proceed(Chunk *d, int k, Request *request, VSFrameContext *context, VSCore *core,
                              const VSAPI *vsapi, char *error) {
    VsrStep want;
    if (next_step(d, k, 0, &want, error)) return NULL;
    if (!want.render && same(&want, &request->step)) {
        int64_t late;
        int failed = run(d, &want, NULL, 0, &late, context, core, vsapi, error);
        if (failed > 0) {
            ask_again(d, &want, context, vsapi);
            return NULL;
        }
        let_go(d, request, context, vsapi);
        if (failed || next_step(d, k, 0, &want, error)) return NULL;
        if (same(&want, &request->step)) {
            write_text(error, VSR_MESSAGE_SIZE,
                       "%s: the state after chunk %d was lost before the next step. Report this as a bug of "
                       "vs-vsr.", d->worker.filter, want.chunk);
            return NULL;
        }
    } else {
        /* Another step is due first, another request has done this one, or the rendering step is next. */
        let_go(d, request, context, vsapi);
    }
    if (same(&want, &request->render)) {
        /* If its frames are asked for again and fail, it is this step that misses them. */
        request->step = want;
        return render(d, &want, context, core, vsapi, error);
    }
    if (want.render) request->render = want;
    request->step = want;
    ask(d, &want, context, vsapi);
    return NULL;
}

static const VSFrame *VS_CC chunk_frame(int k, int reason, void *instance, void **frame_data,
                                        VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    Chunk *d = instance;
    Request *request = *frame_data;
    const VsrStep *missing = NULL;
    char error[VSR_MESSAGE_SIZE] = "";
    const VSFrame *carrier = NULL;
    if (!python_is_up()) {
        write_text(error, sizeof error, PYTHON_IS_DOWN, d->worker.filter);
    } else if (reason == arInitial) {
        VsrStep step;
        *frame_data = request = malloc(sizeof *request);
        if (!request) write_text(error, sizeof error, NO_MEMORY, d->worker.filter);
        else if (!next_step(d, k, 1, &step, error)) {
            *request = (Request){step, step};
            ask(d, &step, context, vsapi);
            return NULL;
        }
    } else if (reason == arAllFramesReady) {
        carrier = proceed(d, k, request, context, core, vsapi, error);
        if (!carrier && !*error) return NULL;
    } else {
        missing = request ? &request->step : NULL;
    }
    if (python_is_up()) d->worker.python.ended(d->worker.instance, k, missing);
    free(request);
    *frame_data = NULL;
    if (*error) vsapi->setFilterError(error, context);
    return carrier;
}

static void VS_CC chunk_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Chunk *d = instance;
    (void)core;
    /* Nobody else uses these any longer: Vsr, which holds this node, is gone. */
    let_go_of_carriers(d->carriers);
    drop_late(d->carriers);
    forget(&d->worker.python, d->worker.instance);
    release_carriers(d->carriers);
    vsapi->freeNode(d->early);
    vsapi->freeNode(d->in);
    if (d->gpu) gpu_release(d->gpu);
    free(d);
}

/* ---- Vsr: hands out ---- */

typedef struct {
    VSNode *chunks, *ready; /* VsrChunk; VsrReady after it, or itself */
    VSNode *early;          /* only if chunks are computed ahead */
    int chunk, frames;
    Carriers *carriers;
} Handout;

static const VSFrame *VS_CC handout_frame(int n, int reason, void *instance, void **frame_data,
                                          VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    const Handout *d = instance;
    (void)frame_data;
    const int chunk = n / d->chunk;
    const VSFrame *carrier = NULL;
    if (reason == arInitial) {
        carrier = held_carrier(d->carriers, chunk);
        if (carrier && !is_computed(d->carriers, carrier)) {
            vsapi->freeFrame(carrier);
            carrier = NULL;
        }
        if (!carrier) vsapi->requestFrameFilter(chunk, d->ready, context);
    } else if (reason == arAllFramesReady) {
        carrier = vsapi->getFrameFilter(chunk, d->ready, context);
    }
    if (!carrier) return NULL;
    char error[VSR_MESSAGE_SIZE] = "";
    /* It may have become stale on its way here. */
    int useless = !hold_carrier(d->carriers, vsapi->addFrameRef(carrier), chunk, 0);
    int next = chunk + 1;
    /* Before its picture is waited for, so that the device has no pause between two chunks. */
    if (!useless && d->early && next <= (d->frames - 1) / d->chunk &&
        should_go_ahead(d->carriers, chunk, d->chunk))
        go_ahead(d->carriers, d->early, next);
    if (!useless) useless = deliver(d->carriers, carrier, n % d->chunk, core, error);
    if (useless) {
        vsapi->freeFrame(carrier);
        /* It may have come into the cache after the caches were cleared. */
        vsapi->clearNodeCache(d->chunks);
        if (reason == arAllFramesReady) vsapi->releaseFrameEarly(d->ready, chunk, context);
        if (*error) vsapi->setFilterError(error, context);
        else vsapi->requestFrameFilter(chunk, d->ready, context);
        return NULL;
    }
    const VSFrame *frame = vsapi->mapGetFrame(vsapi->getFramePropertiesRO(carrier), FRAMES, n % d->chunk, NULL);
    vsapi->freeFrame(carrier);
    /* A reader in order needs no more of this chunk: a clip read to its end holds no carrier. */
    if (n % d->chunk == d->chunk - 1 || n == d->frames - 1) let_go_of_carrier(d->carriers, chunk);
    return frame;
}

static void VS_CC handout_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Handout *d = instance;
    (void)core;
    let_go_of_carriers(d->carriers);
    release_carriers(d->carriers);
    vsapi->freeNode(d->early);
    vsapi->freeNode(d->ready);
    vsapi->freeNode(d->chunks);
    free(d);
}

/* ---- creation ---- */

typedef struct {
    const char *name, *arguments;
} Filter;

#define BEFORE "clip:vnode:all;weights:data:opt;device:data:opt;precision:data:opt;chunk:int:opt;"
#define LOOKAHEAD "lookahead:int:opt;"
#define SEGMENT "segment:int:opt;"
#define PREROLL "preroll:int:opt;"
#define LATENCY "latency:data:opt;"
#define AFTER "tile:int:opt;overlap:int:opt;scenes:data:opt;matrix:data:opt;prefetch:int:opt;"

static const Filter filters[] = {
    {"BasicVSR", BEFORE LOOKAHEAD SEGMENT PREROLL LATENCY AFTER},
    {"IconVSR", BEFORE LOOKAHEAD SEGMENT PREROLL LATENCY AFTER "keyframe:int:opt;"},
    {"EDVR", BEFORE AFTER "padding:data:opt;"},
    {"RealBasicVSR", BEFORE LOOKAHEAD SEGMENT PREROLL LATENCY AFTER "refine_threshold:float:opt;"},
    {"VRT", BEFORE LOOKAHEAD AFTER "sigma:float:opt;"},
    {"BasicVSRPP", BEFORE LOOKAHEAD PREROLL LATENCY AFTER},
    {"AnimeSR", BEFORE SEGMENT PREROLL AFTER},
};

/* The arguments except the clip; the strings belong to the map. NULL without memory. */
static VsrArgument *arguments(const VSMap *in, int32_t *count, const VSAPI *vsapi) {
    int keys = vsapi->mapNumKeys(in);
    VsrArgument *list = calloc((size_t)keys, sizeof *list);
    *count = 0;
    for (int i = 0; list && i < keys; i++) {
        const char *key = vsapi->mapGetKey(in, i);
        VsrArgument a = {.name = key};
        switch (vsapi->mapGetType(in, key)) {
        case ptInt: a.type = VSR_INT; a.i = vsapi->mapGetInt(in, key, 0, NULL); break;
        case ptFloat: a.type = VSR_FLOAT; a.f = vsapi->mapGetFloat(in, key, 0, NULL); break;
        case ptData: a.type = VSR_STRING; a.s = vsapi->mapGetData(in, key, 0, NULL); break;
        default: continue;
        }
        list[(*count)++] = a;
    }
    return list;
}

/* Makes Python's side of a filter. Returns 0, or -1 with nothing of it left. */
static int create_instance(const Worker *worker, const VSMap *in, const VSVideoInfo *info, Gpu *gpu, VsrSpec *spec,
                           VSCore *core, const VSAPI *vsapi, char *error) {
    const VSVideoFormat *f = &info->format;
    int constant = vsh_isConstantVideoFormat(info);
    VsrClip clip = {constant ? info->width : 0, constant ? info->height : 0, info->numFrames, 0,
                    info->fpsNum, info->fpsDen, NULL};
    if (constant)
        clip.format = (int32_t)vsapi->queryVideoFormatID(f->colorFamily, f->sampleType, f->bitsPerSample,
                                                         f->subSamplingW, f->subSamplingH, core);
    int32_t count;
    VsrArgument *list = arguments(in, &count, vsapi);
    if (!list) {
        write_text(error, VSR_MESSAGE_SIZE, NO_MEMORY, worker->filter);
        return -1;
    }
    VsrGpuDevice device;
    if (gpu && !gpu_describe(gpu, &device, error)) clip.gpu = &device;
    if (!*error) worker->python.create(worker->instance, worker->filter, list, count, &clip, spec, error);
    if (clip.gpu) gpu_close_device(&device);
    free(list);
    if (spec->made) return 0;
    if (!*error)
        write_text(error, VSR_MESSAGE_SIZE, "%s: creating the filter was interrupted. Create it again.",
                   worker->filter);
    forget(&worker->python, worker->instance);
    return -1;
}

/* The most that one cache of pictures may take: it counts as used memory, and over its limit the core
 * drops all its caches. */
static int64_t cache_bytes(VSCore *core, const VSAPI *vsapi) {
    VSCoreInfo machine;
    vsapi->getCoreInfo(core, &machine);
    int64_t quarter = machine.maxFramebufferSize / 4;
    return quarter < CACHE_BYTES ? quarter : CACHE_BYTES;
}

static int64_t frame_bytes(const VSVideoInfo *info) {
    return (int64_t)info->width * info->height * 3 * info->format.bytesPerSample;
}

/* Takes `in` and the instance. Without memory returns NULL and takes neither. */
static VSNode *chunk_node(VSNode *in, const VSVideoInfo *in_info, const VSVideoInfo *out, Gpu *gpu,
                          const VsrSpec *spec, Carriers *carriers, VSCore *core, const VSAPI *vsapi) {
    Chunk *d = calloc(1, sizeof *d);
    if (!d) return NULL;
    d->worker = carriers->worker;
    d->in = in;
    d->in_info = *in_info;
    d->out_info = *out;
    d->gpu = gpu ? gpu_share(gpu) : NULL;
    d->chunk = spec->chunk;
    d->frames_per_input = spec->frames_per_input;
    if (spec->prefetch) d->early = early_node(in, core, vsapi);
    d->carriers = share_carriers(carriers);
    /* A CPU has ended the chunk before: all its pictures are there. */
    d->kept_late = spec->arrivals || gpu ? MOST_LATE - 1 : 0;
    d->last_rendered = -2;
    VSVideoInfo carrier = {.width = 1, .height = 1,
                           .numFrames = (spec->num_frames - 1) / spec->chunk + 1};
    vsapi->getVideoFormatByID(&carrier.format, pfGray8, core);
    VSFilterDependency dependency = {in, rpGeneral};
    VSNode *node = vsapi->createVideoFilter2("VsrChunk", &carrier, chunk_frame, chunk_free, fmParallelRequests,
                                             &dependency, 1, d, core);
    int kept = FRAMES_BACK / spec->chunk + 3;
    int64_t fitting = cache_bytes(core, vsapi) / frame_bytes(out) / spec->chunk;
    if (kept > fitting) kept = (int)fitting;
    vsapi->setCacheMode(node, cmForceEnable);
    vsapi->setCacheOptions(node, 1, kept > FEWEST_CARRIERS ? kept : FEWEST_CARRIERS, 0);
    return node;
}

/* `again`: whether each frame is asked for a second time, soon after the first. Takes `chunks`; NULL
 * without memory. */
static VSNode *handout_node(VSNode *chunks, const VSVideoInfo *info, const Gpu *gpu, const VsrSpec *spec, int again,
                            Carriers *carriers, VSCore *core, const VSAPI *vsapi) {
    int chunk = spec->chunk;
    Handout *d = calloc(1, sizeof *d);
    if (!d) {
        vsapi->freeNode(chunks);
        return NULL;
    }
    VSNode *early = spec->prefetch ? early_node(chunks, core, vsapi) : NULL;
    VSNode *ready = vsapi->addNodeRef(chunks);
    if (spec->arrivals || gpu) ready = ready_node(ready, early, carriers, core, vsapi);
    if (!ready) {
        vsapi->freeNode(early);
        vsapi->freeNode(chunks);
        free(d);
        return NULL;
    }
    *d = (Handout){chunks, ready, early, chunk, info->numFrames, share_carriers(carriers)};
    VSFilterDependency dependency = {ready, rpGeneral};
    VSNode *node = vsapi->createVideoFilterEx2("Vsr", info, handout_frame, handout_free, fmParallel,
                                               gpu ? ffGPUOutput : 0, &dependency, 1, d, core);
    /* Otherwise the core knows best: a filter after this one may look at neighbouring frames. */
    if (again) {
        /* In order, the carriers hold a chunk's worth of frames anyway. Out of order, the carrier may be
         * gone by the second request, so the frames must still be in this cache. */
        VSCoreInfo machine;
        vsapi->getCoreInfo(core, &machine);
        int64_t fitting = cache_bytes(core, vsapi) / frame_bytes(info);
        int frames = machine.numThreads < fitting ? machine.numThreads : (int)fitting;
        vsapi->setCacheMode(node, cmForceEnable);
        vsapi->setCacheOptions(node, 1, chunk > frames ? chunk : frames, 0);
    }
    return node;
}

/* The nodes of a filter. Takes the clip and the instance. NULL on failure, with `error` empty if memory
 * was missing. */
static VSNode *build(const Filter *filter, VSNode *clip, Gpu *gpu, const VsrSpec *spec, Carriers *carriers,
                     VSCore *core, const VSAPI *vsapi, char *error) {
    const Worker *worker = &carriers->worker;
    const VSVideoFormat *f = &vsapi->getVideoInfo(clip)->format;
    uint32_t format = vsapi->queryVideoFormatID(f->colorFamily, f->sampleType, f->bitsPerSample,
                                                f->subSamplingW, f->subSamplingH, core);
    int convert = format != (uint32_t)spec->input_format || format != (uint32_t)spec->output_format;
    VSNode *originals = spec->frames_per_input > 1 ? vsapi->addNodeRef(clip) : NULL;
    VSNode *in = convert_in(filter->name, clip, spec->matrix, spec->hdr_matrix, convert, core, vsapi);
    VSNode *chunks = NULL, *node = NULL;
    VSVideoInfo picture = {0}, out;
    if (in && convert) {
        char reason[VSR_MESSAGE_SIZE / 2];
        in = convert_to(in, (uint32_t)spec->input_format, -1, -1, -1, core, vsapi, reason, sizeof reason);
        if (!in)
            write_text(error, VSR_MESSAGE_SIZE,
                       "%s: resize cannot convert clip to RGB: %s. Convert it first.", filter->name, reason);
    }
    if (in) picture = *vsapi->getVideoInfo(in);
    if (in && gpu) {
        in = take_arrivals(in, worker, gpu, spec->cache_frames, core, vsapi);
    } else if (in) {
        if (spec->arrivals) in = show_arrivals(in, &worker->python, worker->instance, core, vsapi);
        /* The next chunk reads part of the same frames again. */
        if (in) vsapi->setCacheMode(in, cmForceEnable);
        if (in) vsapi->setCacheOptions(in, 1, spec->cache_frames, 0);
    }
    if (in) {
        out = picture;
        vsapi->getVideoFormatByID(&out.format, (uint32_t)spec->output_format, core);
        out.width = spec->width;
        out.height = spec->height;
        out.numFrames = spec->num_frames;
        out.fpsNum = spec->fps_num;
        out.fpsDen = spec->fps_den;
        vsh_reduceRational(&out.fpsNum, &out.fpsDen);
        chunks = chunk_node(in, &picture, &out, gpu, spec, carriers, core, vsapi);
    }
    if (chunks) {
        node = handout_node(chunks, &out, gpu, spec, convert, carriers, core, vsapi);
    } else {
        vsapi->freeNode(in);
        forget(&worker->python, worker->instance);
    }
    if (node && convert) node = convert_back(filter->name, node, format, core, vsapi);
    if (node && originals) return keep_originals(originals, node, spec->frames_per_input, core, vsapi);
    vsapi->freeNode(originals);
    return node;
}

static void VS_CC create(const VSMap *in, VSMap *out, void *user_data, VSCore *core, const VSAPI *vsapi) {
    const Filter *filter = user_data;
    char error[VSR_MESSAGE_SIZE] = "";
    VSNode *node = NULL;
    Worker worker = {.filter = filter->name};
    worker.instance = attach(filter->name, &worker.python, error);
    Carriers *carriers = worker.instance ? new_carriers(&worker, vsapi) : NULL;
    if (carriers) {
        VSNode *clip = vsapi->mapGetNode(in, "clip", 0, NULL);
        VsrSpec spec = {0};
        const VSVideoInfo *info = vsapi->getVideoInfo(clip);
        Gpu *gpu = residency(clip, vsapi) ? gpu_open(filter->name, info, core, vsapi, error) : NULL;
        if (!*error && !create_instance(&worker, in, info, gpu, &spec, core, vsapi, error)) {
            if (*spec.message) vsapi->logMessage(mtInformation, spec.message, core);
            node = build(filter, clip, gpu, &spec, carriers, core, vsapi, error);
        } else {
            vsapi->freeNode(clip);
        }
        if (gpu) gpu_release(gpu);
        release_carriers(carriers);
    }
    if (!node && !*error) write_text(error, sizeof error, NO_MEMORY, filter->name);
    if (node) vsapi->mapConsumeNode(out, "clip", node, maReplace);
    else vsapi->mapSetError(out, error);
}

static void VS_CC version(const VSMap *in, VSMap *out, void *user_data, VSCore *core, const VSAPI *vsapi) {
    (void)in;
    (void)user_data;
    (void)core;
    vsapi->mapSetData(out, "version", VSR_VERSION, -1, dtUtf8, maReplace);
    vsapi->mapSetInt(out, "abi", VSR_ABI, maReplace);
}

VS_EXTERNAL_API(void) VapourSynthPluginInit2(VSPlugin *plugin, const VSPLUGINAPI *vspapi) {
    stay_loaded((void *)&exports);
    vspapi->configPlugin("io.github.vs-vsr.vsr", "vsr", "Multi-frame video super-resolution",
                         VS_MAKE_VERSION(VSR_VERSION_MAJOR, VSR_VERSION_MINOR), VAPOURSYNTH_API_VERSION, 0, plugin);
    for (size_t i = 0; i < sizeof filters / sizeof *filters; i++)
        vspapi->registerFunction(filters[i].name, filters[i].arguments, "clip:vnode:all;", create,
                                 (void *)&filters[i], plugin);
    vspapi->registerFunction("Version", "", "version:data;abi:int;", version, NULL, plugin);
}
