"""The meter of NVIDIA GPUs: their energy counters, read at ticks, and what they do meanwhile."""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from sweeper.clocks import RealClock
from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError
from sweeper.meters import Reading, nvml
from sweeper.meters.comparison import COMPARED_S, compare
from sweeper.meters.counter import Counters, periods_s, read_aligned
from sweeper.meters.idle import IdleGpus
from sweeper.meters.trace import PowerTrace, Trace

CLOCK_DRIFT = 0.05
MACHINE = RealClock()


class NvmlMeter:
    """The total-energy counter of exactly the given GPUs, read at its ticks.

    A reading waits for the tick of every counter (up to one period of one GPU, two of several;
    `counter.py` says how they become one moment), looking every millisecond. Between readings
    nothing touches the counters; a process of its own samples power at 10 Hz.
    """

    source = "nvml"
    measured = True
    method = "counter"
    scope = "gpu"
    systematic: float | None = 0.05
    """Gain error of the boards' sensors, ±5 % (Yang, Adámek, Armour, arXiv 2312.02741)."""
    min_window_s = 5.0
    waits = True

    def __init__(
        self,
        devices: Sequence[str],
        clock: Clock,
        engine: Engine,
        *,
        machine: Clock = MACHINE,
        trace: Trace | None = None,
        compared_s: float = COMPARED_S,
    ) -> None:
        """`machine` is the clock on which the counters tick and `trace` samples.

        Counters and power are compared for `compared_s` when the meter is opened.
        """
        self._devices = tuple(devices)
        self._clock = clock
        self._machine = machine
        self._compared_s = compared_s
        self._handles: dict[str, nvml.Handle] = {}
        self._trace = trace or PowerTrace(self._devices)
        self._xids: nvml.XidWatch | None = None
        self._offset_s = 0.0
        self._opened: Any = None

    def open(self) -> Mapping[str, Any]:
        """The driver and the facts of each GPU, with its counter's period and `counter_ratio`.

        The ratio is that of the counter's joules to those of the power (`comparison.py`): absent
        where the counter covers a module, which the power does not, or where there is no power.

        Raises:
            MeterError: a device is unknown, sliced, lost or has no counter, or the clock is not
                the real one, on which alone the counters' joules mean anything.
        """
        self.close()
        if not self._devices:
            raise MeterError("no_devices", "NVML measures GPUs, and the launch holds none")
        self._opened = nvml.session()
        self._opened.__enter__()
        try:
            return self._find()
        except MeterError:
            self.close()
            raise

    def _find(self) -> Mapping[str, Any]:
        self._handles = {uuid: nvml.handle_of(uuid) for uuid in self._devices}
        gpus = {uuid: nvml.facts_of(handle) for uuid, handle in self._handles.items()}
        if any(part in gpu.get("name", "") for gpu in gpus.values() for part in nvml.MODULE_NAMES):
            self.scope = "module"
        real_s, clock_s = self._machine.now(), self._clock.now()
        periods = periods_s(self._counters(), self._machine)
        ratios = {} if self.scope == "module" else self._ratios()
        _same_rate(self._machine.now() - real_s, self._clock.now() - clock_s)
        self._offset_s = self._clock.now() - self._machine.now()
        for uuid, gpu in gpus.items():
            gpu["counter_period_s"] = periods[uuid]
            gpu["power_method"] = nvml.power_method(self._handles[uuid])
            if uuid in ratios:
                gpu["counter_ratio"] = ratios[uuid]
        self._xids = nvml.XidWatch(self._handles)
        self._trace.start()
        return {"driver": nvml.driver_version(), "gpus": list(gpus.values())}

    def _ratios(self) -> dict[str, float]:
        powers = {
            uuid: partial(_watts_or_nan, nvml.power_reader(handle))
            for uuid, handle in self._handles.items()
        }
        found = compare(self._counters(), powers, self._machine, self._compared_s)
        ratios = {uuid: each.ratio for uuid, each in found.items()}
        return {uuid: ratio for uuid, ratio in ratios.items() if ratio is not None}

    def _counters(self) -> Counters:
        return {
            uuid: partial(nvml.energy_j, uuid, handle) for uuid, handle in self._handles.items()
        }

    def read(self) -> Reading:
        """Every counter at one moment, the tick of the last of them.

        Raises:
            MeterError: a counter cannot be read, stands still (`counter_stuck`) or goes down
                (`counter_reset`) while it is watched.
        """
        if self._opened is None:
            raise MeterError("not_open", "the meter was closed, or never opened")
        t_s, joules = read_aligned(self._counters(), self._clock)
        return Reading(t_s=t_s, energy_j=joules)

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        xids = {} if self._xids is None else self._xids.seen()
        return {
            uuid: nvml.state_of(handle) | ({"xids": list(xids[uuid])} if uuid in xids else {})
            for uuid, handle in self._handles.items()
        }

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        """By the `power_method` that `open` told, on the clock of the readings."""
        return [
            (t_s + self._offset_s, device, watts) for t_s, device, watts in self._trace.samples()
        ]

    def close(self) -> None:
        """Let go of NVML and the sampler; the trace stays."""
        self._trace.stop()
        self._handles = {}
        if self._xids is not None:
            self._xids.close()
            self._xids = None
        if self._opened is not None:
            self._opened.__exit__(None, None, None)
            self._opened = None


def _watts_or_nan(read_w: nvml.PowerReader) -> float:
    """A power that fails leaves no ratio, but does not keep the counters from being read."""
    try:
        return read_w()
    except MeterError:
        return math.nan


def _same_rate(real_s: float, clock_s: float) -> None:
    if abs(clock_s - real_s) > CLOCK_DRIFT * real_s + 0.005:
        raise MeterError(
            "clock_not_real",
            f"the launch's clock went on by {clock_s:.3f} s in {real_s:.3f} s of real time; "
            "an engine with a virtual clock needs meter: simulated",
        )


class IdleNvidia(IdleGpus):
    """Of NVML, by UUID."""

    def library(self) -> AbstractContextManager[None]:
        """NVML."""
        return nvml.session()

    def handles(self, names: Sequence[str]) -> Mapping[str, nvml.Handle]:
        """By UUID; a sliced GPU is none."""
        return {uuid: nvml.handle_of(uuid) for uuid in names}

    def energy_j(self, name: str, handle: nvml.Handle) -> float:
        """Joules since the driver was loaded."""
        return nvml.energy_j(name, handle)
