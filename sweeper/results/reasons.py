"""Why a window has no energy: every reason code, what it means and what to do (pure).

A reason is text, `code: detail`. `trial/validity.py` finds those of a window; a meter that fails
raises a `MeterError` with one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """What a code says of a window, and the way out.

    `voids`: there is no number at all, not even for an answer that includes discarded windows.
    Else the readings still tell joules, which may not be those of the work. `mends`: another
    window of the same launch may do without it.
    """

    meaning: str
    remedy: str
    voids: bool = False
    mends: bool = True


_SEE = "see nvidia-smi -q -d PERFORMANCE,POWER,TEMPERATURE"
_RESET = "reset the GPU (sudo nvidia-smi -i GPU --gpu-reset), or leave it out of the cluster"

REASONS: Mapping[str, Reason] = {
    # No number at all.
    "gpu_lost": Reason(
        "a GPU fell off the bus, or needs a reset",
        "see dmesg for lines with Xid; " + _RESET,
        voids=True,
    ),
    "wrong_gpu_count": Reason(
        "a reading tells of other devices than the launch holds",
        "measure again; if it stays, see whether GPUs appear and vanish in nvidia-smi -L",
        voids=True,
    ),
    "counter_reset": Reason(
        "an energy counter went down inside the window",
        "somebody reset the GPU or loaded its driver anew: see who does, and measure again",
        voids=True,
    ),
    "counter_stuck": Reason(
        "an energy counter stood still while it was read, for longer than any counter's period",
        _RESET + "; a newer driver may help",
        voids=True,
    ),
    "zero_energy": Reason(
        "an energy counter shows the same joules at both edges of the window",
        "a GPU always draws power, so its counter does not work: " + _RESET,
        voids=True,
    ),
    "implausible": Reason(
        "the counter tells of a power that the board cannot draw: far above its limit, or below "
        "what it draws when idle",
        "compare with nvidia-smi -q -d POWER; a counter that jumps is not to be used",
        voids=True,
    ),
    "window_too_short": Reason(
        "the readings lie too close together for a counter that moves in ticks",
        "raise measure.min_window_s, or the number of requests",
        voids=True,
        mends=False,
    ),
    "device_unknown": Reason(
        "the meter knows no device of that name",
        "see nvidia-smi -L for the GPUs of the node",
        voids=True,
        mends=False,
    ),
    "nvml_missing": Reason(
        "there is no NVML library",
        "install NVIDIA's driver; in a container NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        voids=True,
        mends=False,
    ),
    "driver_not_loaded": Reason(
        "NVIDIA's driver is not loaded",
        "sudo modprobe nvidia, and see dmesg if it refuses",
        voids=True,
    ),
    "driver_mismatch": Reason(
        "the library is of another version than the loaded driver",
        "reboot: the driver was updated, and its old module is still loaded",
        voids=True,
        mends=False,
    ),
    "not_supported": Reason(
        "the device does not tell what is asked of it",
        "use whole GPUs of Volta or later, or a newer driver",
        voids=True,
        mends=False,
    ),
    "no_permission": Reason(
        "this user may not read it",
        "let this user read the GPU's device files; in a container "
        "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        voids=True,
        mends=False,
    ),
    "nvml_timeout": Reason(
        "NVML did not answer in time",
        "see dmesg for lines with Xid; measure again",
        voids=True,
    ),
    "nvml_error": Reason(
        "NVML gave another error, which the detail names",
        "see nvidia-smi, and dmesg for lines with Xid",
        voids=True,
    ),
    "amdsmi_missing": Reason(
        "there is no amdsmi, AMD's library, or no driver for it",
        "install ROCm, and its own package: pip install /opt/rocm/share/amd_smi",
        voids=True,
        mends=False,
    ),
    "amdsmi_error": Reason(
        "amdsmi gave another error, which the detail names",
        "see amd-smi metric, and dmesg for lines with amdgpu",
        voids=True,
    ),
    "mig": Reason(
        "the device is a MIG slice or is sliced, and NVML tells energy of whole GPUs only",
        "turn MIG off (sudo nvidia-smi -i GPU -mig 0), or leave the GPU out",
        voids=True,
        mends=False,
    ),
    "no_devices": Reason(
        "the meter was given no device to read",
        "ask for GPUs, or use a meter for machines without",
        voids=True,
        mends=False,
    ),
    "not_open": Reason(
        "the meter was closed, or never opened",
        "a fault of sweeper's own: please report it",
        voids=True,
        mends=False,
    ),
    "clock_not_real": Reason(
        "the launch's clock does not go as real time does, in which counters count",
        "use meter: simulated with an engine whose clock is virtual",
        voids=True,
        mends=False,
    ),
    "gpu_not_free": Reason(
        "somebody else computes on the GPU, or holds its memory, before the launch",
        "end that process (nvidia-smi names it), or leave the GPU out of the cluster",
        voids=True,
    ),
    "counter_wrapped": Reason(
        "a counter was not looked at for so long that it may have gone round unseen",
        "leave a processor free on the node, and keep the machine from sleeping",
        voids=True,
        mends=False,
    ),
    "reading_failed": Reason(
        "a counter or a log says something that cannot be",
        "see the file that the detail names",
        voids=True,
    ),
    "log_missing": Reason(
        "the log that meter: replay reads is not there, or may not be read",
        "see that replay.file names it on the node that measures, and that this user may read it",
        voids=True,
        mends=False,
    ),
    "log_damaged": Reason(
        "the log that meter: replay reads has a header or a row that is none",
        "see the row that the detail shows; times go up, and numbers are not negative",
        voids=True,
        mends=False,
    ),
    "not_attributable": Reason(
        "the work is done by a server whose GPUs no counter of this host is known to be of",
        "start the server with engine.options.command, or name the GPUs of a server on this host "
        "in engine.options.devices",
        voids=True,
        mends=False,
    ),
    "not_exclusive": Reason(
        "the counter is of the whole node, and other leases may run there",
        "set resources.exclusive_node: true",
        voids=True,
        mends=False,
    ),
    "estimate_failed": Reason(
        "CodeCarbon gave no totals",
        "see what CodeCarbon says on this machine (python -m sweeper doctor)",
        voids=True,
    ),
    # Joules that may not be those of the work.
    "foreign_process": Reason(
        "a process computed on the GPUs that did not when the engine had been loaded",
        "keep others off the GPUs: whole GPUs by Slurm or Ray, or nvidia-smi -c EXCLUSIVE_PROCESS",
    ),
    "thermal_slowdown": Reason(
        "a GPU was slowed down because it was too hot",
        "better cooling, fewer neighbours, or a lower power limit; " + _SEE,
    ),
    "power_brake": Reason(
        "the machine's power supply made a GPU slow down",
        "see the node's power supplies and the rack's limits; " + _SEE,
    ),
    "temperature_drift": Reason(
        "a GPU was much warmer or colder at the end than at the beginning: hotter silicon leaks "
        "more, so the window shows no steady state",
        "a longer warm-up (measure.warmup), and longer windows",
    ),
    "counter_departs": Reason(
        "the counter's joules over the integral of the sampled power are not in the ratio that "
        "this GPU has otherwise",
        "measure again; if it stays, compare both in python -m sweeper doctor",
    ),
    "sample_gap": Reason(
        "the power was not sampled for too long, so that nothing checks the counter",
        "leave a processor free on the node; see whether it is overloaded",
    ),
    "not_bracketed": Reason(
        "the power samples begin after the window or end before it",
        "leave a processor free on the node; see whether the sampler process lives",
    ),
    "clock_step": Reason(
        "the wall clock was set while the window lasted",
        "let NTP settle before measuring (chronyc tracking), and slew rather than step",
    ),
    "requests_failed": Reason(
        "requests failed in the window: less work was done than its joules were spent on",
        "see the engine log for the first failure",
    ),
    "fewer_tokens": Reason(
        "requests ended before the tokens that they were to generate",
        "see that the engine ignores the end-of-sequence token and that contexts are long enough",
    ),
    "unbalanced": Reason(
        "the window's ratio of tokens in to tokens out is not the workload's",
        "longer windows (measure.min_window_s), or measure.window: whole",
    ),
}
"""Every reason code: first those that void a window, the graver before the lighter."""
_PLACE = {code: place for place, code in enumerate(REASONS)}


def code_of(reason: str) -> str:
    """What a reason begins with: its code, without the detail."""
    return reason.partition(":")[0].strip()


def voids(reasons: Iterable[str]) -> bool:
    """Whether any of the reasons leaves no number at all; an unknown code does."""
    found = (REASONS.get(code_of(reason)) for reason in reasons)
    return any(reason is None or reason.voids for reason in found)


def mendable(reasons: Iterable[str]) -> bool:
    """Whether another window of the same launch may do without all of the reasons."""
    found = (REASONS.get(code_of(reason)) for reason in reasons)
    return all(reason is None or reason.mends for reason in found)


def ordered(reasons: Iterable[str]) -> tuple[str, ...]:
    """Each reason once, the gravest first."""
    last = len(_PLACE)
    return tuple(sorted(dict.fromkeys(reasons), key=lambda each: _PLACE.get(code_of(each), last)))
