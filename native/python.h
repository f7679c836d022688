/* The little of Python that is needed to hand over to the package vs_vsr.
 *
 * Nothing is linked: a host without Python (or with another one than at build time) must be able to
 * load the plugin. The functions are of the stable ABI and are looked up in the running process. */
#ifndef VSR_PYTHON_H
#define VSR_PYTHON_H

#include <stddef.h>

/* Calls vs_vsr.bridge.attach(exports). Returns 0, or -1 with a sentence in `error`. */
int python_attach(const char *filter, const void *exports, char *error, size_t size);

/* Whether Python can still be called: false without one and after it has shut down. */
int python_is_up(void);

/* Interrupts Python's main thread as Ctrl-C does: for an interrupt that a callback has swallowed. */
void python_interrupt(void);

#endif
