"""What a node spends beside the GPUs of a launch: read at the edges of the same windows.

    cpu       sockets           | of the whole node, so only where the lease has it to itself
    dram      memory at them    | (resources.exclusive_node)
    idle_gpu  the GPUs that the lease holds and the launch does not use

Each is read right after the launch's own GPUs, and stays apart from them (`results/components.py`).
"""

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError
from sweeper.meters import Reading

PARTS: Mapping[str, Mapping[str, str]] = {
    "nvml": {
        "cpu": "sweeper.meters.rapl:Sockets",
        "dram": "sweeper.meters.rapl:Memory",
        "idle_gpu": "sweeper.meters.nvml_meter:IdleNvidia",
    },
    "amd": {
        "cpu": "sweeper.meters.rapl:Sockets",
        "dram": "sweeper.meters.rapl:Memory",
        "idle_gpu": "sweeper.meters.amd:IdleAmd",
    },
    "simulated": {
        "cpu": "sweeper.meters.simulated:SimulatedSockets",
        "dram": "sweeper.meters.simulated:SimulatedMemory",
        "idle_gpu": "sweeper.meters.simulated:SimulatedIdle",
    },
}
"""By the meter that a launch's GPUs are read with, import paths of what reads each component.

A meter that is not here counts more than the launch's GPUs itself.
"""
OF_THE_NODE = ("cpu", "dram")
SHARED = (
    "not_exclusive: other leases may run on this node; resources.exclusive_node: true counts its "
    "processors and memory"
)


class Part(Protocol):
    """Reads one component; `idle` are the UUIDs of the GPUs that stand idle beside the launch."""

    def __init__(self, idle: Sequence[str], clock: Clock, engine: Engine) -> None: ...

    def open(self) -> Mapping[str, Any]:
        """Begin, and say what is counted, as plain data; raises `MeterError`."""
        ...

    def read(self) -> Reading:
        """Joules of each device of the component now; raises `MeterError`, never gives a zero."""
        ...

    def close(self) -> None:
        """Let go of everything; may be called twice."""
        ...


class Components:
    """The components of one launch. What cannot be opened is missing, with its reason code."""

    def __init__(
        self, parts: Mapping[str, Part] | None = None, left_out: Mapping[str, str] | None = None
    ) -> None:
        self._parts = dict(parts or {})
        self._opened: dict[str, Part] = {}
        self._left_out = dict(left_out or {})

    def open(self) -> Mapping[str, Any]:
        """By component what is counted, or the `reason` why nothing is: a code with a detail.

        One that was not asked for has `asked: false` beside its reason.
        """
        self.close()
        told: dict[str, Any] = {}
        for name, part in self._parts.items():
            try:
                told[name] = dict(part.open())
            except MeterError as error:
                part.close()
                told[name] = {"reason": str(error)}
            else:
                self._opened[name] = part
        left_out = self._left_out.items()
        return told | {name: {"asked": False, "reason": reason} for name, reason in left_out}

    def read(self) -> Mapping[str, Mapping[str, Any]]:
        """What each component that was opened has used, as a reading carries it."""
        return {name: _one(part) for name, part in self._opened.items()}

    def close(self) -> None:
        """Close all parts; may be called twice."""
        for part in self._opened.values():
            part.close()
        self._opened = {}


def components_for(
    kind: str, idle: Sequence[str], clock: Clock, engine: Engine, *, exclusive: bool
) -> Components:
    """The components beside a launch whose GPUs are read with the meter `kind`.

    Those of the whole node only where the lease is `exclusive`; idle GPUs where there are any.
    """
    paths = PARTS.get(kind, {})
    wanted = [
        name for name in paths if (exclusive if name in OF_THE_NODE else bool(idle) or exclusive)
    ]
    parts = {name: _part(paths[name])(idle, clock, engine) for name in wanted}
    shared = [] if exclusive else [name for name in OF_THE_NODE if name in paths]
    return Components(parts, dict.fromkeys(shared, SHARED))


def _one(part: Part) -> Mapping[str, Any]:
    try:
        reading = part.read()
    except MeterError as error:
        return {"reason": str(error)}
    return {"t_s": reading.t_s, "energy_j": dict(reading.energy_j)}


def _part(path: str) -> type[Part]:
    module, _, name = path.partition(":")
    found: type[Part] = getattr(importlib.import_module(module), name)
    return found
