/* What operating systems name differently. */
#ifndef VSR_PORTABLE_H
#define VSR_PORTABLE_H

#include <stdint.h>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
typedef SRWLOCK Mutex;
#define MUTEX_INIT SRWLOCK_INIT
static inline void mutex_init(Mutex *m) { InitializeSRWLock(m); }
static inline void mutex_free(Mutex *m) { (void)m; }
static inline void mutex_lock(Mutex *m) { AcquireSRWLockExclusive(m); }
static inline void mutex_unlock(Mutex *m) { ReleaseSRWLockExclusive(m); }
static inline void close_handle(intptr_t handle) { CloseHandle((HANDLE)handle); }
#else
#include <dlfcn.h>
#include <pthread.h>
#include <unistd.h>
typedef pthread_mutex_t Mutex;
#define MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
static inline void mutex_init(Mutex *m) { pthread_mutex_init(m, NULL); }
static inline void mutex_free(Mutex *m) { pthread_mutex_destroy(m); }
static inline void mutex_lock(Mutex *m) { pthread_mutex_lock(m); }
static inline void mutex_unlock(Mutex *m) { pthread_mutex_unlock(m); }
static inline void close_handle(intptr_t handle) { close((int)handle); }
#endif

/* Keeps this library loaded for good. A core unloads its plugins when it is freed, while Python may
 * still hold the addresses it was given. */
static inline void stay_loaded(void *inside) {
#ifdef _WIN32
    HMODULE self;
    GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN,
                       (LPCWSTR)inside, &self);
#else
    Dl_info info;
    if (dladdr(inside, &info)) dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}

#endif
