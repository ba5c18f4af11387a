"""Meters read cumulative energy of given devices: the seam, and where each one lives."""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from sweeper.engines import Clock, Engine

METERS: dict[str, str] = {
    "nvml": "sweeper.meters.nvml_meter:NvmlMeter",
    "amd": "sweeper.meters.amd:AmdMeter",
    "rapl": "sweeper.meters.rapl:RaplMeter",
    "replay": "sweeper.meters.replay:ReplayMeter",
    "codecarbon": "sweeper.meters.codecarbon:CodeCarbonMeter",
    "simulated": "sweeper.meters.simulated:SimulatedMeter",
}
"""Import paths of the meters that exist."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Cumulative joules of every device at one moment of the launch's clock.

    `energy_j` maps a device's name (a GPU's UUID, or the name of an estimated component) to its
    counter; only differences of two readings of one meter mean anything. `t_s` is the moment the
    counters describe, on the clock the engine's events use. `components` is what was read beside
    them (`components.Components.read`), as plain data.
    """

    t_s: float
    energy_j: Mapping[str, float]
    components: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


class Meter(Protocol):
    """Reads cumulative joules; never turns a failed reading into a number.

    Where the study has a key of the meter's name (`replay`), its value follows the engine when one
    is made.
    """

    source: str
    """Its name in records, such as `nvml`."""
    measured: bool
    """False for an estimate or a simulation, which never shares a front with measurements."""
    method: str
    """How the joules come about, such as `counter` or `estimate`."""
    scope: str
    """What the joules cover, such as `gpu`, `module` or `node`."""
    systematic: float | None
    """Relative gain error of the instrument, beside absolute joules, where it is known."""
    min_window_s: float
    """Shorter windows get no energy from this meter."""
    waits: bool
    """Whether `read` waits for a tick: then it is called beside a running engine, in a thread."""

    def __init__(self, devices: Sequence[str], clock: Clock, engine: Engine) -> None:
        """`devices` are the UUIDs of exactly the launch's GPUs."""
        ...

    def open(self) -> Mapping[str, Any]:
        """Find the devices and say what is known of them (plain data for the environment).

        Raises `MeterError` where the devices cannot be read.
        """
        ...

    def read(self) -> Reading:
        """One reading, aligned to a tick of the counters where they tick.

        Raises `MeterError` (with a reason code) where any device gives no number.
        """
        ...

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """What each device is doing now, as far as it tells.

        Of `compute_pids` (a list), `memory_used_bytes`, `memory_total_bytes`, `temperature_c`,
        `memory_temperature_c`, `sm_clock_mhz`, `memory_clock_mhz`, `utilization` (0 to 1),
        `power_limit_w`, `events` (names of what holds the clocks down now), `violations_s` (seconds
        that each of these has held them down, ever), `ecc_corrected` and `ecc_uncorrected` (errors
        since the driver was loaded) and `xids` (numbers of critical errors since `open`), those
        that are known; a device that tells nothing is absent.

        Raises `MeterError` where a device fails.
        """
        ...

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        """The trace so far as (t_s, device, watts); empty where the meter keeps none."""
        ...

    def close(self) -> None:
        """Let go of everything; may be called twice."""
        ...


def meter_class(kind: str) -> type[Meter]:
    """The class of a meter; importing it may import its library."""
    module, _, name = METERS[kind].partition(":")
    found: type[Meter] = getattr(importlib.import_module(module), name)
    return found
