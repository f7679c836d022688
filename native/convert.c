#include "convert.h"
#include "VSHelper4.h"
#include "abi.h"
#include "frames.h"
#include "portable.h"
#include "text.h"

#include <stdlib.h>

/* Properties that carry past the network what RGB frames cannot say. */
static const char *const KEPT_MATRIX = "_VsrMatrix";
static const char *const KEPT_RANGE = "_VsrRange";
static const char *const KEPT_CHROMA = "_VsrChromaLocation";

enum { MATRIX_RGB = 0, MATRIX_UNSPECIFIED = 2, MATRIX_RESERVED = 3, MATRIX_2020_NCL = 9 };
enum { TRANSFER_UNSPECIFIED = 2, TRANSFER_PQ = 16, TRANSFER_HLG = 18 };

static int property(const VSMap *props, const char *key, int absent, const VSAPI *vsapi) {
    int error = 0;
    int value = vsapi->mapGetIntSaturated(props, key, 0, &error);
    return error ? absent : value;
}

/* ---- in ---- */

typedef struct {
    VSNode *clip;
    const char *filter;
    int matrix, hdr_matrix;
    int comes_back; /* whether properties must be remembered for the way back */
    int has_matrix; /* whether the clip is YUV or GRAY */
} In;

/* The matrix of a frame, or the one for such frames if it names none; -1 for RGB, which has none. */
static int matrix_of(const In *in, const VSMap *props, const VSAPI *vsapi) {
    if (!in->has_matrix) return -1;
    int matrix = property(props, "_Matrix", MATRIX_UNSPECIFIED, vsapi);
    /* resize takes no notice of negative ones either. */
    int is_named = matrix > MATRIX_RGB && matrix != MATRIX_UNSPECIFIED && matrix != MATRIX_RESERVED;
    if (is_named) return matrix;
    int transfer = property(props, "_Transfer", TRANSFER_UNSPECIFIED, vsapi);
    return transfer == TRANSFER_PQ || transfer == TRANSFER_HLG ? in->hdr_matrix : in->matrix;
}

static VSFrame *changed(const In *in, const VSFrame *frame, int matrix, VSCore *core, const VSAPI *vsapi) {
    VSFrame *copy = vsapi->copyFrame(frame, core);
    VSMap *props = vsapi->getFramePropertiesRW(copy);
    /* The alpha plane is a frame that keeps the old size. */
    vsapi->mapDeleteKey(props, "_Alpha");
    if (!in->comes_back) return copy;
    /* Integer RGB may still name the matrix of the YUV it came from; resize would refuse that. */
    vsapi->mapSetInt(props, "_Matrix", matrix >= 0 ? matrix : MATRIX_RGB, maReplace);
    vsapi->mapSetInt(props, KEPT_MATRIX, matrix, maReplace);
    vsapi->mapSetInt(props, KEPT_RANGE, property(props, "_Range", -1, vsapi), maReplace);
    vsapi->mapSetInt(props, KEPT_CHROMA, property(props, "_ChromaLocation", -1, vsapi), maReplace);
    return copy;
}

static const VSFrame *VS_CC in_frame(int n, int reason, void *instance, void **frame_data,
                                     VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    const In *in = instance;
    (void)frame_data;
    if (reason == arInitial) vsapi->requestFrameFilter(n, in->clip, context);
    if (reason != arAllFramesReady) return NULL;
    const VSFrame *frame = vsapi->getFrameFilter(n, in->clip, context);
    const VSMap *props = vsapi->getFramePropertiesRO(frame);
    int fields = property(props, "_FieldBased", 0, vsapi);
    int matrix = in->comes_back ? matrix_of(in, props, vsapi) : -1;
    char error[512] = "";
    if (fields > 0)
        write_text(error, sizeof error,
                   "%s: clip must be progressive, got _FieldBased=%d at frame %d. Deinterlace it first, "
                   "or, if it is progressive, say so with clip.std.SetFieldBased(0).",
                   in->filter, fields, n);
    else if (vsapi->mapNumElements(props, "_Field") >= 0)
        write_text(error, sizeof error,
                   "%s: clip must be of whole pictures, got a single field (_Field) at frame %d. Weave or "
                   "deinterlace it first, or, if it is a picture, say so with "
                   "clip.std.RemoveFrameProps(\"_Field\").",
                   in->filter, n);
    else if (matrix > MATRIX_2020_NCL)
        write_text(error, sizeof error,
                   "%s: clip must have a _Matrix of 1 or 4 to 9, got %d at frame %d. Convert it to RGB first, "
                   "or, if that is wrong, set the right one with clip.std.SetFrameProps(_Matrix=...).",
                   in->filter, matrix, n);
    const VSFrame *result = *error ? NULL
                          : in->comes_back || vsapi->mapNumElements(props, "_Alpha") >= 0
                              ? changed(in, frame, matrix, core, vsapi)
                              : vsapi->addFrameRef(frame);
    if (*error) vsapi->setFilterError(error, context);
    vsapi->freeFrame(frame);
    return result;
}

static void VS_CC in_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    In *in = instance;
    (void)core;
    vsapi->freeNode(in->clip);
    free(in);
}

VSNode *convert_in(const char *filter, VSNode *clip, int matrix, int hdr_matrix, int comes_back, VSCore *core,
                   const VSAPI *vsapi) {
    In *in = malloc(sizeof *in);
    if (!in) {
        vsapi->freeNode(clip);
        return NULL;
    }
    *in = (In){clip, filter, matrix, hdr_matrix, comes_back, vsapi->getVideoInfo(clip)->format.colorFamily != cfRGB};
    VSFilterDependency dependency = {clip, rpStrictSpatial};
    return vsapi->createVideoFilterEx2("VsrIn", vsapi->getVideoInfo(clip), in_frame, in_free, fmParallel,
                                       residency(clip, vsapi), &dependency, 1, in, core);
}

/* ---- resize ---- */

VSNode *convert_to(VSNode *clip, uint32_t format, int matrix, int range, int chroma, VSCore *core,
                   const VSAPI *vsapi, char *error, size_t size) {
    VSPlugin *resize = vsapi->getPluginByID(VSH_RESIZE_PLUGIN_ID, core);
    VSMap *args = vsapi->createMap();
    vsapi->mapConsumeNode(args, "clip", clip, maReplace);
    vsapi->mapSetInt(args, "format", format, maReplace);
    if (matrix >= 0) vsapi->mapSetInt(args, "matrix", matrix, maReplace);
    if (range >= 0) vsapi->mapSetInt(args, "range", range, maReplace);
    if (chroma >= 0) vsapi->mapSetInt(args, "chromaloc", chroma, maReplace);
    VSMap *result = vsapi->invoke(resize, "Bicubic", args);
    vsapi->freeMap(args);
    const char *failed = vsapi->mapGetError(result);
    if (failed) write_text(error, size, "%s", failed);
    VSNode *node = failed ? NULL : vsapi->mapGetNode(result, "clip", 0, NULL);
    vsapi->freeMap(result);
    return node;
}

/* ---- back ---- */

/* One way back for each combination of properties among the frames; most clips have one. */
typedef struct Way {
    struct Way *next;
    int matrix, range, chroma;
    VSNode *node;
} Way;

typedef struct {
    const char *filter;
    VSNode *rgb;
    uint32_t format;
    int chroma_differs; /* whether the format has a chroma location at all */
    Mutex lock;
    Way *ways;
} Back;

static VSNode *way_back(Back *back, const VSMap *props, VSCore *core, const VSAPI *vsapi, char *error,
                        size_t size) {
    int matrix = property(props, KEPT_MATRIX, -1, vsapi), range = property(props, KEPT_RANGE, -1, vsapi);
    int chroma = back->chroma_differs ? property(props, KEPT_CHROMA, -1, vsapi) : -1;
    mutex_lock(&back->lock);
    Way *way = back->ways;
    while (way && (way->matrix != matrix || way->range != range || way->chroma != chroma)) way = way->next;
    if (!way) {
        char reason[VSR_MESSAGE_SIZE / 2];
        VSNode *node = convert_to(vsapi->addNodeRef(back->rgb), back->format, matrix, range, chroma, core,
                                  vsapi, reason, sizeof reason);
        if (!node)
            write_text(error, size,
                       "%s: resize cannot convert the pictures from RGB back to the clip's format: %s. Convert "
                       "clip to RGB first.", back->filter, reason);
        way = node ? malloc(sizeof *way) : NULL;
        if (way) {
            /* Only VsrOut asks it for frames, and they are large. */
            vsapi->setCacheMode(node, cmForceDisable);
            *way = (Way){back->ways, matrix, range, chroma, node};
            back->ways = way;
        } else if (node) {
            vsapi->freeNode(node);
            write_text(error, size,
                       "%s: no memory is left for the conversion from RGB. Close other programs.",
                       back->filter);
        }
    }
    mutex_unlock(&back->lock);
    return way ? way->node : NULL;
}

static const VSFrame *VS_CC back_frame(int n, int reason, void *instance, void **frame_data,
                                       VSFrameContext *context, VSCore *core, const VSAPI *vsapi) {
    Back *back = instance;
    if (reason == arInitial) vsapi->requestFrameFilter(n, back->rgb, context);
    if (reason != arAllFramesReady) return NULL;
    if (!*frame_data) {
        const VSFrame *rgb = vsapi->getFrameFilter(n, back->rgb, context);
        char error[VSR_MESSAGE_SIZE] = "";
        VSNode *node = way_back(back, vsapi->getFramePropertiesRO(rgb), core, vsapi, error, sizeof error);
        vsapi->freeFrame(rgb);
        if (!node) {
            vsapi->setFilterError(error, context);
            return NULL;
        }
        *frame_data = node;
        vsapi->requestFrameFilter(n, node, context);
        return NULL;
    }
    const VSFrame *converted = vsapi->getFrameFilter(n, *frame_data, context);
    VSFrame *copy = vsapi->copyFrame(converted, core);
    vsapi->freeFrame(converted);
    VSMap *props = vsapi->getFramePropertiesRW(copy);
    int chroma = property(props, KEPT_CHROMA, -1, vsapi);
    /* resize drops it from formats without subsampled chroma. */
    if (!back->chroma_differs && chroma >= 0) vsapi->mapSetInt(props, "_ChromaLocation", chroma, maReplace);
    vsapi->mapDeleteKey(props, KEPT_MATRIX);
    vsapi->mapDeleteKey(props, KEPT_RANGE);
    vsapi->mapDeleteKey(props, KEPT_CHROMA);
    return copy;
}

static void VS_CC back_free(void *instance, VSCore *core, const VSAPI *vsapi) {
    Back *back = instance;
    (void)core;
    for (Way *way = back->ways, *next; way; way = next) {
        next = way->next;
        vsapi->freeNode(way->node);
        free(way);
    }
    mutex_free(&back->lock);
    vsapi->freeNode(back->rgb);
    free(back);
}

VSNode *convert_back(const char *filter, VSNode *rgb, uint32_t format, VSCore *core, const VSAPI *vsapi) {
    VSVideoInfo info = *vsapi->getVideoInfo(rgb);
    vsapi->getVideoFormatByID(&info.format, format, core);
    Back *back = calloc(1, sizeof *back);
    if (!back) {
        vsapi->freeNode(rgb);
        return NULL;
    }
    back->filter = filter;
    back->rgb = rgb;
    back->format = format;
    back->chroma_differs = info.format.subSamplingW || info.format.subSamplingH;
    mutex_init(&back->lock);
    VSFilterDependency dependency = {rgb, rpStrictSpatial};
    return vsapi->createVideoFilterEx2("VsrOut", &info, back_frame, back_free, fmParallel, residency(rgb, vsapi),
                                       &dependency, 1, back, core);
}
