/* What the compiled plugin and vs_vsr/bridge.py agree on. A change here changes VSR_ABI.
 *
 * Python can be interrupted between any two of its instructions, so nothing is read from what its
 * functions return. Each answers in memory that C has preset to failure, and writes the member that
 * says "success" last. Where neither that nor an error came, it was interrupted. */
#ifndef VSR_ABI_H
#define VSR_ABI_H

#include <stdint.h>

enum { VSR_ABI = 3, VSR_TEXT = 1024 };

enum { VSR_INT = 0, VSR_FLOAT = 1, VSR_TEXT_VALUE = 2 };

typedef struct {
    const char *name;
    int32_t type; /* VSR_INT, VSR_FLOAT or VSR_TEXT_VALUE */
    int64_t i;
    double f;
    const char *s;
} VsrArgument;

/* The user's clip; width 0 or format 0: variable. */
typedef struct {
    int32_t width, height, num_frames, format;
    int64_t fps_num, fps_den;
} VsrClip;

/* What a filter turns the clip into, and how its work is laid out. */
typedef struct {
    int32_t work_format;               /* pfRGBS or pfRGBH: what the network's side reads and writes */
    int32_t width, height, num_frames; /* of the output */
    int64_t fps_num, fps_den;          /* of the output */
    int32_t rate;                      /* output frames for each input frame */
    int32_t chunk;                     /* output frames computed together */
    int32_t cache_frames;              /* input frames kept at hand */
    int32_t matrix;                    /* H.273 code for YUV and GRAY frames that name none */
    int32_t prefetch;                  /* whether the next chunk's input is asked for early */
    char message[VSR_TEXT];            /* logged once, if any */
    int32_t made;                      /* preset 0; 1: all of this is set, and the filter can run */
} VsrSpec;

typedef struct {
    void *data;
    int64_t stride; /* bytes */
} VsrPlane;

typedef struct {
    VsrPlane plane[3]; /* R, G, B */
    /* Of input frames, _SceneChangePrev and _SceneChangeNext: -1 where not there, else 0 or 1. */
    int32_t scene_prev, scene_next;
} VsrFrame;

/* One piece of work for a chunk, on the input frames first..last (half open). */
typedef struct {
    int32_t chunk;  /* preset -1; the chunk worked on, another than the one asked for while state is rebuilt */
    int32_t render; /* whether output frames are written */
    int32_t first, last;
} VsrStep;

typedef struct {
    VsrStep step;
    int32_t in_width, in_height, out_width, out_height, sample_bytes;
    int32_t in_count, out_count;
    const VsrFrame *in, *out;
    const void *host; /* for VsrExports.log */
    int32_t stale;    /* preset 0; 1: pictures made before this step are no longer right */
    int32_t done;     /* preset 0; 1: the step is done */
} VsrJob;

/* Python's side. Those that can fail write a sentence to `error`, which is empty before. */
typedef struct {
    int32_t abi;
    /* `instance` is the number under which C speaks of the filter from now on */
    void (*create)(int64_t instance, const char *function, const VsrArgument *arguments, int32_t count,
                   const VsrClip *clip, VsrSpec *spec, char *error);
    /* `step`: what to do next for `chunk`; `initial`: asked before its turn has come */
    void (*next)(int64_t instance, int32_t chunk, int32_t initial, VsrStep *step, char *error);
    /* does the step; uses the frames of `job` no longer when it answers, with success or an error */
    void (*run)(int64_t instance, VsrJob *job, char *error);
    /* the request for `chunk` is over; `missing`: the step whose frames the source could not give, or NULL */
    void (*ended)(int64_t instance, int32_t chunk, const VsrStep *missing);
    /* forgets the filter, made or not; `gone`: preset 0; 1: nothing of it is left */
    void (*destroy)(int64_t instance, int32_t *gone);
} VsrCallbacks;

/* The compiled side, whose address Python is given. */
typedef struct {
    int32_t abi;
    int32_t (*set_callbacks)(const VsrCallbacks *); /* 0: taken */
    void (*log)(const void *host, const char *text); /* to the core's log; `host` is a job's, while it runs */
} VsrExports;

#endif
