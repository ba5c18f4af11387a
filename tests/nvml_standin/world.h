/* A scenario: GPUs whose power, memory, temperature and faults are known functions of time. */
#ifndef WORLD_H
#define WORLD_H

#include <stddef.h>

typedef struct {
    double at_s;
    double value;
} Knot;

typedef struct {
    Knot *knots;
    double *integral; /* from the first knot to each, filled by world_load */
    size_t count;
    int linear;
} Curve;

typedef struct {
    char function[64]; /* an entry point, "field:ID", or "*" */
    int code;
    double from_s, until_s;
} Fault;

typedef struct {
    unsigned pid;
    unsigned long long bytes;
    double from_s, until_s;
} Process;

typedef struct {
    unsigned field;
    double from_s, until_s;
} Violation;

typedef struct {
    double at_s;
    unsigned long long code;
} Xid;

/* How a GPU is set, for all processes alike: the scenario's file name and `.boards` holds one each,
 * in order. 0 is what the scenario says, or that clocks are not locked. */
typedef struct {
    double limit_w;
    double locked_from_mhz, locked_to_mhz;
    double writes;
} Board;

typedef struct {
    char uuid[96], name[96], pci[32], vbios[32];
    double period_s, phase_s, offset_j, gain;
    Curve power, temperature, memory;
    double sine_w, sine_hz, sine_rad;
    double stuck_from_s, stuck_until_s, reset_s;
    double limit_w, default_limit_w, least_limit_w, most_limit_w, clamp_w;
    unsigned long long memory_bytes, reasons;
    unsigned sm_mhz, memory_mhz, utilization, ecc_corrected, ecc_uncorrected;
    unsigned least_mhz, most_mhz, step_mhz;
    int mig, persistence, deaf; /* deaf: takes a lock of its clocks and does not keep to it */
    Fault *faults;
    size_t fault_count;
    Process *processes;
    size_t process_count;
    Violation *violations;
    size_t violation_count;
    Xid *xids;
    size_t xid_count;
    Board *board; /* NULL: nothing of it can be set */
} Gpu;

/* The file that SWEEPER_NVML_CLOCK names: time that passes when somebody says so. */
typedef struct {
    double now_s;
    double look_min_s, look_max_s; /* what it costs to look at a counter or at power */
    double random;                 /* in [0, 1), the last number drawn */
} VirtualClock;

typedef struct {
    double start_s; /* the scenario's time 0, on CLOCK_MONOTONIC or on the virtual clock */
    VirtualClock *clock; /* NULL: CLOCK_MONOTONIC */
    char driver[80];
    Gpu *gpus;
    size_t count;
    Board *boards;
} World;

/* Reads a scenario file; on failure says why in `why` and returns nonzero. */
int world_load(World *world, const char *path, char *why, size_t size);
void world_free(World *world);

/* Seconds of the scenario, now. */
double world_now(const World *world);

/* Pays for a look on a virtual clock; the moment inside it, at random, that the look is of. */
double world_look(const World *world);

/* What is set now. */
double limit_w(const Gpu *gpu);
unsigned sm_mhz(const Gpu *gpu);

double curve_at(const Curve *curve, double at_s);
double power_at(const Gpu *gpu, double at_s);
double energy_between(const Gpu *gpu, double from_s, double until_s);
double counter_j(const Gpu *gpu, double at_s);
double violation_s(const Gpu *gpu, unsigned field, double at_s);

/* The code that an entry point must return at this time, 0 for none. */
int fault_at(const Gpu *gpu, const char *function, double at_s);

#endif
