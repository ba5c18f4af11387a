/* Entry points of event sets: critical errors (Xid), told once each, since they were asked for. */
#include "entry.h"

#include <stdlib.h>

enum { XID_CRITICAL_ERROR = 8, TIMEOUT = 10, MOST_GPUS = 64 };

typedef struct {
    double since_s[MOST_GPUS]; /* what a GPU had before is not told */
    size_t told[MOST_GPUS];
    Gpu *gpus[MOST_GPUS];
    size_t count;
} EventSet;

typedef struct {
    Handle device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
} EventData;

int nvmlEventSetCreate(EventSet **set) {
    *set = calloc(1, sizeof **set);
    return *set == NULL ? UNKNOWN : OK;
}

int nvmlEventSetFree(EventSet *set) {
    free(set);
    return OK;
}

int nvmlDeviceGetSupportedEventTypes(Handle handle, unsigned long long *types) {
    ENTER(handle);
    (void)gpu;
    *types = XID_CRITICAL_ERROR;
    return OK;
}

int nvmlDeviceRegisterEvents(Handle handle, unsigned long long types, EventSet *set) {
    ENTER(handle);
    if (types != XID_CRITICAL_ERROR)
        return NOT_SUPPORTED;
    if (set->count == MOST_GPUS)
        return INVALID_ARGUMENT;
    set->since_s[set->count] = now;
    set->gpus[set->count++] = gpu;
    return OK;
}

int nvmlEventSetWait_v2(EventSet *set, EventData *data, unsigned milliseconds) {
    (void)milliseconds; /* only asked for what is there already */
    for (size_t i = 0; i < set->count; i++) {
        Gpu *gpu = set->gpus[i];
        while (set->told[i] < gpu->xid_count) {
            const Xid *one = &gpu->xids[set->told[i]];
            if (one->at_s > world_time())
                break;
            set->told[i]++;
            if (one->at_s < set->since_s[i])
                continue;
            *data = (EventData){handle_to(gpu), XID_CRITICAL_ERROR, one->code, ~0u, ~0u};
            return OK;
        }
    }
    return TIMEOUT;
}
