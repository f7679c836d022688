/* The VapourSynth side of vs_vsr: registers the filters, asks for frames, hands memory to Python.
 *
 *     clip -> VsrIn -> (resize) -> VsrChunk -> Vsr -> (VsrOut -> resize)
 *
 * Frame k of VsrChunk is a 1x1 carrier whose property holds the output frames of chunk k, so that the
 * core's own cache and scheduler see to it that each chunk is computed once. All policy (arguments,
 * plans, networks) is Python's; see abi.h for what passes between the two. */
#include "VSHelper4.h"
#include "VapourSynth4.h"
#include "abi.h"
#include "convert.h"
#include "portable.h"
#include "python.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Carriers kept: the chunk being handed out and the one after it. */
enum { CARRIERS = 2 };
/* What full-size pictures may take in a cache that the core does not shrink. */
static const int64_t CACHE_BYTES = (int64_t)2 << 30;
static const char *const FRAMES = "frames";

/* ---- the handshake with Python, once a process ---- */

static Mutex attach_lock = MUTEX_INIT;
static VsrCallbacks python;

static int32_t set_callbacks(const VsrCallbacks *callbacks) {
    if (callbacks->abi != VSR_ABI) return -1;
    python = *callbacks;
    return 0;
}

static const VsrExports exports = {VSR_ABI, set_callbacks};

static int attach(const char *filter, char *error) {
    mutex_lock(&attach_lock);
    int attached = python.abi || (!python_attach(filter, &exports, error, VSR_TEXT) && python.abi);
    mutex_unlock(&attach_lock);
    return attached;
}

/* ---- VsrChunk: computes ---- */

/* Frames that were asked for early may arrive after the filter is gone. */
typedef struct {
    Mutex lock;
    int owners;
    int pending;
} Ahead;

typedef struct {
    const char *filter;
    VSNode *in;
    VSVideoInfo in_info, out_info;
    int64_t instance;
    int chunk, rate;
    Ahead *ahead; /* NULL without prefetch */
    int last_rendered;
} Chunk;

/* What one request has asked for: the frames of its rendering step, kept to the end, and those of
 * the step at hand. */
typedef struct {
    VsrStep render, step;
} Request;

static void release_ahead(Ahead *ahead) {
    mutex_lock(&ahead->lock);
    int last = --ahead->owners == 0;
    mutex_unlock(&ahead->lock);
    if (last) {
        mutex_free(&ahead->lock);
        free(ahead);
    }
}

typedef struct {
    Ahead *ahead;
    const VSAPI *vsapi;
} Fetch;

static void VS_CC fetched(void *data, const VSFrame *frame, int n, VSNode *node, const char *error) {
    Fetch *fetch = data;
    (void)n;
    (void)error; /* it comes again, and is reported, when the frame is really asked for */
    if (frame) fetch->vsapi->freeFrame(frame);
    fetch->vsapi->freeNode(node);
    mutex_lock(&fetch->ahead->lock);
    fetch->ahead->pending--;
    mutex_unlock(&fetch->ahead->lock);
    release_ahead(fetch->ahead);
    free(fetch);
}

/* Asks for the input of the next chunk, so that it is in the cache of `in` when its turn comes. */
static void fetch_ahead(Chunk *d, const VsrStep *step, const VSAPI *vsapi) {
    int in_order = step->chunk == 0 || step->chunk == d->last_rendered + 1;
    d->last_rendered = step->chunk;
    if (!d->ahead || !in_order) return;
    mutex_lock(&d->ahead->lock);
    int first = step->last, last = d->in_info.numFrames;
    int wanted = d->chunk / d->rate;
    if (last - first > wanted) last = first + wanted;
    /* A few may be on their way to their callbacks still; a whole chunk means that the source lags. */
    if (d->ahead->pending >= wanted || last < first) last = first;
    d->ahead->pending += last - first;
    d->ahead->owners += last - first;
    mutex_unlock(&d->ahead->lock);
    for (int n = first; n < last; n++) {
        Fetch *fetch = malloc(sizeof *fetch);
        *fetch = (Fetch){d->ahead, vsapi};
        vsapi->getFrameAsync(n, vsapi->addNodeRef(d->in), fetched, fetch);
    }
}

static int same(const VsrStep *a, const VsrStep *b) {
    return a->chunk == b->chunk && a->render == b->render && a->first == b->first && a->last == b->last;
}

static int property(const VSMap *props, const char *key, const VSAPI *vsapi) {
    int error = 0;
    int64_t value = vsapi->mapGetInt(props, key, 0, &error);
    return !error && value != 0;
}

static void lay_out(VsrFrame *view, const VSFrame *frame, VSFrame *writable, const VSAPI *vsapi) {
    const VSMap *props = vsapi->getFramePropertiesRO(frame);
    for (int p = 0; p < 3; p++) {
        void *data = writable ? vsapi->getWritePtr(writable, p) : (void *)vsapi->getReadPtr(frame, p);
        view->plane[p] = (VsrPlane){data, vsapi->getStride(frame, p)};
    }
    view->scene_prev = property(props, "_SceneChangePrev", vsapi);
    view->scene_next = property(props, "_SceneChangeNext", vsapi);
}

static int fits(const VSFrame *frame, const VSVideoInfo *info, const VSAPI *vsapi) {
    return vsapi->getFrameWidth(frame, 0) == info->width && vsapi->getFrameHeight(frame, 0) == info->height &&
           vsh_isSameVideoFormat(vsapi->getVideoFrameFormat(frame), &info->format);
}

/* The input frame whose properties output frame n takes. */
static int source_of(const Chunk *d, int n) {
    return n / d->rate;
}

/* Where several output frames come of one input frame, whose properties each has: the part of its
 * time, and of its scene cut marks, that is output frame n's. */
static void take_share(const Chunk *d, int n, VSFrame *frame, const VSAPI *vsapi) {
    int part = n % d->rate, no_number = 0, no_length = 0, no_time = 0;
    if (d->rate == 1) return;
    VSMap *props = vsapi->getFramePropertiesRW(frame);
    int64_t number = vsapi->mapGetInt(props, "_DurationNum", 0, &no_number);
    int64_t length = vsapi->mapGetInt(props, "_DurationDen", 0, &no_length);
    if (!no_number && !no_length && number > 0 && length > 0) {
        vsh_muldivRational(&number, &length, 1, d->rate);
        vsapi->mapSetInt(props, "_DurationNum", number, maReplace);
        vsapi->mapSetInt(props, "_DurationDen", length, maReplace);
        double time = vsapi->mapGetFloat(props, "_AbsoluteTime", 0, &no_time);
        if (!no_time)
            vsapi->mapSetFloat(props, "_AbsoluteTime", time + (double)part * (double)number / (double)length,
                               maReplace);
    }
    if (part > 0 && property(props, "_SceneChangePrev", vsapi))
        vsapi->mapSetInt(props, "_SceneChangePrev", 0, maReplace);
    if (part < d->rate - 1 && property(props, "_SceneChangeNext", vsapi))
        vsapi->mapSetInt(props, "_SceneChangeNext", 0, maReplace);
}

/* Runs a step whose frames are there. `out` gets the frames of a rendering step. */
static int run(Chunk *d, const VsrStep *step, VSFrame **out, int out_count, VSFrameContext *context,
               VSCore *core, const VSAPI *vsapi, char *error) {
    int count = step->last - step->first;
    const VSFrame **in = calloc((size_t)count, sizeof *in);
    VsrFrame *views = calloc((size_t)(count + out_count), sizeof *views);
    int failed = 0;
    for (int i = 0; i < count && !failed; i++) {
        in[i] = vsapi->getFrameFilter(step->first + i, d->in, context);
        if (fits(in[i], &d->in_info, vsapi)) {
            lay_out(&views[i], in[i], NULL, vsapi);
            continue;
        }
        /* Copied from, it would write past a frame's end or end the process. */
        failed = 1;
        snprintf(error, VSR_TEXT,
                 "%s: clip must give frames of the size and format it declares, got another at frame "
                 "%d. Find the filter before it that changes them.",
                 d->filter, step->first + i);
    }
    for (int i = 0; i < out_count && !failed; i++) {
        int n = step->chunk * d->chunk + i, from = source_of(d, n) - step->first;
        const VSFrame *source = in[from < 0 ? 0 : from < count ? from : count - 1];
        out[i] = vsapi->newVideoFrame(&d->out_info.format, d->out_info.width, d->out_info.height, source, core);
        take_share(d, n, out[i], vsapi);
        lay_out(&views[count + i], out[i], out[i], vsapi);
    }
    if (!failed) {
        VsrJob job = {*step, d->in_info.width, d->in_info.height, d->out_info.width, d->out_info.height,
                      d->out_info.format.bytesPerSample, count, out_count, views, views + count};
        failed = python.run(d->instance, &job, error) != 0;
    }
    for (int i = 0; i < count; i++) vsapi->freeFrame(in[i]);
    for (int i = 0; i < out_count && failed; i++)
        if (out[i]) vsapi->freeFrame(out[i]);
    free(in);
    free(views);
    return failed;
}

static const VSFrame *render(Chunk *d, const VsrStep *step, VSFrameContext *context, VSCore *core,
                             const VSAPI *vsapi, char *error) {
    int count = d->out_info.numFrames - step->chunk * d->chunk;
    if (count > d->chunk) count = d->chunk;
    VSFrame **out = calloc((size_t)count, sizeof *out);
    fetch_ahead(d, step, vsapi);
    if (run(d, step, out, count, context, core, vsapi, error)) {
        free(out);
        return NULL;
    }
    VSVideoFormat gray;
    vsapi->getVideoFormatByID(&gray, pfGray8, core);
    VSFrame *carrier = vsapi->newVideoFrame(&gray, 1, 1, NULL, core);
    VSMap *props = vsapi->getFramePropertiesRW(carrier);
    for (int i = 0; i < count; i++) vsapi->mapConsumeFrame(props, FRAMES, out[i], maAppend);
    free(out);
    return carrier;
}

/* The step that Python wants done for chunk k. */
static int next_step(const Chunk *d, int k, int initial, VsrStep *step, char *error) {
    if (python.next(d->instance, k, initial, step, error)) return -1;
    if (0 <= step->first && step->first < step->last && step->last <= d->in_info.numFrames) return 0;
    /* The core ends the process when a filter neither asks for frames nor returns one. */
    snprintf(error, VSR_TEXT, "%s: a step must have frames within 0..%d, got %d..%d. Report this as a bug of "
             "vs-vsr.", d->filter, d->in_info.numFrames, step->first, step->last);
    return -1;
}

static void ask(const Chunk *d, const VsrStep *step, VSFrameContext *context, const VSAPI *vsapi) {
    for (int n = step->first; n < step->last; n++) vsapi->requestFrameFilter(n, d->in, context);
}

/* Lets go of the frames of the step at hand, but for those that the rendering step needs too. */
static void let_go(const Chunk *d, const Request *request, VSFrameContext *context, const VSAPI *vsapi) {
    for (int n = request->step.first; n < request->step.last; n++)
        if (n < request->render.first || n >= request->render.last)
            vsapi->releaseFrameEarly(d->in, n, context);
}

/* Works through the steps of chunk k as far as their frames are there. Returns the carrier; NULL
 * with `error` empty after asking for more frames. */
static const VSFrame *proceed(Chunk *d, int k, Request *request, VSFrameContext *context, VSCore *core,
                              const VSAPI *vsapi, char *error) {
    VsrStep want;
    if (next_step(d, k, 0, &want, error)) return NULL;
    if (!want.render && same(&want, &request->step)) {
        int failed = run(d, &want, NULL, 0, context, core, vsapi, error);
        let_go(d, request, context, vsapi);
        if (failed || next_step(d, k, 0, &want, error)) return NULL;
        if (same(&want, &request->step)) {
            snprintf(error, VSR_TEXT, "%s: the state after chunk %d must be kept until the next step, got "
                     "lost. Report this as a bug of vs-vsr.", d->filter, want.chunk);
            return NULL;
        }
    } else {
        /* Another request has done this step meanwhile, or it is the rendering step's turn. */
        let_go(d, request, context, vsapi);
    }
    if (same(&want, &request->render)) return render(d, &want, context, core, vsapi, error);
    if (want.render) request->render = want;
    request->step = want;
    ask(d, &want, context, vsapi);
    return NULL;
}

static const VSFrame *VS_CC chunk_frame(int k, int reason, void *instance, void **frame_data,
                                        VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    Chunk *d = instance;
    Request *request = *frame_data;
    char error[VSR_TEXT] = "";
    const VSFrame *carrier = NULL;
    if (!python_is_up()) {
        snprintf(error, sizeof error, "%s: Python must run while frames are made, got its shutdown. "
                 "Let go of the clip before the script ends.", d->filter);
    } else if (reason == arInitial) {
        VsrStep step;
        if (!next_step(d, k, 1, &step, error)) {
            *frame_data = request = malloc(sizeof *request);
            *request = (Request){step, step};
            ask(d, &step, context, vsapi);
            return NULL;
        }
    } else if (reason == arAllFramesReady) {
        carrier = proceed(d, k, request, context, core, vsapi, error);
        if (!carrier && !*error) return NULL;
    } else if (request) {
        python.failed(d->instance, &request->step);
    }
    free(request);
    *frame_data = NULL;
    if (*error) vsapi->setFilterError(error, context);
    return carrier;
}

static void VS_CC chunk_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Chunk *d = instance;
    (void)core;
    if (python_is_up()) python.destroy(d->instance);
    if (d->ahead) release_ahead(d->ahead);
    vsapi->freeNode(d->in);
    free(d);
}

/* ---- Vsr: hands out ---- */

typedef struct {
    VSNode *chunks;
    int chunk;
} Handout;

static const VSFrame *VS_CC handout_frame(int n, int reason, void *instance, void **frame_data,
                                          VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    const Handout *d = instance;
    (void)frame_data;
    (void)core;
    if (reason == arInitial) vsapi->requestFrameFilter(n / d->chunk, d->chunks, context);
    if (reason != arAllFramesReady) return NULL;
    const VSFrame *carrier = vsapi->getFrameFilter(n / d->chunk, d->chunks, context);
    const VSFrame *frame = vsapi->mapGetFrame(vsapi->getFramePropertiesRO(carrier), FRAMES, n % d->chunk, NULL);
    vsapi->freeFrame(carrier);
    return frame;
}

static void VS_CC handout_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Handout *d = instance;
    (void)core;
    vsapi->freeNode(d->chunks);
    free(d);
}

/* ---- creation ---- */

typedef struct {
    const char *name, *arguments;
} Filter;

#define BEFORE "clip:vnode;weights:data:opt;device:data:opt;precision:data:opt;chunk:int:opt;"
#define LOOKAHEAD "lookahead:int:opt;"
#define SEGMENT "segment:int:opt;"
#define PREROLL "preroll:int:opt;"
#define AFTER "tile:int:opt;overlap:int:opt;scenes:data:opt;matrix:data:opt;prefetch:int:opt;"

static const Filter filters[] = {
    {"BasicVSR", BEFORE LOOKAHEAD SEGMENT PREROLL AFTER},
    {"IconVSR", BEFORE LOOKAHEAD SEGMENT PREROLL AFTER "keyframe:int:opt;"},
    {"EDVR", BEFORE AFTER "padding:data:opt;"},
    {"RealBasicVSR", BEFORE LOOKAHEAD SEGMENT PREROLL AFTER "refine_threshold:float:opt;"},
    {"VRT", BEFORE LOOKAHEAD AFTER "sigma:float:opt;"},
    {"BasicVSRPP", BEFORE LOOKAHEAD PREROLL AFTER},
};

/* The arguments but the clip; the strings stay the map's. */
static VsrArgument *arguments(const VSMap *in, int32_t *count, const VSAPI *vsapi) {
    int keys = vsapi->mapNumKeys(in);
    VsrArgument *list = calloc((size_t)keys, sizeof *list);
    *count = 0;
    for (int i = 0; i < keys; i++) {
        const char *key = vsapi->mapGetKey(in, i);
        VsrArgument a = {.name = key};
        switch (vsapi->mapGetType(in, key)) {
        case ptInt: a.type = VSR_INT; a.i = vsapi->mapGetInt(in, key, 0, NULL); break;
        case ptFloat: a.type = VSR_FLOAT; a.f = vsapi->mapGetFloat(in, key, 0, NULL); break;
        case ptData: a.type = VSR_TEXT_VALUE; a.s = vsapi->mapGetData(in, key, 0, NULL); break;
        default: continue;
        }
        list[(*count)++] = a;
    }
    return list;
}

static int64_t create_instance(const Filter *filter, const VSMap *in, const VSVideoInfo *info, VsrSpec *spec,
                               VSCore *core, const VSAPI *vsapi, char *error) {
    const VSVideoFormat *f = &info->format;
    int constant = vsh_isConstantVideoFormat(info);
    VsrClip clip = {constant ? info->width : 0, constant ? info->height : 0, info->numFrames, 0,
                    info->fpsNum, info->fpsDen};
    if (constant)
        clip.format = (int32_t)vsapi->queryVideoFormatID(f->colorFamily, f->sampleType, f->bitsPerSample,
                                                         f->subSamplingW, f->subSamplingH, core);
    int32_t count;
    VsrArgument *list = arguments(in, &count, vsapi);
    int64_t instance = python.create(filter->name, list, count, &clip, spec, error);
    free(list);
    return instance;
}

static VSNode *chunk_node(const Filter *filter, VSNode *in, int64_t instance, const VsrSpec *spec, VSCore *core,
                          const VSAPI *vsapi) {
    Chunk *d = calloc(1, sizeof *d);
    d->filter = filter->name;
    d->in = in;
    d->in_info = d->out_info = *vsapi->getVideoInfo(in);
    d->out_info.width = spec->width;
    d->out_info.height = spec->height;
    d->out_info.numFrames = spec->num_frames;
    d->instance = instance;
    d->chunk = spec->chunk;
    d->rate = spec->rate;
    d->last_rendered = -2;
    if (spec->prefetch) {
        d->ahead = calloc(1, sizeof *d->ahead);
        d->ahead->owners = 1;
        mutex_init(&d->ahead->lock);
    }
    VSVideoInfo carrier = {.width = 1, .height = 1,
                           .numFrames = (spec->num_frames - 1) / spec->chunk + 1};
    vsapi->getVideoFormatByID(&carrier.format, pfGray8, core);
    VSFilterDependency dependency = {in, rpGeneral};
    VSNode *node = vsapi->createVideoFilter2("VsrChunk", &carrier, chunk_frame, chunk_free, fmParallelRequests,
                                             &dependency, 1, d, core);
    vsapi->setCacheMode(node, cmForceEnable);
    vsapi->setCacheOptions(node, 1, CARRIERS, 0);
    return node;
}

/* `again`: each frame is asked for a second time, soon after the first. */
static VSNode *handout_node(VSNode *chunks, const VSVideoInfo *info, int chunk, int again, VSCore *core,
                            const VSAPI *vsapi) {
    Handout *d = calloc(1, sizeof *d);
    *d = (Handout){chunks, chunk};
    VSFilterDependency dependency = {chunks, rpGeneral};
    VSNode *node = vsapi->createVideoFilter2("Vsr", info, handout_frame, handout_free, fmParallel, &dependency, 1,
                                             d, core);
    /* In order, a chunk's worth of frames is held by the carriers anyway. Out of order, the second
     * request must not find its carrier gone. */
    VSCoreInfo machine;
    vsapi->getCoreInfo(core, &machine);
    vsapi->setCacheMode(node, again ? cmForceEnable : cmForceDisable);
    int64_t fitting = CACHE_BYTES / ((int64_t)info->width * info->height * 3 * info->format.bytesPerSample);
    int frames = machine.numThreads < fitting ? machine.numThreads : (int)fitting;
    if (again) vsapi->setCacheOptions(node, 1, chunk > frames ? chunk : frames, 0);
    return node;
}

static VSNode *build(const Filter *filter, VSNode *clip, int64_t instance, const VsrSpec *spec, VSCore *core,
                     const VSAPI *vsapi, char *error) {
    VSVideoInfo own = *vsapi->getVideoInfo(clip);
    uint32_t format = vsapi->queryVideoFormatID(own.format.colorFamily, own.format.sampleType,
                                                own.format.bitsPerSample, own.format.subSamplingW,
                                                own.format.subSamplingH, core);
    int convert = format != (uint32_t)spec->work_format;
    VSNode *in = convert_in(filter->name, clip, spec->matrix, convert, core, vsapi);
    if (convert) {
        char reason[VSR_TEXT / 2];
        in = convert_to(in, (uint32_t)spec->work_format, -1, -1, -1, core, vsapi, reason, sizeof reason);
        if (!in) {
            snprintf(error, VSR_TEXT, "%s: clip must be of a format that resize turns into RGB, got: %s. "
                     "Convert it before.", filter->name, reason);
            python.destroy(instance);
            return NULL;
        }
    }
    /* What one chunk reads the next one reads again, in part. */
    vsapi->setCacheMode(in, cmForceEnable);
    vsapi->setCacheOptions(in, 1, spec->cache_frames, 0);
    VSVideoInfo out = *vsapi->getVideoInfo(in);
    out.width = spec->width;
    out.height = spec->height;
    out.numFrames = spec->num_frames;
    out.fpsNum = spec->fps_num;
    out.fpsDen = spec->fps_den;
    vsh_reduceRational(&out.fpsNum, &out.fpsDen);
    VSNode *chunks = chunk_node(filter, in, instance, spec, core, vsapi);
    VSNode *node = handout_node(chunks, &out, spec->chunk, convert, core, vsapi);
    return convert ? convert_back(node, format, core, vsapi) : node;
}

static void VS_CC create(const VSMap *in, VSMap *out, void *user_data, VSCore *core, const VSAPI *vsapi) {
    const Filter *filter = user_data;
    char error[VSR_TEXT] = "";
    VSNode *node = NULL;
    if (attach(filter->name, error)) {
        VSNode *clip = vsapi->mapGetNode(in, "clip", 0, NULL);
        VsrSpec spec = {0};
        int64_t instance = create_instance(filter, in, vsapi->getVideoInfo(clip), &spec, core, vsapi, error);
        if (instance > 0) {
            if (*spec.message) vsapi->logMessage(mtInformation, spec.message, core);
            node = build(filter, clip, instance, &spec, core, vsapi, error);
        } else {
            vsapi->freeNode(clip);
        }
    }
    if (node) vsapi->mapConsumeNode(out, "clip", node, maReplace);
    else vsapi->mapSetError(out, *error ? error : "vsr: creating the filter was interrupted");
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
        vspapi->registerFunction(filters[i].name, filters[i].arguments, "clip:vnode;", create,
                                 (void *)&filters[i], plugin);
    vspapi->registerFunction("Version", "", "version:data;abi:int;", version, NULL, plugin);
}
