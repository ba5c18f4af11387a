#define _POSIX_C_SOURCE 200809L
#include "world.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define TWO_PI 6.283185307179586

double world_now(const World *world) {
    if (world->clock != NULL)
        return world->clock->now_s - world->start_s;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9 - world->start_s;
}

/* Uniform in [0, 1): a linear congruence whose state lies in the clock, for all processes alike. */
static double draw(VirtualClock *clock) {
    clock->random = fmod(clock->random * 1597.0 + 51749.0 / 244944.0, 1.0);
    return clock->random;
}

double world_look(const World *world) {
    VirtualClock *clock = world->clock;
    if (clock == NULL)
        return world_now(world);
    double width = clock->look_min_s + (clock->look_max_s - clock->look_min_s) * draw(clock);
    double moment = world_now(world) + width * draw(clock);
    clock->now_s += width;
    return moment;
}

/* 0 where no virtual clock is asked for, or it is there. */
static int clock_open(World *world, char *why, size_t size) {
    const char *path = getenv("SWEEPER_NVML_CLOCK");
    if (path == NULL || *path == '\0')
        return 0;
    int file = open(path, O_RDWR);
    void *mapped = MAP_FAILED;
    if (file >= 0) {
        mapped = mmap(NULL, sizeof(VirtualClock), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
    }
    if (mapped == MAP_FAILED) {
        snprintf(why, size, "%s: %s", path, strerror(errno));
        return 1;
    }
    world->clock = mapped;
    return 0;
}

/* Without the file nothing can be set. */
static void boards_open(World *world, const char *path) {
    char name[512];
    snprintf(name, sizeof name, "%s.boards", path);
    int file = open(name, O_RDWR);
    if (file < 0)
        return;
    size_t size = world->count * sizeof(Board);
    void *mapped = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED)
        return;
    world->boards = mapped;
    for (size_t i = 0; i < world->count; i++)
        world->gpus[i].board = &world->boards[i];
}

double limit_w(const Gpu *gpu) {
    return gpu->board != NULL && gpu->board->limit_w > 0.0 ? gpu->board->limit_w : gpu->limit_w;
}

unsigned sm_mhz(const Gpu *gpu) {
    const Board *board = gpu->board;
    if (board == NULL || board->locked_to_mhz <= 0.0 || gpu->deaf)
        return gpu->sm_mhz;
    double from = board->locked_from_mhz, to = board->locked_to_mhz;
    return (unsigned)(gpu->sm_mhz < from ? from : gpu->sm_mhz > to ? to : gpu->sm_mhz);
}

/* The knot that governs `at_s`: the last one not after it, or the first. */
static size_t knot_before(const Curve *curve, double at_s) {
    size_t low = 0, high = curve->count;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (curve->knots[middle].at_s <= at_s)
            low = middle;
        else
            high = middle;
    }
    return low;
}

double curve_at(const Curve *curve, double at_s) {
    if (curve->count == 0)
        return 0.0;
    size_t i = knot_before(curve, at_s);
    const Knot *here = &curve->knots[i];
    if (!curve->linear || i + 1 == curve->count || at_s <= here->at_s)
        return here->value;
    const Knot *next = here + 1;
    double part = (at_s - here->at_s) / (next->at_s - here->at_s);
    return here->value + part * (next->value - here->value);
}

/* Integral from the first knot; beyond either end the curve keeps its outermost value. */
static double curve_integral(const Curve *curve, double at_s) {
    if (curve->count == 0)
        return 0.0;
    size_t i = knot_before(curve, at_s);
    const Knot *here = &curve->knots[i];
    double width = at_s - here->at_s;
    double end = width > 0.0 ? curve_at(curve, at_s) : here->value;
    double start = here->value;
    if (!curve->linear)
        end = start;
    return curve->integral[i] + width * (start + end) / 2.0;
}

static double energy_until(const Gpu *gpu, double at_s) {
    double joules = curve_integral(&gpu->power, at_s);
    if (gpu->sine_w != 0.0) {
        double omega = TWO_PI * gpu->sine_hz;
        joules += gpu->sine_w / omega * (cos(gpu->sine_rad) - cos(omega * at_s + gpu->sine_rad));
    }
    return joules;
}

double power_at(const Gpu *gpu, double at_s) {
    return curve_at(&gpu->power, at_s)
           + gpu->sine_w * sin(TWO_PI * gpu->sine_hz * at_s + gpu->sine_rad);
}

double energy_between(const Gpu *gpu, double from_s, double until_s) {
    return energy_until(gpu, until_s) - energy_until(gpu, from_s);
}

double counter_j(const Gpu *gpu, double at_s) {
    if (at_s >= gpu->stuck_from_s && at_s < gpu->stuck_until_s)
        at_s = gpu->stuck_from_s;
    double tick = floor((at_s - gpu->phase_s) / gpu->period_s) * gpu->period_s + gpu->phase_s;
    if (at_s >= gpu->reset_s)
        return gpu->gain
               * energy_between(gpu, gpu->reset_s, tick > gpu->reset_s ? tick : gpu->reset_s);
    return gpu->offset_j + gpu->gain * energy_between(gpu, 0.0, tick);
}

double violation_s(const Gpu *gpu, unsigned field, double at_s) {
    double total = 0.0;
    for (size_t i = 0; i < gpu->violation_count; i++) {
        const Violation *one = &gpu->violations[i];
        double end = at_s < one->until_s ? at_s : one->until_s;
        if (one->field == field && end > one->from_s)
            total += end - one->from_s;
    }
    return total;
}

int fault_at(const Gpu *gpu, const char *function, double at_s) {
    for (size_t i = 0; i < gpu->fault_count; i++) {
        const Fault *fault = &gpu->faults[i];
        if (at_s >= fault->from_s && at_s < fault->until_s
            && (strcmp(fault->function, "*") == 0 || strcmp(fault->function, function) == 0))
            return fault->code;
    }
    return 0;
}

/* One more element at the end of an array; NULL when memory is out. */
static void *grow(void **array, size_t *count, size_t size) {
    void *bigger = realloc(*array, (*count + 1) * size);
    if (bigger == NULL)
        return NULL;
    *array = bigger;
    void *last = (char *)bigger + *count * size;
    memset(last, 0, size);
    (*count)++;
    return last;
}

static int add_knot(Curve *curve, const char *rest) {
    Knot *knot = grow((void **)&curve->knots, &curve->count, sizeof(Knot));
    return knot != NULL && sscanf(rest, "%lf %lf", &knot->at_s, &knot->value) == 2;
}

static int integrate(Curve *curve) {
    curve->integral = calloc(curve->count + 1, sizeof(double));
    if (curve->integral == NULL)
        return 0;
    for (size_t i = 0; i + 1 < curve->count; i++) {
        const Knot *a = &curve->knots[i], *b = a + 1;
        double end = curve->linear ? b->value : a->value;
        curve->integral[i + 1] =
            curve->integral[i] + (b->at_s - a->at_s) * (a->value + end) / 2.0;
    }
    return 1;
}

static int gpu_line(Gpu *gpu, const char *key, const char *rest) {
    if (strcmp(key, "name") == 0)
        return snprintf(gpu->name, sizeof gpu->name, "%s", rest) > 0;
    if (strcmp(key, "pci") == 0)
        return sscanf(rest, "%31s", gpu->pci) == 1;
    if (strcmp(key, "vbios") == 0)
        return sscanf(rest, "%31s", gpu->vbios) == 1;
    if (strcmp(key, "counter") == 0)
        return sscanf(rest, "%lf %lf %lf", &gpu->period_s, &gpu->phase_s, &gpu->offset_j) == 3
               && gpu->period_s > 0.0;
    if (strcmp(key, "gain") == 0)
        return sscanf(rest, "%lf", &gpu->gain) == 1;
    if (strcmp(key, "linear") == 0)
        return sscanf(rest, "%d", &gpu->power.linear) == 1;
    if (strcmp(key, "power") == 0)
        return add_knot(&gpu->power, rest);
    if (strcmp(key, "temperature") == 0)
        return add_knot(&gpu->temperature, rest);
    if (strcmp(key, "memory") == 0)
        return add_knot(&gpu->memory, rest);
    if (strcmp(key, "sine") == 0)
        return sscanf(rest, "%lf %lf %lf", &gpu->sine_w, &gpu->sine_hz, &gpu->sine_rad) == 3;
    if (strcmp(key, "stuck") == 0)
        return sscanf(rest, "%lf %lf", &gpu->stuck_from_s, &gpu->stuck_until_s) == 2;
    if (strcmp(key, "reset") == 0)
        return sscanf(rest, "%lf", &gpu->reset_s) == 1;
    if (strcmp(key, "limits") == 0)
        return sscanf(rest, "%lf %lf %lf %lf %lf", &gpu->limit_w, &gpu->default_limit_w,
                      &gpu->least_limit_w, &gpu->most_limit_w, &gpu->clamp_w)
               == 5;
    if (strcmp(key, "lockable") == 0)
        return sscanf(rest, "%u %u %u %d", &gpu->least_mhz, &gpu->most_mhz, &gpu->step_mhz,
                      &gpu->deaf)
                   == 4
               && gpu->step_mhz > 0;
    if (strcmp(key, "clocks") == 0)
        return sscanf(rest, "%u %u", &gpu->sm_mhz, &gpu->memory_mhz) == 2;
    if (strcmp(key, "memory_bytes") == 0)
        return sscanf(rest, "%llu", &gpu->memory_bytes) == 1;
    if (strcmp(key, "reasons") == 0)
        return sscanf(rest, "%llu", &gpu->reasons) == 1;
    if (strcmp(key, "utilization") == 0)
        return sscanf(rest, "%u", &gpu->utilization) == 1;
    if (strcmp(key, "ecc") == 0)
        return sscanf(rest, "%u %u", &gpu->ecc_corrected, &gpu->ecc_uncorrected) == 2;
    if (strcmp(key, "mig") == 0)
        return sscanf(rest, "%d", &gpu->mig) == 1;
    if (strcmp(key, "persistence") == 0)
        return sscanf(rest, "%d", &gpu->persistence) == 1;
    if (strcmp(key, "fault") == 0) {
        Fault *one = grow((void **)&gpu->faults, &gpu->fault_count, sizeof(Fault));
        return one != NULL
               && sscanf(rest, "%63s %d %lf %lf", one->function, &one->code, &one->from_s,
                         &one->until_s) == 4;
    }
    if (strcmp(key, "process") == 0) {
        Process *one = grow((void **)&gpu->processes, &gpu->process_count, sizeof(Process));
        return one != NULL
               && sscanf(rest, "%u %llu %lf %lf", &one->pid, &one->bytes, &one->from_s,
                         &one->until_s) == 4;
    }
    if (strcmp(key, "xid") == 0) {
        Xid *one = grow((void **)&gpu->xids, &gpu->xid_count, sizeof(Xid));
        return one != NULL && sscanf(rest, "%lf %llu", &one->at_s, &one->code) == 2;
    }
    if (strcmp(key, "violation") == 0) {
        Violation *one = grow((void **)&gpu->violations, &gpu->violation_count, sizeof(Violation));
        return one != NULL
               && sscanf(rest, "%u %lf %lf", &one->field, &one->from_s, &one->until_s) == 3;
    }
    return 0;
}

static int world_line(World *world, const char *key, const char *rest) {
    if (strcmp(key, "start") == 0)
        return sscanf(rest, "%lf", &world->start_s) == 1;
    if (strcmp(key, "driver") == 0)
        return sscanf(rest, "%79s", world->driver) == 1;
    if (strcmp(key, "gpu") == 0) {
        Gpu *gpu = grow((void **)&world->gpus, &world->count, sizeof(Gpu));
        if (gpu == NULL)
            return 0;
        gpu->stuck_from_s = gpu->stuck_until_s = gpu->reset_s = INFINITY;
        gpu->temperature.linear = 1;
        gpu->gain = 1.0;
        return sscanf(rest, "%95s", gpu->uuid) == 1;
    }
    return world->count > 0 && gpu_line(&world->gpus[world->count - 1], key, rest);
}

int world_load(World *world, const char *path, char *why, size_t size) {
    memset(world, 0, sizeof *world);
    if (clock_open(world, why, size) != 0)
        return 1;
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        snprintf(why, size, "%s: %s", path, strerror(errno));
        return 1;
    }
    char line[512], key[32];
    int number = 0, bad = 0;
    while (!bad && fgets(line, sizeof line, file) != NULL) {
        int used = 0;
        number++;
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%31s %n", key, &used) != 1)
            continue;
        if (!world_line(world, key, line + used)) {
            snprintf(why, size, "%s:%d: %s", path, number, line);
            bad = 1;
        }
    }
    fclose(file);
    for (size_t i = 0; !bad && i < world->count; i++)
        if (world->gpus[i].period_s <= 0.0 || !integrate(&world->gpus[i].power)) {
            snprintf(why, size, "%s: GPU %zu has no counter", path, i);
            bad = 1;
        }
    if (!bad && world->count > 0)
        boards_open(world, path);
    return bad;
}

void world_free(World *world) {
    for (size_t i = 0; i < world->count; i++) {
        Gpu *gpu = &world->gpus[i];
        free(gpu->power.knots);
        free(gpu->power.integral);
        free(gpu->temperature.knots);
        free(gpu->memory.knots);
        free(gpu->faults);
        free(gpu->processes);
        free(gpu->violations);
        free(gpu->xids);
    }
    if (world->boards != NULL)
        munmap(world->boards, world->count * sizeof *world->boards);
    free(world->gpus);
    if (world->clock != NULL)
        munmap(world->clock, sizeof *world->clock);
    memset(world, 0, sizeof *world);
}
