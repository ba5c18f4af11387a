"""What the NVML stand-in pretends: GPUs as known functions of time, and their true energy.

Times are seconds of the scenario unless a name says `monotonic`; its time 0 is `start_s` on
CLOCK_MONOTONIC (or on the clock of `virtual.py`), so that every process sees the same world.
"""

import math
import struct
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path

Knots = Sequence[tuple[float, float]]
NOT_SUPPORTED = 3
NO_PERMISSION = 4
GPU_LOST = 15
BOARD = struct.Struct("4d")
"""In a scenario's file of boards, as `Board` of world.h has them."""


@dataclass(frozen=True)
class Board:
    """How a GPU is set now, by whatever process: the limit, clocks that are locked, how often set.

    No limit is the scenario's own.
    """

    power_limit_w: float | None
    locked_mhz: tuple[float, float] | None
    writes: int


@dataclass(frozen=True)
class Fault:
    """`function` (an entry point, `field:ID` or `*`) returns `code` between two times."""

    function: str
    code: int
    from_s: float = -math.inf
    until_s: float = math.inf


@dataclass(frozen=True)
class Process:
    """A process that holds GPU memory between two times."""

    pid: int
    memory_bytes: int
    from_s: float = -math.inf
    until_s: float = math.inf


@dataclass(frozen=True)
class Violation:
    """A violation counter (a field id) that runs between two times."""

    field_id: int
    from_s: float
    until_s: float


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One pretended GPU.

    `power_w` are knots of time and watts, held constant from each to the next, or joined by lines
    where `linear`; `sine` (watts, hertz, radians) comes on top. The counter shows the energy up to
    its last tick, times `counter_gain`; ticks are `counter_period_s` apart, one of them at
    `counter_phase_s`. A power limit below `power_clamp_w` is taken and raised to it without a word.
    """

    uuid: str
    name: str = "NVIDIA H200"
    pci: str = "00000000:1A:00.0"
    vbios: str = "96.00.99.00.01"
    power_w: Knots = ((0.0, 300.0),)
    linear: bool = False
    sine: tuple[float, float, float] = (0.0, 1.0, 0.0)
    counter_period_s: float = 0.1
    counter_phase_s: float = 0.0
    counter_offset_j: float = 1e6
    counter_gain: float = 1.0
    temperature_c: Knots = ((0.0, 45.0),)
    memory_used_bytes: Knots = ((0.0, 0.0),)
    memory_bytes: int = 150_754_820_096
    power_limit_w: float = 700.0
    default_power_limit_w: float = 700.0
    power_limits_w: tuple[float, float] = (200.0, 700.0)
    power_clamp_w: float = 0.0
    lockable_mhz: tuple[int, int, int] = (345, 1980, 15)
    ignores_lock: bool = False
    clocks_mhz: tuple[int, int] = (1980, 3201)
    utilization: int = 0
    event_reasons: int = 0
    ecc_errors: tuple[int, int] = (0, 0)
    mig: bool = False
    persistence: bool = True
    stuck_s: tuple[float, float] | None = None
    reset_s: float | None = None
    unsupported: frozenset[str] = frozenset()
    faults: tuple[Fault, ...] = ()
    processes: tuple[Process, ...] = ()
    violations: tuple[Violation, ...] = ()
    xids: tuple[tuple[float, int], ...] = ()

    def watts(self, at_s: float) -> float:
        """True power at one moment."""
        amplitude, hertz, radians = self.sine
        return self._power.at(at_s) + amplitude * math.sin(2 * math.pi * hertz * at_s + radians)

    def joules(self, from_s: float, until_s: float) -> float:
        """True energy between two moments, in closed form."""
        amplitude, hertz, radians = self.sine
        omega = 2 * math.pi * hertz
        wave = math.cos(omega * from_s + radians) - math.cos(omega * until_s + radians)
        knots = self._power.until(until_s) - self._power.until(from_s)
        return knots + amplitude / omega * wave

    @cached_property
    def _power(self) -> "_Curve":
        return _Curve(self.power_w, self.linear)

    def counter_j(self, at_s: float) -> float:
        """What the counter shows, before it is cut to whole millijoules."""
        if self.stuck_s and self.stuck_s[0] <= at_s < self.stuck_s[1]:
            at_s = self.stuck_s[0]
        ticks = math.floor((at_s - self.counter_phase_s) / self.counter_period_s)
        tick_s = ticks * self.counter_period_s + self.counter_phase_s
        if self.reset_s is not None and at_s >= self.reset_s:
            return self.counter_gain * self.joules(self.reset_s, max(tick_s, self.reset_s))
        return self.counter_offset_j + self.counter_gain * self.joules(0.0, tick_s)

    def lines(self) -> list[str]:
        """What the C library reads of this GPU."""
        faults = (*self.faults, *(Fault(name, NOT_SUPPORTED) for name in sorted(self.unsupported)))
        lines = [
            f"gpu {self.uuid}",
            f"name {self.name}",
            f"pci {self.pci}",
            f"vbios {self.vbios}",
            f"counter {self.counter_period_s} {self.counter_phase_s} {self.counter_offset_j}",
            f"gain {self.counter_gain}",
            f"linear {self.linear:d}",
            "sine {} {} {}".format(*self.sine),
            f"limits {self.power_limit_w} {self.default_power_limit_w} {{}} {{}} ".format(
                *self.power_limits_w
            )
            + f"{self.power_clamp_w}",
            "lockable {} {} {} ".format(*self.lockable_mhz) + f"{self.ignores_lock:d}",
            "clocks {} {}".format(*self.clocks_mhz),
            f"memory_bytes {self.memory_bytes}",
            f"utilization {self.utilization}",
            f"reasons {self.event_reasons}",
            "ecc {} {}".format(*self.ecc_errors),
            f"mig {self.mig:d}",
            f"persistence {self.persistence:d}",
        ]
        lines += [f"power {at_s} {watts}" for at_s, watts in self.power_w]
        lines += [f"temperature {at_s} {celsius}" for at_s, celsius in self.temperature_c]
        lines += [f"memory {at_s} {held}" for at_s, held in self.memory_used_bytes]
        lines += [f"fault {f.function} {f.code} {f.from_s} {f.until_s}" for f in faults]
        lines += [
            f"process {p.pid} {p.memory_bytes} {p.from_s} {p.until_s}" for p in self.processes
        ]
        lines += [f"xid {at_s} {code}" for at_s, code in self.xids]
        lines += [f"violation {v.field_id} {v.from_s} {v.until_s}" for v in self.violations]
        if self.stuck_s:
            lines.append("stuck {} {}".format(*self.stuck_s))
        if self.reset_s is not None:
            lines.append(f"reset {self.reset_s}")
        return lines


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A node with its GPUs, in the order of their NVML indices."""

    gpus: tuple[Gpu, ...]
    driver: str = "0.0-standin"
    start_s: float = field(default_factory=time.monotonic)

    def gpu(self, uuid: str) -> Gpu:
        """The GPU of that name."""
        return next(gpu for gpu in self.gpus if gpu.uuid == uuid)

    def joules(self, uuid: str, from_monotonic_s: float, until_monotonic_s: float) -> float:
        """True energy of one GPU between two moments of CLOCK_MONOTONIC."""
        return self.gpu(uuid).joules(
            from_monotonic_s - self.start_s, until_monotonic_s - self.start_s
        )

    def write(self, path: Path) -> Path:
        """The file that SWEEPER_NVML_SCENARIO names."""
        lines = [f"start {self.start_s!r}", f"driver {self.driver}"]
        for gpu in self.gpus:
            lines += gpu.lines()
        path.write_text("\n".join(lines) + "\n")
        boards = _boards_of(path)
        # Who lives in the scenario before keeps its boards.
        boards.unlink(missing_ok=True)
        boards.write_bytes(bytes(BOARD.size * len(self.gpus)))
        return path


def boards_of(scenario: Path) -> list[Board]:
    """How the GPUs of a scenario's file are set now, in order."""
    return [
        Board(limit_w or None, (from_mhz, to_mhz) if to_mhz else None, int(writes))
        for limit_w, from_mhz, to_mhz, writes in BOARD.iter_unpack(
            _boards_of(scenario).read_bytes()
        )
    ]


def _boards_of(scenario: Path) -> Path:
    return scenario.with_name(f"{scenario.name}.boards")


class _Curve:
    """Knots, held or joined by lines, and their integral from the first one to each."""

    def __init__(self, knots: Knots, linear: bool) -> None:
        self._times_s = [at_s for at_s, _ in knots]
        self._values = [value for _, value in knots]
        self._linear = linear
        pieces = (
            (after_s - before_s) * (before + (after if linear else before)) / 2
            for (before_s, before), (after_s, after) in pairwise(knots)
        )
        self._integrals = [0.0, *accumulate(pieces)]

    def at(self, at_s: float) -> float:
        """Before the first knot it is as there, after the last one too."""
        place = self._place(at_s)
        start_s, start = self._times_s[place], self._values[place]
        if not self._linear or place + 1 == len(self._values) or at_s <= start_s:
            return start
        part = (at_s - start_s) / (self._times_s[place + 1] - start_s)
        return start + (self._values[place + 1] - start) * part

    def until(self, at_s: float) -> float:
        """The integral from the first knot."""
        place = self._place(at_s)
        width_s = at_s - self._times_s[place]
        end = self.at(at_s) if self._linear else self._values[place]
        return self._integrals[place] + width_s * (self._values[place] + end) / 2

    def _place(self, at_s: float) -> int:
        return max(bisect_right(self._times_s, at_s) - 1, 0)
