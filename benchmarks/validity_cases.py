"""The cases of `benchmarks/validity.py`: how each reason code is brought about."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweeper.meters import Reading
from sweeper.trial.gate import FREE_SHARE
from sweeper.trial.validity import (
    BALANCE,
    CLOCK_STEP_S,
    DEPARTURE,
    DRIFT_C,
    IDLE_SHARE,
    LIMIT_MARGIN,
    MAX_GAP_S,
    SLOWED_SHARE,
)
from tests.nvml_standin import GPU_LOST, Fault, Gpu, Process, Violation

BUSY_S, OPENS_S = 11.0, 12.0
"""Moments of a scenario: when the power rises, and when the window is about to open."""
IDLE_W, BUSY_W = 80.0, 500.0
SCATTER = 0.2
WORK_S = 30.0
COUNTER = "nvmlDeviceGetTotalEnergyConsumption"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One world and the window taken in it."""

    gpus: tuple[Gpu, ...]
    work_s: float = WORK_S
    devices: tuple[str, ...] | None = None
    wall_s: Callable[[float], float] = float
    rate: float = 1.0
    skew: float = 1.0
    convention: str = "whole"
    failed: int = 0
    missing: int = 0
    off: float = 0.0
    spoil: Callable[[Reading], Reading] = lambda reading: reading
    driver: bool = True
    closed: bool = False

    @property
    def ends_s(self) -> float:
        """When the work ends, of the scenario."""
        return OPENS_S + self.work_s + 0.3


@dataclass(frozen=True, kw_only=True)
class Injection:
    """How a code is brought about: `make` gives the case of a dose."""

    code: str
    threshold: str
    make: Callable[[random.Random, float], Case]
    road: str = "stand-in"
    name: str = ""

    @property
    def label(self) -> str:
        return self.name or self.code


def bursts(rng: random.Random, until_s: float) -> list[tuple[float, float]]:
    """Idle, then power in bursts."""
    knots, at_s = [(0.0, IDLE_W)], BUSY_S
    while at_s < until_s:
        knots.append((at_s, max(IDLE_W, rng.gauss(BUSY_W, SCATTER * BUSY_W))))
        at_s += rng.uniform(0.01, 0.04)
    return knots


def gpu(rng: random.Random, name: str = "a", work_s: float = WORK_S, **more: Any) -> Gpu:
    """A sound GPU with realistic noise."""
    end_s = OPENS_S + work_s + 3.0
    temperatures = ((at_s, 55.0 + rng.gauss(0.0, 1.0)) for at_s in range(int(end_s) + 1))
    sound: dict[str, Any] = {
        "uuid": f"GPU-{name}",
        "power_w": bursts(rng, end_s),
        "counter_phase_s": rng.uniform(0.0, 0.1),
        "counter_gain": rng.uniform(0.95, 1.05),
        "temperature_c": tuple((float(at_s), celsius) for at_s, celsius in temperatures),
    }
    return Gpu(**sound | more)


def pair(rng: random.Random, work_s: float = WORK_S, **more: Any) -> tuple[Gpu, ...]:
    """Two GPUs, the first of which has something."""
    return gpu(rng, "a", work_s, **more), gpu(rng, "b", work_s)


def hit(rng: random.Random, dose: float, **more: Any) -> tuple[Gpu, ...]:
    """Two GPUs, of which none, one or both have something."""
    return tuple(
        gpu(rng, name, **(more if dose > place else {})) for place, name in ((0.5, "a"), (1, "b"))
    )


def reset(rng: random.Random, dose: float) -> Case:
    """The counter begins anew; it went down if it had counted more before than since."""
    one, at_s = gpu(rng), OPENS_S + 1.0
    since_j = one.counter_gain * one.joules(at_s, OPENS_S + WORK_S + 0.35)
    before_j = one.counter_gain * one.joules(0.0, OPENS_S + 0.1)
    one = replace(one, reset_s=at_s, counter_offset_j=dose * since_j - before_j)
    return Case(gpus=(one, gpu(rng, "b")))


def drifting(rng: random.Random, dose: float) -> Case:
    """A temperature that rises or falls steadily, seen with noise."""
    rise, end_s = rng.choice((-1, 1)) * dose * DRIFT_C, OPENS_S + WORK_S + 0.5
    knots = (
        (at_s, 55.0 + rise * min(1.0, max(0.0, (at_s - OPENS_S) / (end_s - OPENS_S))))
        for at_s in (0.0, OPENS_S, end_s)
    )
    return Case(gpus=pair(rng, temperature_c=tuple((s, c + rng.gauss(0.0, 1.0)) for s, c in knots)))


def without(reading: Reading, names: Sequence[str]) -> Reading:
    """The reading, without some of its devices."""
    kept = {name: joules for name, joules in reading.energy_j.items() if name not in names}
    return replace(reading, energy_j=kept)


def some(dose: float) -> int:
    """None, one or two of what is counted."""
    return int(dose)


def stepped(at_s: float, step_s: float) -> Callable[[float], float]:
    """A wall clock that is set by `step_s` at one moment of the scenario."""
    return lambda now_s: now_s + (step_s if now_s > at_s else 0.0)


class Stuck:
    """The counters of the first devices as they stood when first read."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._first: dict[str, float] = {}

    def __call__(self, reading: Reading) -> Reading:
        self._first = self._first or dict(reading.energy_j)
        same = dict(list(self._first.items())[: self._count])
        return replace(reading, energy_j={**reading.energy_j, **same})


class Missing:
    """All devices at the first reading, fewer at the second."""

    def __init__(self, count: int) -> None:
        self._lacking: tuple[str, ...] = ()
        self._count = count

    def __call__(self, reading: Reading) -> Reading:
        found = without(reading, self._lacking)
        self._lacking = tuple(reading.energy_j)[: self._count]
        return found


OWN = Process(7, 1, from_s=6.0)
"""The engine's, which comes after the gate and before the window."""
END_S = OPENS_S + WORK_S + 0.3
SPAN_S = WORK_S + 0.45


def _violation(number: int) -> Callable[[random.Random, float], Case]:
    def make(rng: random.Random, dose: float) -> Case:
        at_s = OPENS_S + 3.0
        run = Violation(number, at_s, at_s + dose * SLOWED_SHARE * SPAN_S)
        return Case(gpus=pair(rng, violations=(run,)))

    return make


def _failing(code: int, function: str = COUNTER) -> Callable[[random.Random, float], Case]:
    return lambda rng, dose: Case(gpus=hit(rng, dose, faults=(Fault(function, code, END_S),)))


def _silent(rng: random.Random, from_s: float, until_s: float) -> Case:
    return Case(gpus=pair(rng, faults=(Fault("field:186", 3, from_s, until_s),)))


def _foreign(rng: random.Random, dose: float) -> Case:
    processes = tuple(Process(900 + n, 1, from_s=END_S - 1.0) for n in range(some(dose)))
    return Case(gpus=pair(rng, processes=(OWN, *processes)))


def _short(rng: random.Random, dose: float) -> Case:
    return Case(gpus=pair(rng, 5.0 / dose), work_s=5.0 / dose - 0.2)


ALL = "1 of them"
INJECTIONS = (
    Injection(code="window_too_short", threshold="under 5 s", make=_short),
    Injection(code="counter_reset", threshold="more counted before than since", make=reset),
    Injection(
        code="counter_stuck",
        threshold="stands for 1 s",
        make=lambda rng, dose: Case(gpus=pair(rng, stuck_s=(END_S - 0.001, END_S + dose))),
    ),
    Injection(
        code="zero_energy",
        threshold=ALL,
        road="reading",
        make=lambda rng, dose: Case(gpus=pair(rng), spoil=Stuck(some(dose))),
    ),
    Injection(
        code="implausible",
        threshold=f"{LIMIT_MARGIN:.0%} above the limit",
        make=lambda rng, dose: Case(
            gpus=pair(rng, counter_gain=1.0, power_limit_w=BUSY_W / (1 + LIMIT_MARGIN * dose))
        ),
    ),
    Injection(
        code="implausible",
        name="implausible (low)",
        threshold=f"{IDLE_SHARE:.0%} of idle",
        make=lambda rng, dose: Case(
            gpus=pair(rng, power_w=((0.0, IDLE_W), (BUSY_S, IDLE_W * IDLE_SHARE / dose)))
        ),
    ),
    Injection(
        code="sample_gap",
        threshold=f"{MAX_GAP_S:g} s",
        make=lambda rng, dose: _silent(rng, 20.0, 20.0 + dose * MAX_GAP_S),
    ),
    Injection(
        code="not_bracketed",
        threshold="1 s after the reading",
        make=lambda rng, dose: _silent(rng, END_S - 0.01, END_S + 0.1 + dose),
    ),
    Injection(
        code="counter_departs",
        threshold=f"{DEPARTURE:.0%} and 3 errors",
        make=lambda rng, dose: Case(
            gpus=pair(rng), skew=1 / (1 + rng.choice((-1, 1)) * DEPARTURE * dose)
        ),
    ),
    Injection(
        code="thermal_slowdown", threshold=f"{SLOWED_SHARE:.0%} of the time", make=_violation(270)
    ),
    Injection(
        code="power_brake", threshold=f"{SLOWED_SHARE:.0%} of the time", make=_violation(271)
    ),
    Injection(code="foreign_process", threshold=ALL, make=_foreign),
    Injection(code="temperature_drift", threshold=f"{DRIFT_C:g} degrees", make=drifting),
    Injection(
        code="clock_step",
        threshold=f"{CLOCK_STEP_S:g} s",
        make=lambda rng, dose: Case(
            gpus=pair(rng), wall_s=stepped(20.0, rng.choice((-1, 1)) * CLOCK_STEP_S * dose)
        ),
    ),
    Injection(code="gpu_lost", threshold=ALL, make=_failing(GPU_LOST, "*")),
    Injection(code="not_supported", threshold=ALL, make=_failing(3)),
    Injection(code="no_permission", threshold=ALL, make=_failing(4)),
    Injection(code="nvml_timeout", threshold=ALL, make=_failing(10)),
    Injection(code="nvml_error", threshold=ALL, make=_failing(999)),
    Injection(
        code="wrong_gpu_count",
        threshold=ALL,
        road="reading",
        make=lambda rng, dose: Case(gpus=(*pair(rng), gpu(rng, "c")), spoil=Missing(some(dose))),
    ),
    Injection(
        code="requests_failed",
        threshold=ALL,
        road="work",
        make=lambda rng, dose: Case(gpus=pair(rng), failed=some(dose)),
    ),
    Injection(
        code="fewer_tokens",
        threshold=ALL,
        road="work",
        make=lambda rng, dose: Case(gpus=pair(rng), missing=some(dose)),
    ),
    Injection(
        code="unbalanced",
        threshold=f"{BALANCE:.0%} off",
        road="work",
        make=lambda rng, dose: Case(
            gpus=pair(rng), convention="steady", off=rng.choice((-1, 1)) * BALANCE * dose
        ),
    ),
    Injection(
        code="mig", threshold=ALL, make=lambda rng, dose: Case(gpus=hit(rng, dose, mig=True))
    ),
    Injection(
        code="device_unknown",
        threshold=ALL,
        make=lambda rng, dose: Case(
            gpus=pair(rng), devices=("GPU-a", *(f"GPU-no-{n}" for n in range(some(dose))))
        ),
    ),
    Injection(
        code="no_devices",
        threshold="none",
        make=lambda rng, dose: Case(gpus=pair(rng), devices=() if some(dose) else None),
    ),
    Injection(
        code="driver_not_loaded",
        threshold="none",
        make=lambda rng, dose: Case(gpus=pair(rng), driver=not some(dose)),
    ),
    Injection(
        code="not_open",
        threshold="closed",
        make=lambda rng, dose: Case(gpus=pair(rng), closed=bool(some(dose))),
    ),
    Injection(
        code="clock_not_real",
        threshold="5 % fast",
        make=lambda rng, dose: Case(gpus=pair(rng), rate=1 + 0.05 * dose),
    ),
    Injection(
        code="gpu_not_free",
        threshold=f"{FREE_SHARE:.0%} of the memory",
        make=lambda rng, dose: Case(
            gpus=pair(rng, memory_used_bytes=((0.0, FREE_SHARE * dose * 150_754_820_096),))
        ),
    ),
)
