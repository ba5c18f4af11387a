/* Entry points about what a device holds and how it is set. */
#include "entry.h"

#include <stdint.h>

#define MEMORY_V2 0x02000028u

typedef struct {
    unsigned long long total, free, used;
} Memory;

int nvmlDeviceGetMemoryInfo(Handle handle, Memory *memory) {
    ENTER(handle);
    memory->total = gpu->memory_bytes;
    memory->used = (unsigned long long)curve_at(&gpu->memory, now);
    memory->free = memory->total - memory->used;
    return OK;
}

typedef struct {
    unsigned version;
    unsigned long long total, reserved, free, used;
} MemoryV2;

int nvmlDeviceGetMemoryInfo_v2(Handle handle, MemoryV2 *memory) {
    ENTER(handle);
    if (memory->version != MEMORY_V2)
        return VERSION_MISMATCH;
    memory->total = gpu->memory_bytes;
    memory->reserved = 0;
    memory->used = (unsigned long long)curve_at(&gpu->memory, now);
    memory->free = memory->total - memory->used;
    return OK;
}

typedef struct {
    unsigned pid;
    unsigned long long bytes;
    unsigned gpu_instance, compute_instance;
} ProcessInfo;

int nvmlDeviceGetComputeRunningProcesses_v3(Handle handle, unsigned *count, ProcessInfo *infos) {
    ENTER(handle);
    unsigned found = 0, room = *count;
    for (size_t i = 0; i < gpu->process_count; i++) {
        const Process *one = &gpu->processes[i];
        if (now < one->from_s || now >= one->until_s)
            continue;
        if (infos != NULL && found < room)
            infos[found] = (ProcessInfo){one->pid, one->bytes, UINT32_MAX, UINT32_MAX};
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : OK;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(Handle handle, unsigned *count, ProcessInfo *infos) {
    ENTER(handle);
    (void)infos;
    (void)gpu;
    *count = 0;
    return OK;
}

int nvmlDeviceGetMigMode(Handle handle, unsigned *current, unsigned *pending) {
    ENTER(handle);
    *current = *pending = (unsigned)gpu->mig;
    return OK;
}

int nvmlDeviceGetPersistenceMode(Handle handle, unsigned *mode) {
    ENTER(handle);
    *mode = (unsigned)gpu->persistence;
    return OK;
}

int nvmlDeviceGetPowerManagementDefaultLimit(Handle handle, unsigned *milliwatts) {
    ENTER(handle);
    *milliwatts = (unsigned)milli(gpu->default_limit_w);
    return OK;
}

int nvmlDeviceGetCurrentClocksEventReasons(Handle handle, unsigned long long *reasons) {
    ENTER(handle);
    *reasons = gpu->reasons;
    return OK;
}

int nvmlDeviceGetEccMode(Handle handle, unsigned *current, unsigned *pending) {
    ENTER(handle);
    (void)gpu;
    *current = *pending = 1;
    return OK;
}

int nvmlDeviceGetTotalEccErrors(Handle handle, int type, int counter, unsigned long long *count) {
    ENTER(handle);
    (void)counter;
    *count = type == 0 ? gpu->ecc_corrected : gpu->ecc_uncorrected;
    return OK;
}
