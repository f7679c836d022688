/* Frames in the memory of a GPU, for a program (CUDA) that reads and writes them through handles.
 *
 * Reading frame n of a node                      writing a new frame
 *   gpu_take  -> frame, its planes and waits       gpu_make  -> frame and its planes
 *   Python: wait, read, signal value v             Python: write, signal value v
 *   gpu_publish(frame, VSR_READS, v)               gpu_publish(frame, VSR_WRITES, v)
 *   free the frame                                 return the frame
 *   gpu_close, in any case                         gpu_close, in any case
 *
 * Python answers when its signal is enqueued, so nothing waits for the GPU, with one exception: the core,
 * when it frees a frame that is still being read. Where semaphores cannot be
 * exported, gpu_take itself waits until the planes can be read, Python answers when its work is done, and
 * v is 0. If Python fails, it answers when nothing uses the planes any longer. */
#ifndef VSR_GPU_H
#define VSR_GPU_H

#include "VapourSynth4.h"
#include "gpu_abi.h"

/* What a filter on a GPU has of the core: its timelines and its share of the memory. */
typedef struct Gpu Gpu;

/* For a filter whose clip is on a GPU. Counted: gpu_share takes another reference, gpu_release lets go
 * of one. NULL on failure, with the reason in `error` (VSR_MESSAGE_SIZE). */
Gpu *gpu_open(const char *filter, const VSVideoInfo *clip, VSCore *core, const VSAPI *vsapi, char *error);
Gpu *gpu_share(Gpu *gpu);
void gpu_release(Gpu *gpu);

/* The device, with new handles of the timelines: for gpu_close_device. Returns 0 on success. */
int gpu_describe(Gpu *gpu, VsrGpuDevice *device, char *error);
void gpu_close_device(VsrGpuDevice *device);

/* Tells the core that this many bytes in all are taken beside its frames: before they are. 0 on success. */
int gpu_reserve(Gpu *gpu, int64_t bytes, char *error);

/* Frame n of `node`, requested before, for reading only: it may not be returned nor shared. NULL on
 * failure, with nothing to close. */
const VSFrame *gpu_take(Gpu *gpu, int n, VSNode *node, VSFrameContext *context, VsrGpuFrame *view, char *error);
/* A new frame. NULL on failure, with nothing to close. */
VSFrame *gpu_make(Gpu *gpu, const VSVideoInfo *info, const VSFrame *properties, VsrGpuFrame *view, char *error);
/* The core waits for `value` before it uses the planes again; 0: they are done with already. */
void gpu_publish(Gpu *gpu, const VSFrame *frame, VsrTimeline timeline, uint64_t value);
/* Closes the handles of a frame. */
void gpu_close(VsrGpuFrame *view);

#endif
