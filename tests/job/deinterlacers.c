/* Stand-ins for the plugins bwdif and vivtc (-DVIVTC), made of VapourSynth's own functions. They
   leave on each frame which arguments they got. */
#include "VapourSynth4.h"

#include <stdint.h>

/* Takes `clip` away; gives what the function makes of it, or NULL with the error in `out`. */
static VSNode *made(const char *plugin, const char *function, VSNode *clip, const char *name,
                    const int64_t *values, int count, const char *more, int64_t value, VSMap *out,
                    VSCore *core, const VSAPI *api) {
    VSMap *args = api->createMap();
    api->mapConsumeNode(args, "clip", clip, maReplace);
    api->mapSetIntArray(args, name, values, count);
    if (more)
        api->mapSetInt(args, more, value, maReplace);
    VSMap *result =
        api->invoke(api->getPluginByNamespace(plugin, core), function, args);
    api->freeMap(args);
    VSNode *node = NULL;
    if (api->mapGetError(result))
        api->mapSetError(out, api->mapGetError(result));
    else
        node = api->mapGetNode(result, "clip", 0, NULL);
    api->freeMap(result);
    return node;
}

#ifdef VIVTC
static void VS_CC vfm(const VSMap *in, VSMap *out, void *data, VSCore *core, const VSAPI *api) {
    VSNode *clip = api->mapGetNode(in, "clip", 0, NULL);
    int64_t order = api->mapGetInt(in, "order", 0, NULL);
    clip = made("std", "SetFrameProps", clip, "GotOrder", &order, 1, 0, 0, out, core, api);
    if (clip)
        api->mapConsumeNode(out, "clip", clip, maReplace);
}

static void VS_CC vdecimate(const VSMap *in, VSMap *out, void *data, VSCore *core,
                            const VSAPI *api) {
    const int64_t kept[] = {0, 1, 2, 3};
    VSNode *clip = api->mapGetNode(in, "clip", 0, NULL);
    clip = made("std", "SelectEvery", clip, "offsets", kept, 4, "cycle", 5, out, core, api);
    if (clip)
        api->mapConsumeNode(out, "clip", clip, maReplace);
}
#else
static void VS_CC bwdif(const VSMap *in, VSMap *out, void *data, VSCore *core, const VSAPI *api) {
    VSNode *clip = api->mapGetNode(in, "clip", 0, NULL);
    int64_t height = api->getVideoInfo(clip)->height, field = api->mapGetInt(in, "field", 0, NULL);
    const int64_t first = 0, whole = 0;
    clip = made("std", "SeparateFields", clip, "tff", &field, 1, 0, 0, out, core, api);
    if (clip)
        clip = made("std", "SelectEvery", clip, "offsets", &first, 1, "cycle", 2, out, core, api);
    if (clip)
        clip = made("std", "SetFieldBased", clip, "value", &whole, 1, 0, 0, out, core, api);
    if (clip)
        clip = made("resize", "Point", clip, "height", &height, 1, 0, 0, out, core, api);
    if (clip)
        clip = made("std", "SetFrameProps", clip, "GotField", &field, 1, 0, 0, out, core, api);
    if (clip)
        api->mapConsumeNode(out, "clip", clip, maReplace);
}
#endif

VS_EXTERNAL_API(void) VapourSynthPluginInit2(VSPlugin *plugin, const VSPLUGINAPI *api) {
#ifdef VIVTC
    api->configPlugin("test.stand.in.vivtc", "vivtc", "Stand-in", 1, VAPOURSYNTH_API_VERSION, 0,
                      plugin);
    api->registerFunction("VFM", "clip:vnode;order:int;", "clip:vnode;", vfm, 0, plugin);
    api->registerFunction("VDecimate", "clip:vnode;", "clip:vnode;", vdecimate, 0, plugin);
#else
    api->configPlugin("test.stand.in.bwdif", "bwdif", "Stand-in", 1, VAPOURSYNTH_API_VERSION, 0,
                      plugin);
    api->registerFunction("Bwdif", "clip:vnode;field:int;", "clip:vnode;", bwdif, 0, plugin);
#endif
}
