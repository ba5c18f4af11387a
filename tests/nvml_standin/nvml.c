/* The entry points of libnvidia-ml.so.1 that pynvml calls for sweeper's use, over a scenario.
 *
 * The scenario's path is in SWEEPER_NVML_SCENARIO; it is read when the library is initialised.
 * Without it there is no driver. SWEEPER_NVML_CLOCK may name a virtual clock, which looks at
 * counters and power move. What a scenario calls unsupported, faulty or lost is returned as
 * the error code that the driver would give. Structures and numbers follow nvml.h as pynvml
 * declares them.
 */
#include "entry.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FIELD_FIRST_POLICY = 74,
    FIELD_LAST_POLICY = 81,
    FIELD_MEMORY_TEMPERATURE = 82,
    FIELD_TOTAL_ENERGY = 83,
    FIELD_POWER_AVERAGE = 185,
    FIELD_POWER_INSTANT = 186,
    FIELD_FIRST_REASON = 269,
    FIELD_LAST_REASON = 271
};
enum { TYPE_UINT = 1, TYPE_ULONGLONG = 3 };

#define TEMPERATURE_V1 0x0100000Cu
#define AVERAGE_S 1.0 /* what nvmlDeviceGetPowerUsage averages over on Ampere and later */

static World world;
static int users;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int enter(Handle handle, const char *function, Gpu **gpu, double *now) {
    if (users == 0)
        return UNINITIALIZED;
    uintptr_t number = (uintptr_t)handle;
    if (number == 0 || number > world.count)
        return INVALID_ARGUMENT;
    *gpu = &world.gpus[number - 1];
    *now = world_now(&world);
    return fault_at(*gpu, function, *now);
}

double look(void) { return world_look(&world); }

double world_time(void) { return world_now(&world); }

Handle handle_to(const Gpu *gpu) { return (Handle)(uintptr_t)(gpu - world.gpus + 1); }

static Handle handle_of(size_t index) { return (Handle)(uintptr_t)(index + 1); }

static int text(const char *from, char *to, unsigned size) {
    if (strlen(from) >= size)
        return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return OK;
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    char why[512];
    int code = OK;
    pthread_mutex_lock(&lock);
    if (users == 0) {
        const char *path = getenv("SWEEPER_NVML_SCENARIO");
        if (path == NULL || *path == '\0') {
            code = DRIVER_NOT_LOADED;
        } else if (world_load(&world, path, why, sizeof why) != 0) {
            fprintf(stderr, "NVML stand-in: %s\n", why);
            world_free(&world);
            code = UNKNOWN;
        }
    }
    if (code == OK)
        users++;
    pthread_mutex_unlock(&lock);
    return code;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    int code = UNINITIALIZED;
    pthread_mutex_lock(&lock);
    if (users > 0) {
        code = OK;
        if (--users == 0)
            world_free(&world);
    }
    pthread_mutex_unlock(&lock);
    return code;
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case OK: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case NOT_SUPPORTED: return "Not Supported";
    case NOT_FOUND: return "Not Found";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    default: return "Error of the NVML stand-in";
    }
}

int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    return users == 0 ? UNINITIALIZED : text(world.driver, version, size);
}

int nvmlSystemGetNVMLVersion(char *version, unsigned size) {
    return users == 0 ? UNINITIALIZED : text(world.driver, version, size);
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (users == 0)
        return UNINITIALIZED;
    *count = (unsigned)world.count;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle *handle) {
    if (users == 0)
        return UNINITIALIZED;
    if (index >= world.count)
        return INVALID_ARGUMENT;
    *handle = handle_of(index);
    return fault_at(&world.gpus[index], __func__, world_now(&world));
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Handle *handle) {
    if (users == 0)
        return UNINITIALIZED;
    for (size_t i = 0; i < world.count; i++)
        if (strcmp(world.gpus[i].uuid, uuid) == 0) {
            *handle = handle_of(i);
            return fault_at(&world.gpus[i], __func__, world_now(&world));
        }
    return NOT_FOUND;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *pci, Handle *handle) {
    if (users == 0)
        return UNINITIALIZED;
    for (size_t i = 0; i < world.count; i++)
        if (strcmp(world.gpus[i].pci, pci) == 0) {
            *handle = handle_of(i);
            return fault_at(&world.gpus[i], __func__, world_now(&world));
        }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(Handle handle, char *to, unsigned size) {
    ENTER(handle);
    return text(gpu->uuid, to, size);
}

int nvmlDeviceGetName(Handle handle, char *to, unsigned size) {
    ENTER(handle);
    return text(gpu->name, to, size);
}

int nvmlDeviceGetVbiosVersion(Handle handle, char *to, unsigned size) {
    ENTER(handle);
    return text(gpu->vbios, to, size);
}

int nvmlDeviceGetIndex(Handle handle, unsigned *index) {
    ENTER(handle);
    *index = (unsigned)(gpu - world.gpus);
    return OK;
}

int nvmlDeviceGetMinorNumber(Handle handle, unsigned *minor) {
    ENTER(handle);
    *minor = (unsigned)(gpu - world.gpus);
    return OK;
}

typedef struct {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
} PciInfo;

int nvmlDeviceGetPciInfo_v3(Handle handle, PciInfo *info) {
    ENTER(handle);
    memset(info, 0, sizeof *info);
    sscanf(gpu->pci, "%x:%x:%x", &info->domain, &info->bus, &info->device);
    snprintf(info->bus_id_legacy, sizeof info->bus_id_legacy, "%.15s", gpu->pci);
    return text(gpu->pci, info->bus_id, sizeof info->bus_id);
}

int nvmlDeviceGetArchitecture(Handle handle, unsigned *architecture) {
    ENTER(handle);
    *architecture = 9; /* Hopper */
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(Handle handle, int *major, int *minor) {
    ENTER(handle);
    *major = 9;
    *minor = 0;
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(Handle handle, unsigned long long *millijoules) {
    LOOK(handle);
    *millijoules = milli(counter_j(gpu, now));
    return OK;
}

static double average_w(const Gpu *gpu, double now) {
    return energy_between(gpu, now - AVERAGE_S, now) / AVERAGE_S;
}

int nvmlDeviceGetPowerUsage(Handle handle, unsigned *milliwatts) {
    LOOK(handle);
    *milliwatts = (unsigned)milli(average_w(gpu, now));
    return OK;
}

typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency_us;
    unsigned type;
    int code;
    union {
        double d;
        unsigned ui;
        unsigned long long ull;
    } value;
} FieldValue;

static int field_value(const Gpu *gpu, double now, FieldValue *one) {
    char name[32];
    snprintf(name, sizeof name, "field:%u", one->field);
    int code = fault_at(gpu, name, now);
    if (code != OK)
        return code;
    int policy = (one->field >= FIELD_FIRST_POLICY && one->field <= FIELD_LAST_POLICY)
                 || (one->field >= FIELD_FIRST_REASON && one->field <= FIELD_LAST_REASON);
    one->type = TYPE_UINT;
    if (policy) {
        one->type = TYPE_ULONGLONG;
        one->value.ull = (unsigned long long)floor(violation_s(gpu, one->field, now) * 1e9);
    } else if (one->field == FIELD_TOTAL_ENERGY) {
        one->type = TYPE_ULONGLONG;
        one->value.ull = milli(counter_j(gpu, now));
    } else if (one->field == FIELD_MEMORY_TEMPERATURE) {
        one->value.ui = (unsigned)curve_at(&gpu->temperature, now);
    } else if (one->scope > 1) {
        return NOT_SUPPORTED;
    } else if (one->field == FIELD_POWER_AVERAGE) {
        one->value.ui = (unsigned)milli(average_w(gpu, now));
    } else if (one->field == FIELD_POWER_INSTANT) {
        one->value.ui = (unsigned)milli(power_at(gpu, now));
    } else {
        return NOT_SUPPORTED;
    }
    return OK;
}

int nvmlDeviceGetFieldValues(Handle handle, int count, FieldValue *values) {
    LOOK(handle);
    for (int i = 0; i < count; i++) {
        values[i].timestamp = (int64_t)(now * 1e6);
        values[i].code = field_value(gpu, now, &values[i]);
    }
    return OK;
}

int nvmlDeviceGetTemperature(Handle handle, int sensor, unsigned *celsius) {
    ENTER(handle);
    if (sensor != 0)
        return INVALID_ARGUMENT;
    *celsius = (unsigned)curve_at(&gpu->temperature, now);
    return OK;
}

typedef struct {
    unsigned version;
    int sensor, celsius;
} Temperature;

int nvmlDeviceGetTemperatureV(Handle handle, Temperature *reading) {
    ENTER(handle);
    if (reading->version != TEMPERATURE_V1)
        return VERSION_MISMATCH;
    if (reading->sensor != 0)
        return INVALID_ARGUMENT;
    reading->celsius = (int)curve_at(&gpu->temperature, now);
    return OK;
}

int nvmlDeviceGetClockInfo(Handle handle, int type, unsigned *mhz) {
    ENTER(handle);
    *mhz = type == 2 ? gpu->memory_mhz : sm_mhz(gpu);
    return OK;
}

typedef struct {
    unsigned gpu, memory;
} Utilization;

int nvmlDeviceGetUtilizationRates(Handle handle, Utilization *rates) {
    ENTER(handle);
    rates->gpu = rates->memory = gpu->utilization;
    return OK;
}
