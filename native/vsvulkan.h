/* What the plugin uses of VapourSynth's table for GPU frames, VSVulkan4.h, at the places it has in R81.
 *
 * Why not that header: it needs Vulkan's own headers of 1.4, which few machines have. And its table has no
 * version: entries move between releases, and a plugin that was built with another release calls the
 * neighbour of what it means. This one cannot move by itself; gpu.c refuses a core that it does not
 * describe, and tests/transfer/test_gpu.py holds it against the installed header. */
#ifndef VSR_VSVULKAN_H
#define VSR_VSVULKAN_H

#include "VapourSynth4.h"

#if UINTPTR_MAX > 0xffffffff
typedef struct VkSemaphore_T *VkSemaphore;
typedef struct VkBuffer_T *VkBuffer;
#else
typedef uint64_t VkSemaphore, VkBuffer;
#endif

typedef struct VSGPUTimeline VSGPUTimeline;
typedef struct VSGPUMemoryReservation VSGPUMemoryReservation;

typedef struct {
    VkBuffer buffer;
    uint64_t size;
    VkSemaphore semaphore; /* the plane is ready when this has reached `value`; null: it is ready */
    uint64_t value;
} VulkanPlane;

typedef struct {
    uint64_t memory_id, memory_size;
    uint32_t memory_type;
    uint64_t offset, size;
    int handle_type;
    intptr_t handle; /* a new one for each call */
} VulkanMemory;

typedef struct {
    int handle_type;
    intptr_t handle; /* a new one for each call */
} VulkanSemaphore;

typedef struct {
    char name[256];
    int64_t memory, budget, allocated, limit; /* bytes */
    uint8_t uuid[16], luid[8];
    uint32_t node_mask;
    int luid_valid;
    int memory_handle_type, semaphore_handle_type; /* 0: none can be exported */
    int unified_memory;
} VulkanInfo;

/* Functions that return an int return 0 on success; others NULL on failure. `error` then has the reason. */
struct VSVULKANAPI {
    void *unused0[2];
    int(VS_CC *getVulkanCoreInfo)(VSCore *, VulkanInfo *, char *error, int size) VS_NOEXCEPT;
    void *unused3[5];
    VSFrame *(VS_CC *newGPUVideoFrame)(const VSVideoFormat *, int width, int height, const VSFrame *properties,
                                       VSCore *) VS_NOEXCEPT;
    int(VS_CC *getGPUPlane)(const VSFrame *, int plane, VulkanPlane *) VS_NOEXCEPT;
    void(VS_CC *setGPUPlaneProducer)(const VSFrame *, int plane, VSGPUTimeline *, uint64_t value) VS_NOEXCEPT;
    VSGPUTimeline *(VS_CC *createGPUTimeline)(VSCore *, char *error, int size) VS_NOEXCEPT;
    void(VS_CC *freeGPUTimeline)(VSGPUTimeline *) VS_NOEXCEPT;
    void *unused13;
    VkSemaphore(VS_CC *getGPUTimelineSemaphore)(VSGPUTimeline *) VS_NOEXCEPT;
    void *unused15[5];
    VSGPUMemoryReservation *(VS_CC *reserveGPUMemory)(VSCore *, int64_t bytes, char *error, int size) VS_NOEXCEPT;
    void(VS_CC *updateGPUMemoryReservation)(VSGPUMemoryReservation *, int64_t bytes) VS_NOEXCEPT;
    void(VS_CC *releaseGPUMemoryReservation)(VSGPUMemoryReservation *) VS_NOEXCEPT;
    void *unused23[17];
    int(VS_CC *exportGPUPlane)(const VSFrame *, int plane, VulkanMemory *, char *error, int size) VS_NOEXCEPT;
    int(VS_CC *exportGPUSemaphore)(VSCore *, VkSemaphore, VulkanSemaphore *, char *error, int size) VS_NOEXCEPT;
    int(VS_CC *waitGPUFrame)(const VSFrame *, char *error, int size) VS_NOEXCEPT;
    const VSFrame *(VS_CC *getExportableFrameFilter)(int n, VSNode *, VSFrameContext *, char *error,
                                                     int size) VS_NOEXCEPT;
};

#endif
