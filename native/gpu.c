/* Frames in the memory of a GPU. gpu.h draws how a frame is read and written, and who closes what.
 *
 * All of this follows the contract in VSVulkan4.h of VapourSynth R81. */
#include "gpu.h"
#include "abi.h"
#include "portable.h"
#include "text.h"
#include "vsvulkan.h"

#include <stdlib.h>
#include <string.h>

/* The release whose table vsvulkan.h describes. */
enum { TESTED_CORE = 81 };
#define DOWNLOAD "Put std.GPUDownload before the filter."

struct Gpu {
    const char *filter;
    VSCore *core;
    const VSAPI *vsapi;
    const VSVULKANAPI *vulkan;
    int waits_on_host; /* semaphores cannot be exported */
    VSGPUTimeline *timeline[2];
    VSGPUMemoryReservation *reservation;
    Mutex lock;
    int owners;
};

Gpu *gpu_open(const char *filter, const VSVideoInfo *clip, VSCore *core, const VSAPI *vsapi, char *error) {
    VSCoreInfo host;
    vsapi->getCoreInfo(core, &host);
    if (host.core != TESTED_CORE) {
        write_text(error, VSR_MESSAGE_SIZE,
                   "%s: clip must be in host memory with this VapourSynth (R%d; GPU clips are tested with R%d), "
                   "got a GPU clip. " DOWNLOAD, filter, host.core, TESTED_CORE);
        return NULL;
    }
    if (clip->format.colorFamily == cfUndefined || clip->width == 0 || clip->height == 0) {
        write_text(error, VSR_MESSAGE_SIZE,
                   "%s: clip must be of constant format and size on a GPU, got a variable one. Bring its parts to "
                   "one before std.GPUUpload.", filter);
        return NULL;
    }
    const VSVULKANAPI *vulkan = vsapi->getVulkanAPI();
    VulkanInfo info;
    char reason[VSR_MESSAGE_SIZE / 2] = "";
    if (vulkan->getVulkanCoreInfo(core, &info, reason, sizeof reason)) {
        write_text(error, VSR_MESSAGE_SIZE, "%s: the GPU of the clip cannot be used: %s. " DOWNLOAD, filter, reason);
        return NULL;
    }
    if (!info.memory_handle_type) {
        write_text(error, VSR_MESSAGE_SIZE,
                   "%s: clip must be on a GPU whose memory other programs can import, got one that exports none "
                   "(%s). " DOWNLOAD, filter, info.name);
        return NULL;
    }
    Gpu *gpu = calloc(1, sizeof *gpu);
    if (!gpu) {
        write_text(error, VSR_MESSAGE_SIZE, "%s: no memory is left for the filter. Close other programs.", filter);
        return NULL;
    }
    *gpu = (Gpu){.filter = filter, .core = core, .vsapi = vsapi, .vulkan = vulkan,
                 .waits_on_host = !info.semaphore_handle_type, .owners = 1};
    mutex_init(&gpu->lock);
    for (int i = 0; i < 2 && !gpu->waits_on_host; i++) {
        gpu->timeline[i] = vulkan->createGPUTimeline(core, reason, sizeof reason);
        if (gpu->timeline[i]) continue;
        write_text(error, VSR_MESSAGE_SIZE, "%s: the GPU of the clip gives no semaphore: %s. " DOWNLOAD, filter,
                   reason);
        gpu_release(gpu);
        return NULL;
    }
    return gpu;
}

Gpu *gpu_share(Gpu *gpu) {
    mutex_lock(&gpu->lock);
    gpu->owners++;
    mutex_unlock(&gpu->lock);
    return gpu;
}

void gpu_release(Gpu *gpu) {
    mutex_lock(&gpu->lock);
    int last = --gpu->owners == 0;
    mutex_unlock(&gpu->lock);
    if (!last) return;
    /* Planes on which a timeline was published hold it themselves. */
    for (int i = 0; i < 2; i++)
        if (gpu->timeline[i]) gpu->vulkan->freeGPUTimeline(gpu->timeline[i]);
    gpu->vulkan->releaseGPUMemoryReservation(gpu->reservation);
    mutex_free(&gpu->lock);
    free(gpu);
}

static void close_once(int64_t *handle) {
    if (*handle != -1) close_handle((intptr_t)*handle);
    *handle = -1;
}

/* A new handle of a semaphore, or -1. */
static int64_t export_semaphore(const Gpu *gpu, VkSemaphore semaphore, char *error) {
    VulkanSemaphore exported;
    char reason[VSR_MESSAGE_SIZE / 2] = "";
    if (!gpu->vulkan->exportGPUSemaphore(gpu->core, semaphore, &exported, reason, sizeof reason))
        return exported.handle;
    write_text(error, VSR_MESSAGE_SIZE, "%s: a semaphore of the GPU cannot be shared: %s. " DOWNLOAD, gpu->filter,
               reason);
    return -1;
}

int gpu_describe(Gpu *gpu, VsrGpuDevice *device, char *error) {
    VulkanInfo info;
    char reason[VSR_MESSAGE_SIZE / 2] = "";
    *device = (VsrGpuDevice){.timeline = {-1, -1}, .gpu = gpu};
    if (gpu->vulkan->getVulkanCoreInfo(gpu->core, &info, reason, sizeof reason)) {
        write_text(error, VSR_MESSAGE_SIZE, "%s: the GPU of the clip cannot be used: %s. " DOWNLOAD, gpu->filter,
                   reason);
        return -1;
    }
    memcpy(device->uuid, info.uuid, sizeof device->uuid);
    memcpy(device->name, info.name, sizeof device->name);
    device->memory = info.memory;
    device->limit = info.limit;
    for (int i = 0; i < 2 && gpu->timeline[i]; i++) {
        device->timeline[i] = export_semaphore(gpu, gpu->vulkan->getGPUTimelineSemaphore(gpu->timeline[i]), error);
        if (device->timeline[i] == -1) {
            gpu_close_device(device);
            return -1;
        }
    }
    return 0;
}

void gpu_close_device(VsrGpuDevice *device) {
    for (int i = 0; i < 2; i++) close_once(&device->timeline[i]);
}

int gpu_reserve(Gpu *gpu, int64_t bytes, char *error) {
    char reason[VSR_MESSAGE_SIZE / 2] = "";
    if (gpu->reservation) {
        gpu->vulkan->updateGPUMemoryReservation(gpu->reservation, bytes);
        return 0;
    }
    gpu->reservation = gpu->vulkan->reserveGPUMemory(gpu->core, bytes, reason, sizeof reason);
    if (!gpu->reservation)
        write_text(error, VSR_MESSAGE_SIZE, "%s: no memory of the GPU can be reserved: %s. " DOWNLOAD, gpu->filter,
                   reason);
    return gpu->reservation ? 0 : -1;
}

/* Exports the planes of a frame. Returns 0 on success; else there is nothing to close. */
static int export_planes(const Gpu *gpu, const VSFrame *frame, VsrGpuFrame *view, char *error) {
    char reason[VSR_MESSAGE_SIZE / 2] = "";
    *view = (VsrGpuFrame){0};
    for (int p = 0; p < 3; p++) view->plane[p].handle = view->wait[p].handle = -1;
    for (int p = 0; p < 3; p++) {
        VulkanMemory memory;
        if (gpu->vulkan->exportGPUPlane(frame, p, &memory, reason, sizeof reason)) {
            write_text(error, VSR_MESSAGE_SIZE, "%s: a frame on the GPU cannot be shared: %s. " DOWNLOAD,
                       gpu->filter, reason);
            gpu_close(view);
            return -1;
        }
        view->plane[p] = (VsrGpuPlane){memory.memory_id, memory.memory_size, memory.offset,
                                       gpu->vsapi->getStride(frame, p), memory.handle};
    }
    return 0;
}

/* Which values of which semaphores make the planes ready: one for each, the highest. Returns 0 on success. */
static int export_waits(const Gpu *gpu, const VSFrame *frame, VsrGpuFrame *view, char *error) {
    for (int p = 0; p < 3; p++) {
        VulkanPlane plane = {0};
        if (gpu->vulkan->getGPUPlane(frame, p, &plane)) {
            write_text(error, VSR_MESSAGE_SIZE, "%s: clip must give frames on the GPU, got one in host memory. "
                       "Find the filter before it that changes them.", gpu->filter);
            return -1;
        }
        if (!plane.semaphore) continue;
        const uint64_t number = (uint64_t)(uintptr_t)plane.semaphore;
        VsrGpuWait *wait = view->wait;
        while (wait < view->wait + view->waits && wait->semaphore != number) wait++;
        if (wait == view->wait + view->waits) {
            *wait = (VsrGpuWait){number, plane.value, export_semaphore(gpu, plane.semaphore, error)};
            if (wait->handle == -1) return -1;
            view->waits++;
        }
        if (wait->value < plane.value) wait->value = plane.value;
    }
    return 0;
}

const VSFrame *gpu_take(Gpu *gpu, int n, VSNode *node, VSFrameContext *context, VsrGpuFrame *view, char *error) {
    char reason[VSR_MESSAGE_SIZE / 2] = "";
    const VSFrame *frame = gpu->vulkan->getExportableFrameFilter(n, node, context, reason, sizeof reason);
    if (!frame || (gpu->waits_on_host && gpu->vulkan->waitGPUFrame(frame, reason, sizeof reason))) {
        write_text(error, VSR_MESSAGE_SIZE, "%s: frame %d cannot be read on the GPU: %s. " DOWNLOAD, gpu->filter, n,
                   *reason ? reason : "no reason was given");
    } else if (!export_planes(gpu, frame, view, error)) {
        if (gpu->waits_on_host || !export_waits(gpu, frame, view, error)) return frame;
        gpu_close(view);
    }
    gpu->vsapi->freeFrame(frame);
    return NULL;
}

VSFrame *gpu_make(Gpu *gpu, const VSVideoInfo *info, const VSFrame *properties, VsrGpuFrame *view, char *error) {
    VSFrame *frame = gpu->vulkan->newGPUVideoFrame(&info->format, info->width, info->height, properties, gpu->core);
    if (!frame) {
        write_text(error, VSR_MESSAGE_SIZE,
                   "%s: the GPU of the clip gives no memory for a frame. Lower core.max_vram_cache_size, or use a "
                   "smaller chunk.", gpu->filter);
        return NULL;
    }
    /* Now, before anything is written: this hands the planes over. */
    if (!export_planes(gpu, frame, view, error)) return frame;
    gpu->vsapi->freeFrame(frame);
    return NULL;
}

void gpu_publish(Gpu *gpu, const VSFrame *frame, VsrTimeline timeline, uint64_t value) {
    if (gpu->waits_on_host || !value) return;
    for (int p = 0; p < 3; p++) gpu->vulkan->setGPUPlaneProducer(frame, p, gpu->timeline[timeline], value);
}

void gpu_close(VsrGpuFrame *view) {
    for (int p = 0; p < 3; p++) {
        close_once(&view->plane[p].handle);
        close_once(&view->wait[p].handle);
    }
}
