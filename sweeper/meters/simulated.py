"""The energy that the simulated engine says its devices have used."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError
from sweeper.meters import Reading


@runtime_checkable
class PoweredEngine(Protocol):
    """An engine that knows its own power, from before `load` until `close`."""

    def energy_j(self) -> Mapping[str, float]:
        """Joules of every device since the engine was made, at this moment of its clock."""
        ...

    def temperature_c(self) -> Mapping[str, float]:
        """Degrees Celsius of every device now."""
        ...

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        """Its power so far as (seconds of its clock, device, watts)."""
        ...


@runtime_checkable
class HostedEngine(Protocol):
    """An engine that knows the power of the node around it, too."""

    def host_j(self) -> Mapping[str, float]:
        """Joules of the node's processors (`cpu`) and memory (`dram`), as `energy_j`."""
        ...

    def idle_j(self, device: str) -> float:
        """Joules of a GPU that stands idle on the node, as `energy_j`."""
        ...


class SimulatedMeter:
    """Reads a simulated engine; never a measurement."""

    source = "simulated"
    measured = False
    method = "simulation"
    scope = "gpu"
    systematic: float | None = None
    min_window_s = 5.0
    """As for the counters it stands for, so that a rehearsal takes the same windows."""
    waits = False

    def __init__(self, devices: Sequence[str], clock: Clock, engine: Engine) -> None:
        self._devices = tuple(devices)
        self._clock = clock
        self._engine = engine

    def open(self) -> Mapping[str, Any]:
        """The devices' names.

        Raises:
            MeterError: the engine has no simulated energy, or does not know a device.
        """
        if not self._devices:
            raise MeterError("no_devices", "the launch holds no device to simulate")
        self.read()
        return {"gpus": [{"uuid": device} for device in self._devices]}

    def read(self) -> Reading:
        """What each of the launch's devices has used.

        Raises:
            MeterError: `not_supported` for an engine without simulated energy, `device_unknown`.
        """
        joules = self._powered().energy_j()
        unknown = sorted(set(self._devices) - set(joules))
        if unknown:
            raise MeterError("device_unknown", f"not in the simulation: {', '.join(unknown)}")
        return Reading(
            t_s=self._clock.now(), energy_j={device: joules[device] for device in self._devices}
        )

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """Its temperature; a simulated device is always free."""
        celsius = self._powered().temperature_c()
        return {
            device: {"temperature_c": celsius[device]}
            for device in self._devices
            if device in celsius
        }

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        known = set(self._devices)
        return [each for each in self._powered().power_trace() if each[1] in known]

    def close(self) -> None:
        """Nothing is held."""

    def _powered(self) -> PoweredEngine:
        if not isinstance(self._engine, PoweredEngine):
            raise MeterError("not_supported", "meter: simulated reads only engine.kind: simulated")
        return self._engine


class _SimulatedPart(ABC):
    """One component of a simulated node (see `components.Part`)."""

    def __init__(self, idle: Sequence[str], clock: Clock, engine: Engine) -> None:
        self._idle = tuple(idle)
        self._clock = clock
        self._engine = engine

    def open(self) -> Mapping[str, Any]:
        """The names of what is counted; raises `MeterError` as `read`."""
        return {"counted": list(self.read().energy_j)}

    def read(self) -> Reading:
        """What the simulation says.

        Raises:
            MeterError: `not_supported` for an engine that simulates no node.
        """
        if not isinstance(self._engine, HostedEngine):
            raise MeterError("not_supported", "this engine simulates no node around it")
        return Reading(t_s=self._clock.now(), energy_j=self._joules(self._engine))

    def close(self) -> None:  # noqa: B027 - there is nothing to let go of
        """Nothing is held."""

    @abstractmethod
    def _joules(self, engine: HostedEngine) -> Mapping[str, float]:
        """Of each of its devices."""


class SimulatedSockets(_SimulatedPart):
    """The node's processors."""

    def _joules(self, engine: HostedEngine) -> Mapping[str, float]:
        return {"cpu": engine.host_j()["cpu"]}


class SimulatedMemory(_SimulatedPart):
    """The node's memory."""

    def _joules(self, engine: HostedEngine) -> Mapping[str, float]:
        return {"dram": engine.host_j()["dram"]}


class SimulatedIdle(_SimulatedPart):
    """The GPUs beside the launch's."""

    def _joules(self, engine: HostedEngine) -> Mapping[str, float]:
        return {device: engine.idle_j(device) for device in self._idle}
