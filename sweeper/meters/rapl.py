"""The processors' own energy counters: sockets, and the memory at them (RAPL).

A counter has 32 bits and begins anew, under load every few minutes: `Wrapping` follows it over its
laps, and a watch looks often enough that none goes unseen.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError
from sweeper.meters import Reading
from sweeper.meters.powercap import POWERCAP, Component, Zone, of_component, zones

MOST_W = 2000.0
"""No socket, nor the memory at one, draws more: the largest are built for 500 W (EPYC 9965, Xeon
6980P), and short bursts stay below four times that."""
TICK_S = 0.1
"""Counters move every millisecond; what they are behind by when the machine is busy."""
LONGEST_WATCH_S = 20.0
UJ = 1e-6


def since_boot_s() -> float:
    """A clock that also goes on while the machine sleeps, as laps may have been lost then."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Wrapping:
    """A counter that begins anew at `range_uj`, followed over its laps.

    Between two looks it must not be able to go round unseen: at `MOST_W` that takes `lap_s`. Looks
    further apart leave no number, from then on: readings before and after have nothing in common.
    """

    def __init__(self, range_uj: int) -> None:
        self.lap_s = range_uj * UJ / MOST_W
        self._range_uj = range_uj
        self._last: tuple[float, int] | None = None
        self._total_uj = 0
        self._lost: MeterError | None = None

    def look(self, t_s: float, raw_uj: int) -> float:
        """Joules since the first look.

        Raises:
            MeterError: `counter_wrapped` where a lap may have gone unseen, `counter_reset` where
                the counter went on by more than anything draws, `reading_failed` for a value that
                it cannot have.
        """
        if not 0 <= raw_uj <= self._range_uj:
            raise MeterError("reading_failed", f"{raw_uj} uJ of a counter of {self._range_uj} uJ")
        if self._lost is not None:
            raise self._lost
        last_s, last_uj = self._last or (t_s, raw_uj)
        self._last = t_s, raw_uj
        passed_s, moved_uj = t_s - last_s, (raw_uj - last_uj) % self._range_uj
        self._total_uj += moved_uj
        if passed_s >= self.lap_s:
            self._lost = MeterError(
                "counter_wrapped",
                f"not looked at for {passed_s:.0f} s, in which it may have gone round unseen "
                f"({self.lap_s:.0f} s at {MOST_W:g} W)",
            )
        elif moved_uj * UJ > MOST_W * (passed_s + TICK_S):
            self._lost = MeterError(
                "counter_reset",
                f"{moved_uj * UJ:.0f} J in {passed_s:.2f} s, from {last_uj} to {raw_uj} uJ",
            )
        if self._lost is not None:
            raise self._lost
        return self._total_uj * UJ


class RaplCounters:
    """Zones that are read together, with a thread that looks after their laps between readings."""

    def __init__(self, of: Sequence[Zone], now: Callable[[], float] = since_boot_s) -> None:
        self._zones = tuple(of)
        self._now = now
        self._counters: dict[str, Wrapping] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._watch: threading.Thread | None = None

    @property
    def watch_period_s(self) -> float:
        """Between the looks of the watch: four fit into the shortest lap."""
        laps_s = [each.lap_s / 4 for each in self._counters.values()]
        return min([LONGEST_WATCH_S, *laps_s])

    def open(self) -> None:
        """Look at every zone once, and begin to watch.

        Raises:
            MeterError: a zone cannot be read, with its reason code.
        """
        self.close()
        self._counters = {zone.name: Wrapping(zone.range_uj()) for zone in self._zones}
        self._look()
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._keep, args=(self._stop,), daemon=True)
        self._watch.start()

    def read(self) -> dict[str, float]:
        """Joules of every zone since `open`.

        Raises:
            MeterError: `not_open`, or a zone gives no number (`Zone.raw_uj`, `Wrapping.look`).
        """
        if self._watch is None:
            raise MeterError("not_open", "the counters were closed, or never opened")
        return self._look()

    def close(self) -> None:
        """End the watch; may be called twice."""
        self._stop.set()
        if self._watch is not None:
            self._watch.join()
            self._watch = None

    def _look(self) -> dict[str, float]:
        with self._lock:
            return {
                zone.name: self._counters[zone.name].look(self._now(), zone.raw_uj())
                for zone in self._zones
            }

    def _keep(self, stop: threading.Event) -> None:
        while not stop.wait(self.watch_period_s):
            # What goes wrong here is met again by the next reading, or is seen in its gap.
            with suppress(MeterError):
                self._look()


class RaplMeter:
    """Sockets and memory of a whole node, for launches that hold no GPU.

    Other processes of the node are in it: a launch without GPUs has its node to itself.
    """

    source = "rapl"
    measured = True
    method = "counter"
    scope = "node cpu+dram"
    systematic: float | None = None
    """Unknown: the makers state none."""
    min_window_s = 5.0
    """The counters move every millisecond; shorter windows end in what surrounds them."""
    waits = False

    def __init__(
        self,
        devices: Sequence[str],
        clock: Clock,
        engine: Engine | None = None,
        root: Path = POWERCAP,
    ) -> None:
        self._devices = tuple(devices)
        self._clock = clock
        self._root = root
        self._counters: RaplCounters | None = None

    def open(self) -> Mapping[str, Any]:
        """The zones that are counted and those that are only told.

        Raises:
            MeterError: the launch holds GPUs, of which RAPL says nothing (`device_unknown`), there
                is no socket's counter (`not_supported`), or it may not be read (`no_permission`).
        """
        self.close()
        if self._devices:
            raise MeterError(
                "device_unknown",
                f"RAPL counts processors and memory, not {', '.join(self._devices)}; GPUs are "
                "measured with meter: nvml or amd, and the processors beside them with "
                "resources.exclusive_node: true",
            )
        all_zones = zones(self._root)
        counted = of_component(all_zones, "cpu", "dram")
        of_component(all_zones, "cpu")
        self._counters = RaplCounters(counted)
        self._counters.open()
        names = [zone.name for zone in counted]
        with_dram = any(zone.component == "dram" for zone in counted)
        self.scope = "node cpu+dram" if with_dram else "node cpu"
        told = [zone.name for zone in all_zones if zone.name not in names]
        return {"gpus": [], "rapl": {"counted": names, "not_counted": told}}

    def read(self) -> Reading:
        """Every socket, and the memory at each where it has a counter, at one moment.

        Raises:
            MeterError: as `RaplCounters.read`.
        """
        return _read(self._counters, self._clock)

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """Nothing: there is no device to be free."""
        return {}

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        """None is kept."""
        return ()

    def close(self) -> None:
        """End the watch."""
        if self._counters is not None:
            self._counters.close()
            self._counters = None


def _read(counters: RaplCounters | None, clock: Clock) -> Reading:
    if counters is None:
        raise MeterError("not_open", "the meter was closed, or never opened")
    before_s = clock.now()
    joules = counters.read()
    return Reading(t_s=(before_s + clock.now()) / 2, energy_j=joules)


class _RaplPart:
    """One component of the node beside a launch's GPUs (see `components.Part`)."""

    component: Component

    def __init__(
        self,
        idle: Sequence[str],
        clock: Clock,
        engine: Engine | None = None,
        root: Path = POWERCAP,
    ) -> None:
        self._clock = clock
        self._root = root
        self._counters: RaplCounters | None = None

    def open(self) -> Mapping[str, Any]:
        """The zones that are counted.

        Raises:
            MeterError: `not_supported` or `no_permission`.
        """
        self.close()
        counted = of_component(zones(self._root), self.component)
        self._counters = RaplCounters(counted)
        self._counters.open()
        return {"counted": [zone.name for zone in counted]}

    def read(self) -> Reading:
        """Every zone at one moment; raises `MeterError` as `RaplCounters.read`."""
        return _read(self._counters, self._clock)

    def close(self) -> None:
        """End the watch; may be called twice."""
        if self._counters is not None:
            self._counters.close()
            self._counters = None


class Sockets(_RaplPart):
    """The node's processors."""

    component = "cpu"


class Memory(_RaplPart):
    """The node's memory."""

    component = "dram"
