"""The `engine.options` of a simulated engine."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

from sweeper.errors import StudyError
from sweeper.gpu_data import gpu
from sweeper.spec import Settings

FailKind = Literal["error", "crash", "hang", "leak", "oom"]
FailAt = Literal["load", "warmup", "window"]
UNKNOWN_SETTINGS: Mapping[str, tuple[Any, ...]] = {
    "engine.quantization": (None,),
    "engine.attention": (None,),
    "engine.prefix_caching": (False,),
}
"""Settings the arithmetic knows nothing of, with the values that ask nothing of it."""
UNTIMED_METERS = frozenset({"auto", "simulated", "replay"})
"""Meters that work on a virtual clock; every other one reads hardware as real time passes."""


@dataclass(frozen=True, kw_only=True)
class Fail:
    """A failure on request: what, when, at which batch size (any), in how many attempts (all).

    `warmup` is the first batch of a size, `window` the first after `measure.warmup.min_batches`.
    """

    kind: FailKind
    at: FailAt = "window"
    batch_size: int | None = None
    attempts: int | None = None


@dataclass(frozen=True, kw_only=True)
class SimulatedOptions:
    """What a simulated engine can be told.

    `gpu`: type of the GPUs, where the devices do not say. `noise`: relative standard deviation of
    a window's time and power. `time_scale`: real seconds a simulated second takes. `load_s`:
    seconds of a load, from the size of the weights if not given. `oom_above_batch`,
    `oom_at_load`, `fail`: what goes wrong. `isolated`: run in a child process, as a real engine
    does. `helpers`: processes started beside, each with one of its own. `native`: the options of
    the engine that it stands for, some of which the roofline knows. `seed`, `attempt`: of the
    launch, set by whoever launches (`of_launch`).
    """

    gpu: str = "H100"
    noise: float = 0.01
    time_scale: float = 0.0
    load_s: float | None = None
    oom_above_batch: int | None = None
    oom_at_load: bool = False
    fail: Fail | None = None
    isolated: bool = False
    helpers: int = 0
    native: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    attempt: int = 0


def of_launch(settings: Settings, seed: int, attempt: int) -> Settings:
    """The same settings for one launch: its seed varies what launches vary in."""
    options = {**settings.engine.options, "seed": seed, "attempt": attempt}
    return replace(settings, engine=replace(settings.engine, options=options))


def stood_for(settings: Settings) -> Settings:
    """The settings as the engine has them that a simulated one stands for, else as they are."""
    engine = settings.engine
    if engine.kind != "simulated" or engine.simulates is None:
        return settings
    native = engine.options.get("native", {})
    return replace(
        settings, engine=replace(engine, kind=engine.simulates, simulates=None, options=native)
    )


def read_options(settings: Settings) -> SimulatedOptions:
    """The options as given, checked.

    With a meter that reads hardware the time scale is 1, and may be nothing else.

    Raises:
        StudyError: unknown options, or values out of place, all at once.
    """
    given = settings.engine.options
    faults = _faults("engine.options", given, _CHECKS, [f.name for f in fields(SimulatedOptions)])
    fail = given.get("fail")
    if isinstance(fail, Mapping):
        faults += _faults("engine.options.fail", fail, _FAIL_CHECKS, [f.name for f in fields(Fail)])
        if "kind" not in fail:
            faults.append(f"engine.options.fail.kind: missing; {', '.join(get_args(FailKind))}")
    if "gpu" in given and isinstance(given["gpu"], str):
        try:
            gpu(given["gpu"])
        except StudyError as error:
            faults += error.faults
    timed = settings.meter not in UNTIMED_METERS
    if timed and given.get("time_scale", 1) != 1:
        faults.append(
            f"engine.options.time_scale: {given['time_scale']!r} with meter {settings.meter}, "
            "which measures real time: 1, or meter simulated"
        )
    if faults:
        raise StudyError(faults)
    values: dict[str, Any] = {"time_scale": 1.0 if timed else 0.0, **given}
    if fail is not None:
        values["fail"] = Fail(**fail)
    return SimulatedOptions(**values)


def _faults(
    place: str,
    given: Mapping[str, Any],
    checks: Mapping[str, tuple[Callable[[Any], bool], str]],
    known: list[str],
) -> list[str]:
    faults = [
        f"{place}.{name}: not an option of the simulated engine; known: {', '.join(known)}"
        for name in given
        if name not in known
    ]
    for name, (holds, wanted) in checks.items():
        if name in given and not holds(given[name]):
            faults.append(f"{place}.{name}: {given[name]!r}; wanted: {wanted}")
    return faults


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and value >= least


def _number(least: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and least <= value < float("inf")


def _or_null(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _one_of(choices: tuple[str, ...]) -> tuple[Callable[[Any], bool], str]:
    return (lambda value: value in choices, ", ".join(choices))


_FLAG = (lambda value: type(value) is bool, "true or false")
_COUNT = (_whole(0), "a whole number")
_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "gpu": (lambda value: isinstance(value, str), "the name of a GPU type"),
    "noise": (lambda value: _number(0)(value) and value <= 0.2, "0 to 0.2"),
    "time_scale": (_number(0), "0 (no waiting), 1 (real time) or between"),
    "load_s": (_or_null(_number(0)), "seconds, or null"),
    "oom_above_batch": (_or_null(_whole(0)), "a batch size, or null"),
    "oom_at_load": _FLAG,
    "fail": (
        _or_null(lambda value: isinstance(value, Mapping)),
        "{kind, at, batch_size, attempts}",
    ),
    "isolated": _FLAG,
    "native": (lambda value: isinstance(value, Mapping), "a mapping"),
    "helpers": _COUNT,
    "seed": _COUNT,
    "attempt": _COUNT,
}
_FAIL_CHECKS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "kind": _one_of(get_args(FailKind)),
    "at": _one_of(get_args(FailAt)),
    "batch_size": (_or_null(_whole(1)), "a batch size, or null"),
    "attempts": (_or_null(_whole(1)), "a whole number from 1, or null"),
}
