#include "frames.h"

#include "VSHelper4.h"

/* A scene cut mark: -1 if the frame has none, else whether it is set. */
static int mark(const VSMap *props, const char *key, const VSAPI *vsapi) {
    int error = 0;
    int64_t value = vsapi->mapGetInt(props, key, 0, &error);
    return error ? -1 : value != 0;
}

int residency(VSNode *node, const VSAPI *vsapi) {
    return vsapi->getNodeResidency(node) == nrGPU ? ffGPUOutput : 0;
}

void lay_out_marks(VsrFrame *view, const VSFrame *frame, const VSAPI *vsapi) {
    const VSMap *props = vsapi->getFramePropertiesRO(frame);
    view->scene_prev = mark(props, "_SceneChangePrev", vsapi);
    view->scene_next = mark(props, "_SceneChangeNext", vsapi);
}

void lay_out(VsrFrame *view, const VSFrame *frame, VSFrame *writable, const VSAPI *vsapi) {
    for (int p = 0; p < 3; p++) {
        void *data = writable ? vsapi->getWritePtr(writable, p) : (void *)vsapi->getReadPtr(frame, p);
        view->plane[p] = (VsrPlane){data, vsapi->getStride(frame, p)};
    }
    lay_out_marks(view, frame, vsapi);
}

int fits(const VSFrame *frame, const VSVideoInfo *info, const VSAPI *vsapi) {
    return vsapi->getFrameWidth(frame, 0) == info->width && vsapi->getFrameHeight(frame, 0) == info->height &&
           vsh_isSameVideoFormat(vsapi->getVideoFrameFormat(frame), &info->format);
}
