"""What a launch is given to work with, and how its bench is set up from that."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.clocks import clock_for
from sweeper.engines import Clock, Engine, engine_class
from sweeper.engines.endpoint_options import running_devices, runs_already
from sweeper.engines.simulated_options import of_launch
from sweeper.errors import WrongSetting
from sweeper.meters import Meter, meter_class
from sweeper.meters.components import components_for
from sweeper.meters.unattributable import Unattributable
from sweeper.spec import Launch, Settings
from sweeper.trial.bench import Bench, Context, Emit
from sweeper.trial.environment import describe
from sweeper.trial.gpu_settings import UNASKED, GpuSettings


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """One launch, on which devices (GPU UUIDs, none on a machine without), for which study.

    `place` is plain data that the supervisor knows of the surroundings: node and neighbours,
    `idle_gpus` that the lease holds beside, and whether it has an `exclusive_node`.
    """

    launch: Launch
    study: str
    trial_id: str
    attempt: int
    devices: tuple[str, ...]
    place: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A name for files of this launch, its own among all launches of a study."""
        configuration = self.launch.points[0].configuration
        return f"{self.trial_id}-{self.attempt}-{configuration}-{self.launch.number}"

    @property
    def settings(self) -> Settings:
        """The settings of the configuration, as any of its points has them."""
        return self.launch.points[0].settings


def bench_for(assignment: Assignment, emit: Emit) -> Bench:
    """The engine, meter and clock that an assignment asks for, none of them started."""
    launch, devices = assignment.launch, assignment.devices
    settings = assignment.settings
    if settings.engine.kind == "simulated":
        settings = of_launch(settings, launch.seed, assignment.attempt)
        # On a machine without GPUs a simulation has pretend ones.
        devices = devices or tuple(f"pretend-gpu-{n}" for n in range(settings.engine.gpus))
    running = runs_already(settings)
    if running:
        # What it has leased is not what the server runs on.
        devices = running_devices(settings)
    clock = clock_for(settings)
    engine = engine_class(settings.engine.kind)(settings, launch.sizes, devices, clock)
    kind = meter_kind(settings, devices)
    meter: Meter
    if running and not devices:
        meter = Unattributable("engine.options.url names no devices of this host")
        kind = meter.source
    else:
        meter = meter_for(kind, settings, devices, clock, engine)
    components = components_for(
        kind,
        assignment.place.get("idle_gpus", ()),
        clock,
        engine,
        exclusive=bool(assignment.place.get("exclusive_node")),
    )
    context = Context(
        name=assignment.name,
        study=assignment.study,
        trial_id=assignment.trial_id,
        attempt=assignment.attempt,
        environment={**describe(), **assignment.place},
    )
    return Bench(
        engine=engine,
        meter=meter,
        clock=clock,
        devices=devices,
        context=context,
        emit=emit,
        components=components,
        occupied=running,
        gpu_settings=gpu_settings_for(kind, settings, devices),
    )


def gpu_settings_for(kind: str, settings: Settings, devices: tuple[str, ...]) -> GpuSettings:
    """What is to be set of GPUs; of simulated ones nothing is, as their arithmetic follows.

    Raises:
        WrongSetting: there are no GPUs of NVIDIA.
    """
    if settings.gpu == UNASKED or kind == "simulated":
        return GpuSettings()
    if kind != "nvml":
        raise WrongSetting(f"gpu: is set through NVML, and the meter of this launch is {kind}")
    return GpuSettings(settings.gpu, devices)


def meter_for(
    kind: str, settings: Settings, devices: tuple[str, ...], clock: Clock, engine: Engine
) -> Meter:
    """A meter, with what the study's key of its name says of it, where there is such a key."""
    made: Callable[..., Meter] = meter_class(kind)
    own = getattr(settings, kind, None)
    return made(devices, clock, engine) if own is None else made(devices, clock, engine, own)


def meter_kind(settings: Settings, devices: tuple[str, ...]) -> str:
    """The meter that `auto` stands for: on GPUs only counters, without any only an estimate."""
    if settings.meter != "auto":
        return settings.meter
    if settings.engine.kind == "simulated":
        return "simulated"
    return "nvml" if devices else "codecarbon"
