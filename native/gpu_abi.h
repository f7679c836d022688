/* What gpu.c and vs_vsr/plugin/gpu.py agree on; part of what VSR_ABI (abi.h) is the version of.
 *
 * Handles are file descriptors, or HANDLEs on Windows; -1 is none. They belong to the plugin, which closes
 * them when the call that shows them is over. An import that takes a descriptor for itself, as CUDA's do,
 * is given a duplicate. So no interrupt of Python can leave one open or close it twice. */
#ifndef VSR_GPU_ABI_H
#define VSR_GPU_ABI_H

#include <stdint.h>

/* Our semaphores, whose values grow. Each is signalled on one stream, as values of two have no order. */
typedef enum { VSR_READS = 0, VSR_WRITES = 1 } VsrTimeline;

/* The GPU that a clip is on. */
typedef struct {
    uint8_t uuid[16]; /* CUDA gives the device the same one */
    char name[256];
    int64_t memory, limit; /* bytes: it has; the core's frames may take */
    int64_t timeline[2]; /* handles, by VsrTimeline; -1 both: semaphores cannot be exported */
    void *gpu;           /* for VsrExports.reserve */
} VsrGpuDevice;

/* One plane, at `offset` in a block of memory, which is imported as a whole. */
typedef struct {
    uint64_t memory;      /* number of the block, never used for another one */
    uint64_t memory_size; /* bytes of the block */
    uint64_t offset;      /* bytes */
    int64_t stride;       /* bytes */
    int64_t handle;       /* of the block */
} VsrGpuPlane;

/* What must have been reached before a frame is read. */
typedef struct {
    uint64_t semaphore; /* number of the core's semaphore, the same as long as the filter lives */
    uint64_t value;
    int64_t handle; /* of the semaphore */
} VsrGpuWait;

typedef struct {
    VsrGpuPlane plane[3]; /* R, G, B */
    VsrGpuWait wait[3];   /* one for each semaphore */
    int32_t waits;        /* how many there are */
} VsrGpuFrame;

#endif
