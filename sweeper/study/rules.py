"""What cannot be, or cannot be yet, in a study whose keys are each well-formed (pure)."""

import difflib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from sweeper import shapes
from sweeper.engines import endpoint_options
from sweeper.engines.simulated_options import read_options
from sweeper.errors import StudyError
from sweeper.meters.replay import read_log
from sweeper.plan import holds
from sweeper.results.metrics import GOODPUT
from sweeper.schema import Faults, lookup, overlap, with_values
from sweeper.spec import Axis, Settings, Study
from sweeper.speculation import draft_model
from sweeper.study.axes import moved
from sweeper.study.kinds import KINDS, check_kind

MOST_COMBINATIONS = 100_000
"""More are a slip of the pen: at a minute each, two months of one launch."""
TRACE_KEYS = ("trace", "columns", "bins", "time_scale", "sample")
_SECRET = re.compile(r"(?:^|_)(?:TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY)$", re.IGNORECASE)
_SECRET_OPTIONS = frozenset({"token", "hf_token", "use_auth_token", "api_key"})

Said = tuple[str, str]
"""A key, and what is wrong with it."""


@dataclass(frozen=True)
class Rule:
    """A fault in the settings of a point, found from `keys`."""

    keys: tuple[str, ...]
    check: Callable[[Settings], Iterable[Said]]


def check(study: Study, faults: Faults) -> None:
    """Note what cannot be, over the values that the study and its axes take.

    A rule about keys that are already at fault keeps silent.
    """
    axes = (*study.axes, *study.conditions)
    combinations = math.prod(len(axis.choices) for axis in axes)
    if combinations > MOST_COMBINATIONS:
        said = f"{combinations} combinations, conditions included"
        faults.add("axes", f"{said}, more than {MOST_COMBINATIONS}: take values or axes away")
        return
    _refuse_password(study, faults)
    unsure = faults.touch("exclude")
    before = Faults()
    before.found = list(faults.found)
    for rule in (*RULES, _room(study), _alone(study)):
        if any(before.touch(key) for key in rule.keys) or (unsure and _near(study, rule.keys)):
            continue
        for settings in looks(study, rule.keys):
            for key, message in rule.check(settings):
                faults.add(_place(study, key), message)
    excluding = {key for entry in study.exclude for key in entry}
    if next(looks(study, excluding), None) is None:
        faults.add("exclude", "leaves no combination of the axes: loosen an entry")


def looks(study: Study, keys: Iterable[str]) -> Iterator[Settings]:
    """The settings that the study's points take, as far as `keys` tell them apart."""
    wanted = tuple(keys)
    near = _near(study, wanted)
    axes = (*study.axes, *study.conditions)
    far = {key for axis in axes if axis not in near for key in moved(axis)}
    exclude = [entry for entry in study.exclude if not far & entry.keys()]
    telling = {*wanted, *(key for entry in exclude for key in entry)}
    seen = set()
    for choices in itertools.product(*(axis.choices for axis in near)):
        values = {
            key: value
            for choice in choices
            for key, value in choice.items()
            if any(overlap(key, each) for each in telling)
        }
        identity = json.dumps(values)
        if identity in seen:
            continue
        seen.add(identity)
        settings = with_values(study.settings, values)
        if not any(holds(entry, settings) for entry in exclude):
            yield settings


def _near(study: Study, keys: Iterable[str]) -> list[Axis]:
    """The axes and conditions that move any of `keys`."""
    wanted = tuple(keys)
    axes = (*study.axes, *study.conditions)
    return [axis for axis in axes if any(overlap(a, b) for a in moved(axis) for b in wanted)]


def _refuse_password(study: Study, faults: Faults) -> None:
    uri = study.tracking.uri
    if uri is not None and "@" in urlsplit(uri).netloc:
        way = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the environment"
        faults.add("tracking.uri", f"holds a password, which would be written down: {way}")


def _place(study: Study, key: str) -> str:
    """Where a key's value comes from: the axis that moves it, or the key itself."""
    for kind, axes in (("axes", study.axes), ("conditions", study.conditions)):
        for axis in axes:
            if any(overlap(each, key) for each in moved(axis)):
                return f"{kind}.{axis.label}"
    return key


def _room(study: Study) -> Rule:
    most = study.resources.max_gpus

    def check_room(settings: Settings) -> Iterator[Said]:
        if most is not None and settings.engine.gpus > most:
            yield (
                "resources.max_gpus",
                f"a trial of {settings.engine.gpus} GPUs is wider than {most}",
            )

    keys = ("tensor_parallel", "pipeline_parallel", "data_parallel")
    return Rule((*(f"engine.{key}" for key in keys), "resources.max_gpus"), check_room)


def _meter(settings: Settings) -> Iterator[Said]:
    kind = settings.engine.kind
    if settings.meter == "simulated" and kind != "simulated":
        yield "meter", f"simulated has nothing to read of engine.kind {kind}: use auto"


def _replay(settings: Settings) -> Iterator[Said]:
    if settings.meter != "replay":
        if settings.replay is not None:
            yield "replay", f"is a key of meter replay, and meter is {settings.meter}"
        return
    try:
        read_log(settings)
    except StudyError as error:
        for fault in error.faults:
            key, _, said = fault.partition(": ")
            yield key, said


def _alone(study: Study) -> Rule:
    """A meter at the wall counts all that runs on a node."""

    def check_alone(settings: Settings) -> Iterator[Said]:
        of_node = (settings.replay or {}).get("scope", "node") == "node"
        if settings.meter == "replay" and of_node and not study.resources.exclusive_node:
            yield (
                "replay.scope",
                "node counts all that runs on a node: set resources.exclusive_node: true",
            )

    return Rule(("meter", "replay"), check_alone)


def _simulates(settings: Settings) -> Iterator[Said]:
    if settings.engine.simulates is not None and settings.engine.kind != "simulated":
        said = f"is a key of engine.kind simulated, and engine.kind is {settings.engine.kind}"
        yield "engine.simulates", said


def _window(settings: Settings) -> Iterator[Said]:
    if settings.measure.window == "steady" and settings.workload.batching == "static":
        yield (
            "measure.window",
            "steady cannot be had with workload.batching static: use whole, or auto",
        )


def _model(settings: Settings) -> Iterator[Said]:
    model = settings.model
    if model.id is None and model.shape is None:
        yield (
            "model",
            f"neither model.id nor model.shape is set; shapes: {', '.join(shapes.known())}",
        )


def _shape(settings: Settings) -> Iterator[Said]:
    name, known = settings.model.shape, shapes.known()
    if name is not None and name not in known:
        near = " or ".join(difflib.get_close_matches(name, known, n=2))
        way = f"did you mean {near}? All:" if near else "known:"
        yield "model.shape", f'no shape "{name}"; {way} {", ".join(known)}'


def _weights(settings: Settings) -> Iterator[Said]:
    model, kind = settings.model, settings.engine.kind
    if kind in ("simulated", "endpoint"):
        return
    if model.weights == "auto" and model.id is None and model.shape is not None:
        yield (
            "model.weights",
            "auto needs model.id, as a shape has no weights of its own: use dummy",
        )
    if model.weights == "dummy_engine" and kind != "vllm":
        yield "model.weights", f"dummy_engine is of vLLM alone: with engine.kind {kind} use dummy"


def _warmup(settings: Settings) -> Iterator[Said]:
    warmup = settings.measure.warmup
    if warmup.min_batches > warmup.max_batches:
        said = f"{warmup.min_batches} is more than max_batches, which is {warmup.max_batches}"
        yield "measure.warmup.min_batches", said


def _goodput(settings: Settings) -> Iterator[Said]:
    limits = settings.measure.goodput
    known = ", ".join(GOODPUT)
    if limits is not None and not limits:
        yield "measure.goodput", f"no limit given, wanted some of {known}"
    for name, seconds in (limits or {}).items():
        place = f"measure.goodput.{name}"
        if name not in GOODPUT:
            yield place, f"is no time of a request, which are {known}"
        elif seconds <= 0:
            yield place, f"{seconds:g} given, wanted: seconds above 0"


def _workload(settings: Settings) -> Iterator[Said]:
    workload = settings.workload
    kind = workload.kind
    if kind == "tasks" and workload.task is None:
        yield "workload.task", "missing: kind tasks needs it"
    if kind == "trace" and workload.trace is None:
        yield "workload.trace", "missing: kind trace needs it"
    if kind != "tasks" and workload.task is not None:
        yield "workload.task", f"is a key of kind tasks, and workload.kind is {kind}"
    for name in TRACE_KEYS if kind != "trace" else ():
        if getattr(workload, name) is not None:
            yield f"workload.{name}", f"is a key of kind trace, and workload.kind is {kind}"


def _kinds(key: str) -> Rule:
    def check_kinds(settings: Settings) -> Iterator[Said]:
        given = lookup(settings, key)
        if given is not None:
            faults = Faults()
            check_kind(key, given, faults)
            yield from faults.found

    return Rule((key,), check_kinds)


def _simulated(settings: Settings) -> Iterator[Said]:
    if settings.engine.kind == "simulated":
        try:
            read_options(settings)
        except StudyError as error:
            for fault in error.faults:
                key, _, said = fault.partition(": ")
                named = key.startswith("engine.options")
                yield (key, said) if named else ("engine.options", fault)


def _endpoint(settings: Settings) -> Iterator[Said]:
    if settings.engine.kind == "endpoint":
        try:
            endpoint_options.read_options(settings)
        except StudyError as error:
            for fault in error.faults:
                key, _, said = fault.partition(": ")
                yield key, said


def _draft(settings: Settings) -> Iterator[Said]:
    key, given, faults = "engine.speculative", settings.engine.speculative, Faults()
    if given is None:
        return
    check_kind(key, given, faults)
    if faults.found:
        return
    try:
        draft = draft_model(settings)
    except StudyError as error:
        yield key, str(error).removeprefix(f"{key}.")
        return
    real = settings.engine.kind != "simulated"
    if real and draft and draft.id is None and draft.weights == "auto":
        yield key, f"{draft.shape} is a shape and has no weights of its own: use its hub id"


def _secrets(settings: Settings) -> Iterator[Said]:
    names = [("engine.env", name) for name in settings.engine.env if _SECRET.search(name)]
    names += [("engine.options", name) for name in _SECRET_OPTIONS & settings.engine.options.keys()]
    way = "set it in the environment of the command, not in the study"
    for key, name in names:
        yield f"{key}.{name}", f"looks like a secret, which would be written down: {way}"


RULES: tuple[Rule, ...] = (
    Rule(("model.id", "model.shape"), _model),
    Rule(("model.shape",), _shape),
    Rule(("model.weights", "model.id", "model.shape", "engine.kind"), _weights),
    Rule(("meter", "engine.kind"), _meter),
    Rule(("meter", "replay"), _replay),
    Rule(("engine.simulates", "engine.kind"), _simulates),
    Rule(("measure.window", "workload.batching"), _window),
    Rule(("measure.warmup.min_batches", "measure.warmup.max_batches"), _warmup),
    Rule(("measure.goodput",), _goodput),
    Rule(("workload.kind", "workload.task", *(f"workload.{k}" for k in TRACE_KEYS)), _workload),
    Rule(("engine.options", "engine.kind", "meter"), _simulated),
    Rule(("engine.kind", "engine.options", *endpoint_options.OF_THE_SERVER), _endpoint),
    Rule(("engine.speculative", "engine.kind", "model.id", "model.shape", "model.weights"), _draft),
    Rule(("engine.env", "engine.options"), _secrets),
    *map(_kinds, KINDS),
)
