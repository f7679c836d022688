/* What the compiled plugin and vs_vsr/plugin/bridge.py agree on. A change here changes VSR_ABI.
 *
 * Python can be interrupted between any two of its instructions, so C reads nothing from what its
 * functions return. Each answers in memory that C has preset to failure, and writes the member that
 * says "success" last. If it has written neither that nor an error, it was interrupted. */
#ifndef VSR_ABI_H
#define VSR_ABI_H

#include "gpu_abi.h"

#include <stdint.h>

enum { VSR_ABI = 8, VSR_MESSAGE_SIZE = 1024 };

enum { VSR_INT = 0, VSR_FLOAT = 1, VSR_STRING = 2 };

typedef struct {
    const char *name;
    int32_t type; /* VSR_INT, VSR_FLOAT or VSR_STRING */
    int64_t i;
    double f;
    const char *s;
} VsrArgument;

/* The user's clip. Width 0 or format 0 means variable. */
typedef struct {
    int32_t width, height, num_frames, format;
    int64_t fps_num, fps_den;
    const VsrGpuDevice *gpu; /* where its frames are; NULL: in the host's memory */
} VsrClip;

/* What a filter turns the clip into, and how its work is laid out. */
typedef struct {
    int32_t input_format;              /* pfRGBS or pfRGBH: what the network's side reads */
    int32_t output_format;             /* pfRGBS or pfRGBH: what it writes; the same for a clip on a GPU */
    int32_t width, height, num_frames; /* of the output */
    int64_t fps_num, fps_den;          /* of the output */
    int32_t frames_per_input;          /* output frames for each input frame */
    int32_t chunk;                     /* output frames computed together */
    int32_t cache_frames;              /* input frames kept in the cache */
    int32_t matrix, hdr_matrix;        /* H.273 codes for YUV and GRAY frames that name none; `hdr_matrix` for
                                          those whose transfer is PQ or HLG */
    int32_t prefetch;                  /* whether the next chunk is computed, and its input read, early */
    int32_t arrivals;                  /* whether `arrived` is to be called */
    char message[VSR_MESSAGE_SIZE];    /* logged once, if any */
    int32_t made;                      /* preset 0; 1: all of this is set, and the filter can run */
} VsrSpec;

typedef struct {
    void *data;
    int64_t stride; /* bytes */
} VsrPlane;

typedef struct {
    VsrPlane plane[3]; /* R, G, B; no data if they are on a GPU */
    /* _SceneChangePrev and _SceneChangeNext of input frames: 0 or 1, or -1 if the frame has none. */
    int32_t scene_prev, scene_next;
} VsrFrame;

/* One piece of work for a chunk, on the input frames first..last (half open). */
typedef struct {
    int32_t chunk;  /* preset -1; the chunk worked on: while state is rebuilt, one before that asked for */
    int32_t render; /* whether output frames are written */
    int32_t first, last;
} VsrStep;

typedef struct {
    VsrStep step;
    int32_t in_width, in_height, in_sample_bytes, out_width, out_height, out_sample_bytes;
    int32_t in_count, out_count;
    const VsrFrame *in, *out;
    const void *host; /* for VsrExports.log */
    int64_t late;     /* preset 0; otherwise the output frames are still empty, or (on a GPU) perhaps of no use:
                         `deliver` fills them, or tells; this number, which grows from job to job, names them; their
                         memory stays until `drop` */
    const VsrGpuFrame *gpu_out; /* the output frames of a clip on a GPU, or NULL */
    uint64_t value;             /* preset 0; what is to be published on VSR_WRITES */
    int32_t lost;     /* preset 0; 1: nothing was done, as input frames are no longer on the GPU: they must arrive
                         once more */
    int32_t stale;    /* preset 0; 1: pictures made before this step are no longer correct */
    int32_t done;     /* preset 0; 1: the step is done */
} VsrJob;

/* Python's side. Functions that can fail write a sentence to `error`, which has VSR_MESSAGE_SIZE bytes
 * and is empty before. */
typedef struct {
    int32_t abi;
    /* `instance`: the number by which C calls the filter from now on */
    void (*create)(int64_t instance, const char *filter, const VsrArgument *arguments, int32_t count,
                   const VsrClip *clip, VsrSpec *spec, char *error);
    /* `step`: what to do next for `chunk`; `initial`: asked before its turn (drawn in vsr.c) */
    void (*next)(int64_t instance, int32_t chunk, int32_t initial, VsrStep *step, char *error);
    /* input frame n is there; it may be asked for in a step soon; from any thread */
    void (*arrived)(int64_t instance, int32_t n, const VsrFrame *frame, int32_t width, int32_t height,
                    int32_t sample_bytes);
    /* the same of a frame on a GPU, which can be read only now: a step gets it by its number. `value`: preset 0;
     * what is to be published on VSR_READS; `done`: preset 0; 1: nothing but enqueued work uses the frame */
    void (*taken)(int64_t instance, int32_t n, const VsrGpuFrame *frame, uint64_t *value, int32_t *done, char *error);
    /* whether input frame n, taken before, is still there; `has`: preset 0 */
    void (*has)(int64_t instance, int32_t n, int32_t *has);
    /* does the step; once it has answered, with success or an error, it no longer uses the job's frames,
     * except late ones */
    void (*run)(int64_t instance, VsrJob *job, char *error);
    /* waits until the late pictures with this number are computed; from any thread */
    void (*wait)(int64_t instance, int64_t late);
    /* fills output frame `index` of the job whose late pictures have this number, if it is still empty;
     * `done`: preset 0; 1: the frame has its picture; 2: the chunk must be computed anew; from any thread */
    void (*deliver)(int64_t instance, int64_t late, int32_t index, int32_t *done, char *error);
    /* no picture with this number will be asked for again, and the memory of their frames goes */
    void (*drop)(int64_t instance, int64_t late);
    /* the request for `chunk` is over; `missing`: the step whose frames the source could not give, or NULL */
    void (*ended)(int64_t instance, int32_t chunk, const VsrStep *missing);
    /* forgets the filter, whether made or not; `gone`: preset 0; 1: nothing of it is left */
    void (*destroy)(int64_t instance, int32_t *gone);
} VsrCallbacks;

/* The plugin's side. Python gets its address. */
typedef struct {
    int32_t abi;
    int32_t (*set_callbacks)(const VsrCallbacks *); /* 0: accepted */
    void (*log)(const void *host, const char *text); /* to the core's log; `host`: of a running job */
    /* tells the core that a filter takes this many bytes in all of the GPU (VsrGpuDevice), before it does; while
     * the filter is created. 0: success */
    int32_t (*reserve)(void *gpu, int64_t bytes, char *error);
} VsrExports;

#endif
