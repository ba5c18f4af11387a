"""What a launch is measured with, and who hears of it."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError
from sweeper.meters import Meter, Reading
from sweeper.meters.components import Components
from sweeper.results.attachments import Role
from sweeper.spec import Launch, Point
from sweeper.trial.evidence import Clocks, Witness, machine_clocks
from sweeper.trial.gpu_settings import GpuSettings

KEPT = frozenset({"window", "record"})
"""Kinds of events that a launch waits for until they are kept."""
Emit = Callable[[str, Mapping[str, Any]], None]
"""`emit(kind, fields)` returns when an event of `KEPT` is safe with whoever keeps it."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a record says of its surroundings.

    `name` is the launch's own among all of the study, for its files. `environment` is plain data:
    host, node, versions, what is known of the devices.
    """

    name: str
    study: str
    trial_id: str
    attempt: int
    environment: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The parts a launch works with; `devices` are its GPUs, none on a machine without.

    `gpu_settings` are what the study sets of them, `components` what the node spends beside them.
    `witness` gathers the evidence that windows are judged by; `clocks` are those of the machine.
    Devices that are `occupied` are in use by the launch's own server, since before it began.
    """

    engine: Engine
    meter: Meter
    clock: Clock
    devices: Sequence[str]
    context: Context
    emit: Emit
    components: Components = field(default_factory=Components)
    gpu_settings: GpuSettings = field(default_factory=GpuSettings)
    clocks: Clocks = machine_clocks
    occupied: bool = False
    witness: Witness = field(init=False)

    def __post_init__(self) -> None:
        witness = Witness(self.meter, self.clock, self.devices, self.clocks)
        object.__setattr__(self, "witness", witness)

    def phase(self, name: str, point: Point | None = None) -> None:
        """Tell what begins now, and on which point."""
        self.emit("phase", {"phase": name, "point": point.id if point else None})

    def attach(
        self, launch: Launch, suffix: str, role: Role, packed: bytes, point: Point | None = None
    ) -> None:
        """Hand on a compressed file of this launch, or of one of its points."""
        name = f"{self.context.name}.{suffix}"
        of = {} if point is None else {"id": point.id}
        self.emit("attachment", {**attachment(name, launch, role, packed), **of})

    def read(self) -> tuple[Reading | None, str | None]:
        """A reading and right after it the components, or `None` and the reason with its detail."""
        try:
            reading = self.meter.read()
        except MeterError as error:
            return None, str(error)
        return replace(reading, components=self.components.read()), None

    def temperatures_c(self) -> dict[str, float]:
        """What the devices tell of their temperature; a device that tells none is absent."""
        try:
            state = self.meter.state()
        except MeterError:
            return {}
        return {
            device: float(facts["temperature_c"])
            for device, facts in state.items()
            if facts.get("temperature_c") is not None
        }


def attachment(name: str, launch: Launch, role: Role, packed: bytes) -> dict[str, Any]:
    """The fields of an event that carries a compressed file of a launch, as plain data."""
    return {
        "name": name,
        "role": role,
        "data": base64.b64encode(packed).decode(),
        "configuration": launch.points[0].configuration,
        "launch": launch.number,
        "stage": launch.stage,
    }


def utc_now() -> str:
    """The real clock, to a millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
