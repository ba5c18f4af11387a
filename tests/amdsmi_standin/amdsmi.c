/* A small libamd_smi.so whose GPUs follow a scenario: constant power, a counter that ticks.

   The scenario is read when the library is initialised, from the file that the environment variable
   SWEEPER_AMDSMI_SCENARIO names, a line for each GPU (tests/amdsmi_standin/__init__.py writes it).
   Layouts are those of amdsmi 7.0.2. What is not here answers NOT_SUPPORTED (stubs.c, generated). */
#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SUCCESS = 0, INVAL = 1, NOT_SUPPORTED = 2, NOT_FOUND = 31, NOT_INIT = 32, NO_DRIVER = 34 };
enum { MOST_GPUS = 16, MOST_PIDS = 8 };
typedef uint32_t status;
typedef struct gpu *handle;

struct gpu {
    uint32_t hip_id;
    char uuid[64], hip_uuid[64], serial[64];
    double watts, period_s, scale, told_w, celsius;
    status energy, power;
    uint32_t pids, pid[MOST_PIDS];
};

static struct gpu gpus[MOST_GPUS];
static uint32_t count;
static int sessions;
static const float UNIT_UJ = 15.259f;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static struct gpu *of(handle asked) {
    if (!sessions) return NULL;
    return asked >= gpus && asked < gpus + count ? asked : NULL;
}

status amdsmi_init(uint64_t flags) {
    (void)flags;
    const char *path = getenv("SWEEPER_AMDSMI_SCENARIO");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return NO_DRIVER;
    char line[1024];
    count = 0;
    while (count < MOST_GPUS && fgets(line, sizeof line, file)) {
        struct gpu *g = &gpus[count];
        int end = 0;
        int read = sscanf(line, "%u %63s %63s %63s %lf %lf %lf %lf %lf %u %u%n", &g->hip_id, g->uuid,
                          g->hip_uuid, g->serial, &g->watts, &g->period_s, &g->scale, &g->told_w,
                          &g->celsius, &g->energy, &g->power, &end);
        if (read != 11) continue;
        g->pids = 0;
        char *rest = line + end, *after;
        for (unsigned long pid; g->pids < MOST_PIDS; rest = after) {
            pid = strtoul(rest, &after, 10);
            if (after == rest) break;
            g->pid[g->pids++] = (uint32_t)pid;
        }
        count++;
    }
    fclose(file);
    sessions = 1;
    return SUCCESS;
}

status amdsmi_shut_down(void) {
    sessions = 0;
    return SUCCESS;
}

/* One socket for each GPU. */
status amdsmi_get_socket_handles(uint32_t *number, handle *found) {
    if (!sessions) return NOT_INIT;
    if (found)
        for (uint32_t i = 0; i < *number && i < count; i++) found[i] = &gpus[i];
    *number = count;
    return SUCCESS;
}

status amdsmi_get_processor_handles(handle socket, uint32_t *number, handle *found) {
    if (!of(socket)) return INVAL;
    if (found) found[0] = socket;
    *number = 1;
    return SUCCESS;
}

status amdsmi_get_gpu_device_uuid(handle asked, uint32_t *length, char *uuid) {
    struct gpu *g = of(asked);
    if (!g) return NOT_FOUND;
    snprintf(uuid, *length, "%s", g->uuid);
    return SUCCESS;
}

struct enumeration { uint32_t drm_render, drm_card, hsa_id, hip_id; char hip_uuid[256]; };

status amdsmi_get_gpu_enumeration_info(handle asked, struct enumeration *info) {
    struct gpu *g = of(asked);
    if (!g) return NOT_FOUND;
    memset(info, 0, sizeof *info);
    info->hip_id = g->hip_id;
    snprintf(info->hip_uuid, sizeof info->hip_uuid, "%s", g->hip_uuid);
    return SUCCESS;
}

status amdsmi_get_energy_count(handle asked, uint64_t *accumulated, float *unit_uj, uint64_t *at_ns) {
    struct gpu *g = of(asked);
    if (!g) return NOT_FOUND;
    if (g->energy) return g->energy;
    double t_s = floor(now_s() / g->period_s) * g->period_s;
    *accumulated = (uint64_t)(g->watts * g->scale * t_s * 1e6 / (double)UNIT_UJ);
    *unit_uj = UNIT_UJ;
    *at_ns = (uint64_t)(t_s * 1e9);
    return SUCCESS;
}

struct power {
    uint64_t socket_power;
    uint32_t current_socket_power, average_socket_power;
    uint64_t gfx_voltage, soc_voltage, mem_voltage;
    uint32_t power_limit, padding;
    uint64_t reserved[18];
};

status amdsmi_get_power_info(handle asked, struct power *info) {
    struct gpu *g = of(asked);
    if (!g) return NOT_FOUND;
    if (g->power) return g->power;
    memset(info, 0, sizeof *info);
    info->current_socket_power = 0xFFFF; /* not told, as on MI200 */
    info->average_socket_power = (uint32_t)lround(g->told_w);
    return SUCCESS;
}

struct asic {
    char market_name[256];
    uint32_t vendor_id;
    char vendor_name[256];
    uint32_t subvendor_id;
    uint64_t device_id;
    uint32_t rev_id;
    char serial[256];
    uint32_t oam_id, units, padding;
    uint64_t target;
    uint32_t subsystem_id, reserved[21];
} __attribute__((packed));

status amdsmi_get_gpu_asic_info(handle asked, struct asic *info) {
    struct gpu *g = of(asked);
    if (!g) return NOT_FOUND;
    memset(info, 0, sizeof *info);
    snprintf(info->market_name, sizeof info->market_name, "Stand-in MI300X");
    snprintf(info->vendor_name, sizeof info->vendor_name, "Advanced Micro Devices");
    snprintf(info->serial, sizeof info->serial, "%s", g->serial);
    info->vendor_id = 0x1002;
    return SUCCESS;
}

struct driver { char version[256], date[256], name[256]; };

status amdsmi_get_gpu_driver_info(handle asked, struct driver *info) {
    if (!of(asked)) return NOT_FOUND;
    memset(info, 0, sizeof *info);
    snprintf(info->version, sizeof info->version, "6.14.14");
    return SUCCESS;
}

struct cap { uint64_t cap, standard, dpm, least, most, reserved[3]; };

status amdsmi_get_power_cap_info(handle asked, uint32_t sensor, struct cap *info) {
    if (!of(asked) || sensor) return NOT_FOUND;
    memset(info, 0, sizeof *info);
    info->cap = 700000000;
    info->standard = 750000000;
    return SUCCESS;
}

status amdsmi_get_temp_metric(handle asked, uint32_t sensor, uint32_t metric, int64_t *celsius) {
    struct gpu *g = of(asked);
    if (!g) return NOT_FOUND;
    (void)sensor, (void)metric;
    *celsius = (int64_t)g->celsius;
    return SUCCESS;
}

status amdsmi_get_gpu_memory_total(handle asked, uint32_t kind, uint64_t *bytes) {
    if (!of(asked) || kind) return NOT_SUPPORTED;
    *bytes = 192ULL << 30;
    return SUCCESS;
}

status amdsmi_get_gpu_memory_usage(handle asked, uint32_t kind, uint64_t *bytes) {
    struct gpu *g = of(asked);
    if (!g || kind) return NOT_SUPPORTED;
    *bytes = g->pids ? 64ULL << 30 : 300ULL << 20;
    return SUCCESS;
}

struct process {
    char name[256];
    uint32_t pid, padding;
    uint64_t mem, engines[2];
    uint32_t reserved_engines[12];
    uint64_t memory[3];
    uint32_t reserved_memory[10];
    char container[256];
    uint32_t occupancy, reserved[11];
};

status amdsmi_get_gpu_process_list(handle asked, uint32_t *most, struct process *list) {
    struct gpu *g = of(asked);
    if (!g) return NOT_FOUND;
    uint32_t told = g->pids < *most ? g->pids : *most;
    for (uint32_t i = 0; i < told; i++) {
        memset(&list[i], 0, sizeof list[i]);
        snprintf(list[i].name, sizeof list[i].name, "python3");
        list[i].pid = g->pid[i];
    }
    *most = told;
    return SUCCESS;
}
