/* The handshake with Python, and no more: imports vs_vsr.plugin.bridge and calls its `attach`. From
 * then on the two sides talk through the structs of abi.h.
 *
 * Nothing is linked: a host without Python (or with another one than at build time) must be able to
 * load the plugin. The functions needed are in Python's stable ABI, and are looked up in the running
 * process. */
#ifndef VSR_PYTHON_H
#define VSR_PYTHON_H

#include <stddef.h>

/* Calls vs_vsr.plugin.bridge.attach(exports). Returns 0, or -1 with a sentence in `error`. */
int python_attach(const char *filter, const void *exports, char *error, size_t size);

/* Whether Python can be called: false before `python_attach` has found it, and after its shutdown. */
int python_is_up(void);

/* What to say then; %s is the filter. */
#define PYTHON_IS_DOWN \
    "%s: Python has shut down, and no frame can be computed without it. Let go of the clip before the " \
    "script ends."

/* Interrupts Python's main thread as Ctrl-C does: makes up for an interrupt that a callback swallowed. */
void python_interrupt(void);

#endif
