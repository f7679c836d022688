/* The handshake with vs_vsr.plugin.bridge, through functions looked up in the running process. */
#include "python.h"
#include "text.h"

#include <stdint.h>
#include <string.h>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#define PSAPI_VERSION 2
#include <psapi.h>
#else
#include <dlfcn.h>
#endif

typedef struct PyObject PyObject;

#define NO_PACKAGE                                                                                   \
    "%s: the plugin cannot import the Python package vs_vsr: %s. Run the script in a Python where "  \
    "vs-vsr is installed, and reinstall vs-vsr if it is."

static struct {
    int (*is_initialized)(void);
    int (*ensure)(void);
    void (*release)(int);
    PyObject *(*import)(const char *);
    PyObject *(*call_method)(PyObject *, const char *, const char *, ...);
    void (*dec_ref)(PyObject *);
    void (*fetch)(PyObject **, PyObject **, PyObject **);
    PyObject *(*str)(PyObject *);
    PyObject *(*encode)(PyObject *, const char *, const char *);
    const char *(*bytes)(PyObject *);
    void (*set_interrupt)(void);
} py;

#ifdef _WIN32
static void *symbol(const char *name) {
    /* python3.dll forwards the stable ABI. Without it, one of the loaded modules is Python itself. */
    HMODULE stable = GetModuleHandleW(L"python3.dll");
    if (stable) return (void *)GetProcAddress(stable, name);
    HMODULE modules[1024];
    DWORD bytes = 0;
    if (!EnumProcessModules(GetCurrentProcess(), modules, sizeof modules, &bytes)) return NULL;
    if (bytes > sizeof modules) bytes = sizeof modules;
    for (DWORD i = 0; i < bytes / sizeof *modules; i++)
        if (GetProcAddress(modules[i], "PyGILState_Ensure")) return (void *)GetProcAddress(modules[i], name);
    return NULL;
}
#else
static void *symbol(const char *name) { return dlsym(RTLD_DEFAULT, name); }
#endif

static int look_up(void) {
    const struct { const char *name; void *slot; } wanted[] = {
        {"Py_IsInitialized", &py.is_initialized},
        {"PyGILState_Ensure", &py.ensure},
        {"PyGILState_Release", &py.release},
        {"PyImport_ImportModule", &py.import},
        {"PyObject_CallMethod", &py.call_method},
        {"Py_DecRef", &py.dec_ref},
        {"PyErr_Fetch", &py.fetch},
        {"PyObject_Str", &py.str},
        {"PyUnicode_AsEncodedString", &py.encode},
        {"PyBytes_AsString", &py.bytes},
        {"PyErr_SetInterrupt", &py.set_interrupt},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        void *found = symbol(wanted[i].name);
        if (!found) return -1;
        *(void **)wanted[i].slot = found;
    }
    return 0;
}

/* str(object) as bytes of UTF-8, or NULL. Characters that UTF-8 cannot encode become escapes. */
static PyObject *text_of(PyObject *object) {
    PyObject *text = object ? py.str(object) : NULL;
    PyObject *bytes = text ? py.encode(text, "utf-8", "backslashreplace") : NULL;
    if (text) py.dec_ref(text);
    return bytes;
}

/* Clears Python's exception and writes it as a sentence. `imported`: whether the bridge was imported. */
static void take_error(const char *filter, int imported, char *error, size_t size) {
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    py.fetch(&type, &value, &trace);
    PyObject *type_text = text_of(type), *value_text = text_of(value);
    const char *name = type_text ? py.bytes(type_text) : NULL;
    const char *message = value_text ? py.bytes(value_text) : NULL;
    char reason[512];
    if (!name) name = "an exception";
    write_text(reason, sizeof reason, "%s", message && *message ? message : name);
    if (strstr(name, "KeyboardInterrupt"))
        write_text(error, size, "%s: creating the filter was interrupted. Create it again.", filter);
    else if (!imported)
        write_text(error, size, NO_PACKAGE, filter, reason);
    /* What attach itself raises is a whole sentence already. */
    else if (strstr(name, "vs_vsr.errors."))
        write_text(error, size, "%s", reason);
    else
        write_text(error, size, "%s: %s: %s", filter, name, reason);
    PyObject *owned[] = {type_text, value_text, type, value, trace};
    for (int i = 0; i < 5; i++)
        if (owned[i]) py.dec_ref(owned[i]);
    /* Putting an exception into words may raise another one. */
    PyObject *raised[3] = {NULL, NULL, NULL};
    py.fetch(&raised[0], &raised[1], &raised[2]);
    for (int i = 0; i < 3; i++)
        if (raised[i]) py.dec_ref(raised[i]);
}

int python_attach(const char *filter, const void *exports, char *error, size_t size) {
    PyObject *module = NULL, *result = NULL;
    if (look_up() || !py.is_initialized()) {
        write_text(error, size, NO_PACKAGE, filter, "this process runs no Python");
        return -1;
    }
    int gil = py.ensure();
    module = py.import("vs_vsr.plugin.bridge");
    if (module) result = py.call_method(module, "attach", "K", (unsigned long long)(uintptr_t)exports);
    if (!result) take_error(filter, module != NULL, error, size);
    if (result) py.dec_ref(result);
    if (module) py.dec_ref(module);
    py.release(gil);
    return result ? 0 : -1;
}

int python_is_up(void) { return py.is_initialized && py.is_initialized(); }

void python_interrupt(void) {
    if (python_is_up()) py.set_interrupt();
}
