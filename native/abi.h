/* What the compiled plugin and vs_vsr/bridge.py agree on. A change here changes VSR_ABI. */
#ifndef VSR_ABI_H
#define VSR_ABI_H

#include <stdint.h>

enum { VSR_ABI = 2, VSR_TEXT = 1024 };

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
} VsrSpec;

typedef struct {
    void *data;
    int64_t stride; /* bytes */
} VsrPlane;

typedef struct {
    VsrPlane plane[3];               /* R, G, B */
    int32_t scene_prev, scene_next;  /* _SceneChangePrev, _SceneChangeNext; of input frames */
} VsrFrame;

/* One piece of work for a chunk, on the input frames first..last (half open). */
typedef struct {
    int32_t chunk;  /* the chunk worked on; another than the one asked for while state is rebuilt */
    int32_t render; /* whether output frames are written */
    int32_t first, last;
} VsrStep;

typedef struct {
    VsrStep step;
    int32_t in_width, in_height, out_width, out_height, sample_bytes;
    int32_t in_count, out_count;
    const VsrFrame *in, *out;
} VsrJob;

/* Python's side. Those that return int or int64_t write a sentence to `error` when they fail. */
typedef struct {
    int32_t abi;
    /* > 0: the new instance; 0: failed */
    int64_t (*create)(const char *function, const VsrArgument *arguments, int32_t count,
                      const VsrClip *clip, VsrSpec *spec, char *error);
    /* 0: `step` is what to do next for `chunk`; `initial`: asked before its turn has come */
    int32_t (*next)(int64_t instance, int32_t chunk, int32_t initial, VsrStep *step, char *error);
    /* 0: done */
    int32_t (*run)(int64_t instance, const VsrJob *job, char *error);
    /* the source failed while the frames of `step` were fetched */
    void (*failed)(int64_t instance, const VsrStep *step);
    void (*destroy)(int64_t instance);
} VsrCallbacks;

/* The compiled side, whose address Python is given. */
typedef struct {
    int32_t abi;
    int32_t (*set_callbacks)(const VsrCallbacks *); /* 0: taken */
} VsrExports;

#endif
