/* A core with GPU frames, without a GPU: it hands out real descriptors, fails where it is told to, and
 * writes down what it was asked for. Frame n has one plane on each of the semaphores in its row. */
#include "abi.h"
#include "gpu.h"
#include "vsvulkan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define EXPORT __attribute__((visibility("default")))

struct VSFrame {
    int n;
};

static char record[65536];
/* "name:count" fails the count-th call from now on of a function; "" fails none. */
static char failing[64];
static int release = 81, exports_memory = 1, exports_semaphores = 1, frames_alive;

#define SEMAPHORE(number) ((VkSemaphore)(uintptr_t)(number))
static const struct {
    int semaphore;
    uint64_t value;
} ready[3][3] = {{{1, 5}, {2, 4}, {1, 7}}, {{0, 0}, {0, 0}, {0, 0}}, {{1, 1}, {2, 2}, {3, 3}}};

EXPORT const char *fake_record(void) { return record; }
EXPORT void fake_set(int core, int memory, int semaphores, const char *fails) {
    release = core;
    exports_memory = memory;
    exports_semaphores = semaphores;
    strcpy(failing, fails);
    *record = 0;
}
EXPORT int fake_frames(void) { return frames_alive; }

#define RECORD(...) snprintf(record + strlen(record), sizeof record - strlen(record), __VA_ARGS__)

static int fails(const char *name, char *error) {
    RECORD("%s ", name);
    char *colon = strchr(failing, ':');
    if (!colon || strncmp(failing, name, (size_t)(colon - failing)) || strlen(name) != (size_t)(colon - failing))
        return 0;
    int left = atoi(colon + 1) - 1;
    if (left == 0 && error) strcpy(error, "the reason");
    sprintf(colon + 1, "%d", left);
    return left == 0;
}

static int VS_CC core_info(VSCore *core, VulkanInfo *info, char *error, int size) {
    (void)core, (void)size;
    *info = (VulkanInfo){.name = "Pretended GPU", .memory = 8000, .limit = 5000, .allocated = 300,
                         .uuid = {1, 2, 3}, .memory_handle_type = exports_memory,
                         .semaphore_handle_type = exports_semaphores};
    return fails("info", error);
}
static VSFrame *new_frame(int n) {
    VSFrame *frame = malloc(sizeof *frame);
    frame->n = n;
    frames_alive++;
    return frame;
}
static VSFrame *VS_CC new_gpu_frame(const VSVideoFormat *format, int w, int h, const VSFrame *from, VSCore *core) {
    (void)format, (void)from, (void)core;
    return fails("new", NULL) ? NULL : (RECORD("%dx%d ", w, h), new_frame(1));
}
static int VS_CC plane(const VSFrame *frame, int p, VulkanPlane *out) {
    *out = (VulkanPlane){.semaphore = SEMAPHORE(ready[frame->n][p].semaphore), .value = ready[frame->n][p].value};
    return fails("plane", NULL);
}
static void VS_CC publish(const VSFrame *frame, int p, VSGPUTimeline *timeline, uint64_t value) {
    RECORD("publish(%d,%d,%d,%d) ", frame->n, p, (int)(uintptr_t)timeline, (int)value);
}
static int timelines;
static VSGPUTimeline *VS_CC new_timeline(VSCore *core, char *error, int size) {
    (void)core, (void)size;
    return fails("timeline", error) ? NULL : (VSGPUTimeline *)(uintptr_t)(100 + ++timelines % 2);
}
static void VS_CC free_timeline(VSGPUTimeline *timeline) {
    (void)timeline;
    RECORD("free-timeline ");
}
static VkSemaphore VS_CC semaphore_of(VSGPUTimeline *timeline) { return (VkSemaphore)timeline; }
static VSGPUMemoryReservation *VS_CC reserve(VSCore *core, int64_t bytes, char *error, int size) {
    (void)core, (void)size;
    return fails("reserve", error) ? NULL : (RECORD("%d ", (int)bytes), (VSGPUMemoryReservation *)record);
}
static void VS_CC update(VSGPUMemoryReservation *reservation, int64_t bytes) {
    (void)reservation;
    RECORD("update %d ", (int)bytes);
}
static void VS_CC unreserve(VSGPUMemoryReservation *reservation) { RECORD(reservation ? "unreserve " : ""); }
static intptr_t descriptor(void) { return memfd_create("exported", 0); }
static int VS_CC export_plane(const VSFrame *frame, int p, VulkanMemory *out, char *error, int size) {
    (void)size;
    if (fails("export-plane", error)) return 1;
    *out = (VulkanMemory){.memory_id = 40 + (uint64_t)frame->n, .memory_size = 9000, .offset = 100 * (uint64_t)p,
                          .handle = descriptor()};
    return 0;
}
static int VS_CC export_semaphore(VSCore *core, VkSemaphore s, VulkanSemaphore *out, char *error, int size) {
    (void)core, (void)size;
    if (fails("export-semaphore", error)) return 1;
    RECORD("%d ", (int)(uintptr_t)s);
    out->handle = descriptor();
    return 0;
}
static int VS_CC wait_frame(const VSFrame *frame, char *error, int size) {
    (void)frame, (void)size;
    return fails("wait", error);
}
static const VSFrame *VS_CC exportable(int n, VSNode *node, VSFrameContext *context, char *error, int size) {
    (void)node, (void)context, (void)size;
    return fails("take", error) ? NULL : new_frame(n);
}
static const VSVULKANAPI table = {
    .getVulkanCoreInfo = core_info, .newGPUVideoFrame = new_gpu_frame, .getGPUPlane = plane,
    .setGPUPlaneProducer = publish, .createGPUTimeline = new_timeline, .freeGPUTimeline = free_timeline,
    .getGPUTimelineSemaphore = semaphore_of, .reserveGPUMemory = reserve, .updateGPUMemoryReservation = update,
    .releaseGPUMemoryReservation = unreserve, .exportGPUPlane = export_plane,
    .exportGPUSemaphore = export_semaphore, .waitGPUFrame = wait_frame, .getExportableFrameFilter = exportable,
};

static const VSVULKANAPI *VS_CC vulkan(void) { return &table; }
static void VS_CC host_info(VSCore *core, VSCoreInfo *info) {
    (void)core;
    info->core = release;
}
static ptrdiff_t VS_CC stride(const VSFrame *frame, int p) {
    (void)frame;
    return 64 * (p + 1);
}
static void VS_CC free_frame(const VSFrame *frame) {
    if (frame) frames_alive--, RECORD("free-frame ");
    free((void *)frame);
}
static const VSAPI api = {.getCoreInfo = host_info, .getVulkanAPI = vulkan, .getStride = stride,
                          .freeFrame = free_frame};

/* gpu.h for ctypes. */
EXPORT Gpu *fake_open(int width, int family, char *error) {
    VSVideoInfo info = {.format = {.colorFamily = family}, .width = width, .height = 2};
    return gpu_open("EDVR", &info, NULL, &api, error);
}
EXPORT void fake_release(Gpu *gpu) { gpu_release(gpu); }
EXPORT void fake_share(Gpu *gpu) { gpu_share(gpu); }
EXPORT int fake_describe(Gpu *gpu, VsrGpuDevice *device, char *error) { return gpu_describe(gpu, device, error); }
EXPORT void fake_close_device(VsrGpuDevice *device) { gpu_close_device(device); }
EXPORT int fake_reserve(Gpu *gpu, int64_t bytes, char *error) { return gpu_reserve(gpu, bytes, error); }
EXPORT const VSFrame *fake_take(Gpu *gpu, int n, VsrGpuFrame *view, char *error) {
    return gpu_take(gpu, n, NULL, NULL, view, error);
}
EXPORT VSFrame *fake_make(Gpu *gpu, VsrGpuFrame *view, char *error) {
    VSVideoInfo info = {.width = 12, .height = 8};
    return gpu_make(gpu, &info, NULL, view, error);
}
EXPORT void fake_publish(Gpu *gpu, const VSFrame *frame, int timeline, uint64_t value) {
    gpu_publish(gpu, frame, (VsrTimeline)timeline, value);
}
EXPORT void fake_close(VsrGpuFrame *view) { gpu_close(view); }
EXPORT void fake_free_frame(const VSFrame *frame) { free_frame(frame); }
EXPORT int fake_sizes(int which) { return which ? (int)sizeof(VsrGpuFrame) : (int)sizeof(VsrGpuDevice); }
