"""A study's rehearsal: the same study with every engine simulated, under a name of its own (pure).

`engine.kind: vllm` becomes `engine.kind: simulated` with `engine.simulates: vllm`, wherever it
stands, and options of the engine's own become `engine.options.native`: the points stay as many
and as different as they were.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweeper.cluster.pool import Request
from sweeper.cluster.replay import makespan_s
from sweeper.errors import StudyError
from sweeper.forecast import PoolNode, eligible, pool_nodes, pool_text
from sweeper.results.contents import Contents
from sweeper.schema import overlap
from sweeper.shapes import shape_of_model
from sweeper.spec import Axis, Settings, Study, Values
from sweeper.study import REHEARSAL, looks


def rehearsed(study: Study, pool: Sequence[PoolNode]) -> Study:
    """The study to run on a pretend cluster of these nodes.

    Raises:
        StudyError: the pool has no GPU for it, or nothing is known of a model's shape.
    """
    accelerator = eligible(study, pool)[0].gpu.name
    _refuse_unknown_shapes(study)
    stage = _Stage(study)
    return replace(
        study,
        name=study.name + REHEARSAL,
        settings=stage.settings(study.settings),
        axes=stage.axes(study.axes),
        conditions=stage.axes(study.conditions),
        exclude=tuple(stage.values(entry) for entry in study.exclude if "meter" not in entry),
        baseline=stage.values(study.baseline),
        expect=tuple(
            replace(each, when=stage.values(each.when), against=stage.values(each.against))
            for each in study.expect
        ),
        # A scorer would be given a simulation.
        quality=study.quality if study.quality is None else "unchecked_ok",
        resources=replace(study.resources, accelerator=accelerator, cpus="auto"),
    )


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a rehearsal came to, on the clocks of its simulations.

    `energy_j` is of whole leases, loading and waiting included; `unmetered` leases are not in it.
    """

    pool: str
    makespan_s: float
    gpu_seconds: float
    energy_j: float
    unmetered: int


def course(study: Study, contents: Contents, pool: Sequence[PoolNode]) -> Course:
    """Time, GPUs and joules of the leases of a rehearsal.

    Its simulations run faster than what they stand for, so the time is that of the pool's own
    admission, replayed with the lengths that the leases had.
    """
    ours = {record.trial_id for record in contents.records}
    leases = [line for line in contents.ended if "seconds" in line and line["trial_id"] in ours]
    widths = {_lease(line): len(line.get("devices", ())) for line in contents.trials}
    lengths_s = {_lease(line): float(line["seconds"]) for line in leases}
    requests = [
        Request(
            id=name,
            width=widths.get(name, 0),
            expected_s=lengths_s[name],
            whole_node=study.resources.exclusive_node,
        )
        for name in lengths_s
    ]
    joules = [line.get("energy_j") for line in leases]
    compared = {record.trial_id for record in contents.records if record.stage == "final"}
    blocks = {_lease(line) for line in leases if line["trial_id"] in compared}
    # Blocks begin when all else is measured.
    stages = (
        [request for request in requests if request.id not in blocks],
        [request for request in requests if request.id in blocks],
    )
    most = study.resources.max_gpus
    return Course(
        pool=pool_text(pool),
        makespan_s=sum(makespan_s(each, lengths_s, pool_nodes(pool), most) for each in stages),
        gpu_seconds=math.fsum(line["gpu_seconds"] for line in leases),
        energy_j=math.fsum(each for each in joules if each is not None),
        unmetered=joules.count(None),
    )


def _lease(line: Mapping[str, Any]) -> str:
    return f"{line['trial_id']}.{line.get('attempt', 0)}"


class _Stage:
    """How keys of one study are set on its stage."""

    def __init__(self, study: Study) -> None:
        moved = {key for axis in (*study.axes, *study.conditions) for key in axis.choices[0]}
        simulated = study.settings.engine.kind == "simulated"
        self._as_it_is = simulated and "engine.kind" not in moved

    def settings(self, settings: Settings) -> Settings:
        engine = settings.engine
        if not self._as_it_is:
            engine = replace(
                engine,
                kind="simulated",
                simulates=_stands_for(engine.kind),
                options=_native(engine.options),
            )
        return replace(settings, engine=engine, meter="simulated", replay=None)

    def axes(self, axes: Iterable[Axis]) -> tuple[Axis, ...]:
        staged = [
            Axis(label=self._label(axis.label), choices=_distinct(map(self.values, axis.choices)))
            for axis in axes
        ]
        return tuple(axis for axis in staged if axis.choices)

    def values(self, values: Values) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in values.items():
            if key == "meter" or overlap(key, "replay"):
                continue
            if key == "engine.kind" and not self._as_it_is:
                found["engine.simulates"] = _stands_for(value)
            elif key == "engine.options" and not self._as_it_is:
                found[key] = _native(value)
            elif key.startswith("engine.options.") and not self._as_it_is:
                found[f"engine.options.native.{key.removeprefix('engine.options.')}"] = value
            else:
                found[key] = value
        return found

    def _label(self, label: str) -> str:
        return "engine.simulates" if label == "engine.kind" and not self._as_it_is else label


def _stands_for(kind: str) -> Any:
    if kind == "endpoint":
        raise StudyError(
            "engine.kind: an endpoint cannot be rehearsed, nothing is known of what serves there"
        )
    return None if kind == "simulated" else kind


def _native(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"native": dict(options)} if options else {}


def _distinct(choices: Iterable[Values]) -> tuple[Values, ...]:
    kept: list[Values] = []
    for choice in choices:
        if choice and choice not in kept:
            kept.append(choice)
    return tuple(kept)


def _refuse_unknown_shapes(study: Study) -> None:
    """Every model must have a shape here: a rehearsal downloads nothing."""
    faults: list[str] = []
    for settings in looks(study, ("model.id", "model.shape", "model.revision")):
        try:
            shape_of_model(settings.model)
        except StudyError as error:
            faults += error.faults
    if faults:
        raise StudyError(dict.fromkeys(faults))
