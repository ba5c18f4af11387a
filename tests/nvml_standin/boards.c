/* Entry points that set a device, seen by all processes, and those that tell what may be set. */
#include "entry.h"

int nvmlDeviceGetPowerManagementLimit(Handle handle, unsigned *milliwatts) {
    ENTER(handle);
    *milliwatts = (unsigned)milli(limit_w(gpu));
    return OK;
}

int nvmlDeviceGetEnforcedPowerLimit(Handle handle, unsigned *milliwatts) {
    ENTER(handle);
    *milliwatts = (unsigned)milli(limit_w(gpu));
    return OK;
}

int nvmlDeviceGetPowerManagementLimitConstraints(Handle handle, unsigned *least, unsigned *most) {
    ENTER(handle);
    *least = (unsigned)milli(gpu->least_limit_w);
    *most = (unsigned)milli(gpu->most_limit_w);
    return OK;
}

int nvmlDeviceSetPowerManagementLimit(Handle handle, unsigned milliwatts) {
    ENTER(handle);
    double watts = milliwatts / 1e3;
    if (gpu->board == NULL)
        return NOT_SUPPORTED;
    if (watts < gpu->least_limit_w || watts > gpu->most_limit_w)
        return INVALID_ARGUMENT;
    gpu->board->limit_w = watts < gpu->clamp_w ? gpu->clamp_w : watts;
    gpu->board->writes += 1.0;
    return OK;
}

int nvmlDeviceSetGpuLockedClocks(Handle handle, unsigned from_mhz, unsigned to_mhz) {
    ENTER(handle);
    if (gpu->board == NULL)
        return NOT_SUPPORTED;
    if (from_mhz > to_mhz)
        return INVALID_ARGUMENT;
    gpu->board->locked_from_mhz = from_mhz;
    gpu->board->locked_to_mhz = to_mhz;
    gpu->board->writes += 1.0;
    return OK;
}

int nvmlDeviceResetGpuLockedClocks(Handle handle) {
    ENTER(handle);
    if (gpu->board == NULL)
        return NOT_SUPPORTED;
    gpu->board->locked_from_mhz = gpu->board->locked_to_mhz = 0.0;
    gpu->board->writes += 1.0;
    return OK;
}

int nvmlDeviceGetSupportedMemoryClocks(Handle handle, unsigned *count, unsigned *mhz) {
    ENTER(handle);
    unsigned room = *count;
    *count = 1;
    if (mhz == NULL || room < 1)
        return INSUFFICIENT_SIZE;
    mhz[0] = gpu->memory_mhz;
    return OK;
}

int nvmlDeviceGetSupportedGraphicsClocks(Handle handle, unsigned memory_mhz, unsigned *count,
                                         unsigned *mhz) {
    ENTER(handle);
    if (memory_mhz != gpu->memory_mhz)
        return NOT_FOUND;
    unsigned room = *count, found = 0;
    for (unsigned each = gpu->most_mhz; each >= gpu->least_mhz; each -= gpu->step_mhz) {
        if (mhz != NULL && found < room)
            mhz[found] = each;
        found++;
        if (each < gpu->step_mhz)
            break;
    }
    *count = found;
    return mhz == NULL || found > room ? INSUFFICIENT_SIZE : OK;
}
