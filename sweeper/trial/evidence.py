"""What a window is judged by: how devices, clocks and power stood at its edges and between them.

    glance | opening reading ======= window ======= closing reading | glance | wait for a sample

Nothing is asked of the devices between the readings; only the power sampler, a process of its own,
goes on there.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sweeper.engines import Clock
from sweeper.errors import MeterError
from sweeper.meters import Meter, Reading
from sweeper.meters.integral import Integral, integrate
from sweeper.results.record import plain

PATIENCE_S = 1.0
"""How long a window waits for the first sample after it; they come every 0.1 s."""
LOOK_S = 0.02
ADJACENT_S = 0.005
"""Two clocks read further apart than this are read again: the machine was busy in between."""

Clocks = Callable[[], tuple[float, float]]
"""(seconds of a monotonic clock, seconds of the wall clock), at one moment."""


def machine_clocks() -> tuple[float, float]:
    """Those of the machine."""
    found = (0.0, 0.0)
    for _ in range(5):
        before_s, wall_s, after_s = time.monotonic(), time.time(), time.monotonic()
        found = (before_s + after_s) / 2, wall_s
        if after_s - before_s <= ADJACENT_S:
            break
    return found


@dataclass(frozen=True, kw_only=True)
class Glance:
    """How things stood at one moment outside of a window, beside one of its edges.

    `devices` is `Meter.state`; `failed` the reason why it could not be had.
    """

    monotonic_s: float
    wall_s: float
    devices: Mapping[str, Mapping[str, Any]]
    failed: str | None = None


@dataclass(frozen=True, kw_only=True)
class Known:
    """What was known of the launch's devices before its windows.

    `power_method` names the devices whose power is sampled, and how. `counter_ratio` is each one's
    own of counter to integrated power, `idle_w` the least power it had when idle, `compute_pids`
    the processes on it after the engine had been loaded. What is absent is not judged by.
    """

    devices: Sequence[str] = ()
    scope: str = "gpu"
    power_method: Mapping[str, str] = field(default_factory=dict)
    counter_ratio: Mapping[str, float] = field(default_factory=dict)
    power_limit_w: Mapping[str, float] = field(default_factory=dict)
    idle_w: Mapping[str, float] = field(default_factory=dict)
    compute_pids: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What there is to judge a window by; `power` is the integral of each sampled device."""

    before: Glance | None = None
    after: Glance | None = None
    power: Mapping[str, Integral] = field(default_factory=dict)
    known: Known = field(default_factory=Known)

    def plain(self) -> dict[str, Any]:
        """As a window keeps it: `before`, `after`, `power` by device, `known`."""
        return {
            "before": self.before and plain(self.before),
            "after": self.after and plain(self.after),
            "power": {device: plain(each) for device, each in self.power.items()},
            "known": plain(self.known),
        }


class Witness:
    """Stands beside a launch: learns what is usual, and looks when a window opens and closes."""

    def __init__(
        self,
        meter: Meter,
        clock: Clock,
        devices: Sequence[str],
        clocks: Clocks = machine_clocks,
    ) -> None:
        self._meter = meter
        self._clock = clock
        self._clocks = clocks
        self.known = Known(devices=tuple(devices))

    def opened(self, facts: Mapping[str, Any]) -> None:
        """Learn from what the meter told when it was opened."""
        gpus = {str(gpu["uuid"]): gpu for gpu in facts.get("gpus", ()) if "uuid" in gpu}

        def told(name: str) -> dict[str, Any]:
            return {uuid: gpu[name] for uuid, gpu in gpus.items() if name in gpu}

        self.known = replace(
            self.known,
            scope=self._meter.scope,
            power_method=told("power_method"),
            counter_ratio=told("counter_ratio"),
            power_limit_w=told("power_limit_w"),
        )

    def rested(self, before: Reading, after: Reading) -> None:
        """Learn what the devices draw when they rest: the least that was seen of each."""
        span_s = after.t_s - before.t_s
        idle_w = dict(self.known.idle_w)
        for device in before.energy_j.keys() & after.energy_j.keys():
            watts = (after.energy_j[device] - before.energy_j[device]) / span_s
            idle_w[device] = min(watts, idle_w.get(device, watts))
        self.known = replace(self.known, idle_w=idle_w)

    def loaded(self) -> None:
        """Learn whose processes compute on the devices now that the engine is up."""
        pids = {
            device: state["compute_pids"]
            for device, state in self.glance().devices.items()
            if "compute_pids" in state
        }
        self.known = replace(self.known, compute_pids=pids)

    def glance(self) -> Glance:
        """How devices and clocks stand now."""
        devices: Mapping[str, Mapping[str, Any]] = {}
        failed = None
        try:
            devices = self._meter.state()
        except MeterError as error:
            failed = str(error)
        monotonic_s, wall_s = self._clocks()
        return Glance(monotonic_s=monotonic_s, wall_s=wall_s, devices=devices, failed=failed)

    def closed(self, closing: Reading | None) -> Glance:
        """A glance right after a closing reading; returns when the power samples reach beyond it.

        Gives up after `PATIENCE_S`.
        """
        glance = self.glance()
        sampled = set(self.known.power_method)
        if closing is not None and sampled:
            deadline_s = self._clock.now() + PATIENCE_S
            while sampled - self._beyond(closing.t_s) and self._clock.now() < deadline_s:
                self._clock.sleep(LOOK_S)
        return glance

    def evidence(
        self,
        before: Glance,
        after: Glance,
        opening: Reading | None,
        closing: Reading | None,
    ) -> Evidence:
        """All that there is of a window between two readings."""
        power: dict[str, Integral] = {}
        if opening is not None and closing is not None and self.known.power_method:
            power = integrals(self._meter.power_trace(), opening.t_s, closing.t_s)
        return Evidence(before=before, after=after, power=power, known=self.known)

    def _beyond(self, t_s: float) -> set[str]:
        """The devices that have a sample after a moment."""
        found: set[str] = set()
        for at_s, device, _ in reversed(self._meter.power_trace()):
            if at_s < t_s:
                break
            found.add(device)
        return found


def integrals(
    trace: Sequence[tuple[float, str, float]], from_s: float, until_s: float
) -> dict[str, Integral]:
    """The integral of each device of a trace between two moments."""
    samples: dict[str, list[tuple[float, float]]] = {}
    for t_s, device, watts in trace:
        samples.setdefault(device, []).append((t_s, watts))
    found = {device: integrate(of, from_s, until_s) for device, of in samples.items()}
    return {device: each for device, each in found.items() if each is not None}
