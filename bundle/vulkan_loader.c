/* libvulkan.so.1 for one driver, where the system's own is older than Vulkan 1.4.
 *
 * VapourSynth R81 looks up vkGetInstanceProcAddr and nothing else, and asks for a loader of 1.4. A
 * driver answers all that matters itself; this passes the questions on. There are no layers and no
 * second driver. What the device can do is what the driver says.
 *
 * The driver is the first that loads of: the "library_path" of the manifest that VK_DRIVER_FILES
 * (or VK_ICD_FILENAMES) names, and NVIDIA's two libraries, of which the second needs no X11. Where
 * there is none, the first one loads all the same, and can make no instance.
 *
 * Source: the Vulkan-Loader's LoaderDriverInterface.md, "Driver Vulkan API Version" and "ICD
 * Discovery".
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*Function)(void);
typedef Function (*Lookup)(void *instance, const char *name);

/* 1.4.0; a driver of 1.1 or newer answers this itself. */
#define VERSION ((1u << 22) | (4u << 12))
/* The first that allows more than Vulkan 1.0. */
#define INTERFACE 5u

static Lookup driver;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static int32_t no_layers(uint32_t *count, void *properties)
{
    (void)properties;
    *count = 0;
    return 0;
}

static int32_t version(uint32_t *value)
{
    *value = VERSION;
    return 0;
}

static Lookup open_driver(const char *library)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!handle)
        return NULL;
    int32_t (*negotiate)(uint32_t *);
    Lookup lookup;
    /* As POSIX has it: a cast from an object's pointer to a function's is not C. */
    *(void **)&negotiate = dlsym(handle, "vk_icdNegotiateLoaderICDInterfaceVersion");
    *(void **)&lookup = dlsym(handle, "vk_icdGetInstanceProcAddr");
    uint32_t interface = INTERFACE;
    if (negotiate && negotiate(&interface))
        return NULL;
    return lookup && lookup(NULL, "vkCreateInstance") ? lookup : NULL;
}

/* The driver of the first manifest in a list that colons separate. */
static Lookup open_manifest(const char *list)
{
    char path[4096], text[8192], library[8192];
    snprintf(path, sizeof path, "%.*s", (int)strcspn(list, ":"), list);
    FILE *file = fopen(path, "r");
    if (!file)
        return NULL;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    const char *key = strstr(text, "\"library_path\"");
    if (!key || sscanf(key, "\"library_path\" : \"%8191[^\"]\"", library) != 1)
        return NULL;
    char *folder_end = strrchr(path, '/');
    if (library[0] != '/' && strchr(library, '/') && folder_end) {
        /* It starts where the manifest lies. */
        char whole[sizeof path + sizeof library];
        snprintf(whole, sizeof whole, "%.*s/%s", (int)(folder_end - path), path, library);
        return open_driver(whole);
    }
    return open_driver(library);
}

static void find_driver(void)
{
    const char *list = getenv("VK_DRIVER_FILES");
    if (!list)
        list = getenv("VK_ICD_FILENAMES");
    if (list)
        driver = open_manifest(list);
    if (!driver)
        driver = open_driver("libGLX_nvidia.so.0");
    if (!driver)
        driver = open_driver("libEGL_nvidia.so.0");
}

__attribute__((visibility("default"))) Function vkGetInstanceProcAddr(void *instance,
                                                                      const char *name)
{
    pthread_once(&once, find_driver);
    if (!driver)
        return NULL;
    Function found = driver(instance, name);
    if (!found && !strcmp(name, "vkEnumerateInstanceVersion"))
        return (Function)version;
    if (!found && !strcmp(name, "vkEnumerateInstanceLayerProperties"))
        return (Function)no_layers;
    return found;
}
