/* What every entry point starts with. */
#ifndef ENTRY_H
#define ENTRY_H

#include "world.h"

#include <math.h>

enum {
    OK = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    VERSION_MISMATCH = 25,
    UNKNOWN = 999
};

typedef void *Handle;

/* Fails where the library is not initialised, the handle is bad or the scenario has a fault. */
int enter(Handle handle, const char *function, Gpu **gpu, double *now);

#define ENTER(handle)                                                                            \
    Gpu *gpu;                                                                                    \
    double now;                                                                                  \
    do {                                                                                         \
        int code = enter(handle, __func__, &gpu, &now);                                          \
        if (code != OK)                                                                          \
            return code;                                                                         \
    } while (0)

/* A GPU's handle, and the moment of the scenario, without a look. */
Handle handle_to(const Gpu *gpu);
double world_time(void);

/* The moment that a look at a counter or at power is of. */
double look(void);

#define LOOK(handle)                                                                             \
    ENTER(handle);                                                                               \
    now = look()

static inline unsigned long long milli(double value) {
    return (unsigned long long)floor(value * 1e3);
}

#endif
