"""Records pooled over launches into results: what fronts and savings are made of (pure)."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from sweeper.answers.interval import mean_interval
from sweeper.results.metrics import QUALITY_SCORE, SD_WINDOWS, is_energy
from sweeper.results.record import Energy, Record
from sweeper.spec import Values

CI_LOW = "_ci95_low"
CI_HIGH = "_ci95_high"
STAGES = ("final", "full", "screen")
"""The stages of a study, the one that counts most first."""

Provenance = Literal["measured", "estimate", "simulation"]


@dataclass(frozen=True, kw_only=True)
class Result:
    """A point's records of one stage, pooled over their launches.

    Each metric is the mean over the launches that have it, with `_ci95_low` and `_ci95_high` (t,
    launches - 1 degrees of freedom) beside it from two launches on. From one launch there is no
    interval, only that launch's `_sd_windows`.
    """

    id: str
    configuration: str
    config: Values
    chosen: Values
    condition: Values
    convention: str
    stage: str
    gpus: int
    launches: int
    metrics: Mapping[str, float]
    undersampled: tuple[str, ...]
    energy: Energy | None
    launch_command: str | None

    def value(self, metric: str) -> float | None:
        """A metric's mean, or `None` where it is not known."""
        found = self.metrics.get(metric)
        return found if found is not None and math.isfinite(found) else None

    def interval(self, metric: str) -> tuple[float, float] | None:
        """A metric's 95 % interval, or `None` where one launch gives none."""
        low, high = self.metrics.get(metric + CI_LOW), self.metrics.get(metric + CI_HIGH)
        return None if low is None or high is None else (low, high)

    @property
    def simulated(self) -> bool:
        """Whether the engine is a simulation: then no number is of a machine."""
        return self.config.get("engine.kind") == "simulated"

    @property
    def provenance(self) -> Provenance:
        """Whether the numbers are measured, or what they are instead.

        Whatever the simulated engine or meter had a hand in is a simulation.
        """
        energy = self.energy
        if self.simulated:
            return "simulation"
        if energy is None or energy.measured:
            return "measured"
        return "simulation" if energy.source == "simulated" else "estimate"


def results(records: Iterable[Record]) -> tuple[Result, ...]:
    """One result for each point that has any numbers, in the order of conditions and choices.

    Only the latest stage that has an `ok` record counts (final, else full, else screen), alone: the
    finalists were picked by their earlier numbers, which therefore flatter them. An
    `energy_invalid` record gives its performance and no energy. Launches whose joules come from
    different meters are never pooled: such a point has a result for each. A score is of all points
    of a configuration, whichever of its launches it was made before.
    """
    points: dict[str, list[Record]] = {}
    known = settled(records)
    scores = _scores(known)
    for record in known:
        if record.status in {"ok", "energy_invalid"}:
            points.setdefault(record.id, []).append(record)
    pooled = [
        _with_score(_pool(group), scores)
        for point in points.values()
        for group in _by_meter(_latest_stage(point))
    ]
    return tuple(sorted(pooled, key=_place))


def _scores(records: Iterable[Record]) -> dict[str, float]:
    """The mean score of each configuration that has one."""
    found: dict[str, list[float]] = {}
    for record in records:
        if (score := record.metrics.get(QUALITY_SCORE)) is not None and math.isfinite(score):
            found.setdefault(record.configuration, []).append(score)
    return {name: statistics.fmean(values) for name, values in found.items()}


def _with_score(result: Result, scores: Mapping[str, float]) -> Result:
    """Without an interval: how much a score varies is the scorer's to know."""
    own = {QUALITY_SCORE, QUALITY_SCORE + CI_LOW, QUALITY_SCORE + CI_HIGH}
    metrics = {name: value for name, value in result.metrics.items() if name not in own}
    if result.configuration in scores:
        metrics[QUALITY_SCORE] = scores[result.configuration]
    return replace(result, metrics=metrics)


def settled(records: Iterable[Record]) -> tuple[Record, ...]:
    """One record for each (id, launch, stage): the last verdict, else the last failure."""
    found: dict[tuple[str, int, str], Record] = {}
    for record in records:
        before = found.get(record.key)
        if before is None or record.accepted or not before.accepted:
            found[record.key] = record
    return tuple(found.values())


def order(values: Values) -> tuple[Any, ...]:
    """A sort key for dotted values: numbers by size before anything else, keys as they come."""
    return tuple(
        (0, value, "")
        if isinstance(value, int | float) and not isinstance(value, bool)
        else (1, 0, canonical(value))
        for value in values.values()
    )


def canonical(value: Any) -> str:
    """Text that is the same for equal plain data."""
    return json.dumps(value, sort_keys=True, default=str)


def _place(result: Result) -> tuple[Any, ...]:
    return (
        order(result.condition),
        result.convention,
        order(result.chosen),
        result.id,
        _meter(result.energy),
    )


def _latest_stage(records: Sequence[Record]) -> list[Record]:
    usable = [record for record in records if record.status == "ok"] or records
    stage = min((record.stage for record in usable), key=STAGES.index)
    return [record for record in records if record.stage == stage]


def _by_meter(records: Sequence[Record]) -> list[list[Record]]:
    """Records with the same origin of joules; those without joules go with the first of them."""
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.status != "ok", record.launch)):
        meter = _meter(record.energy)
        if record.status != "ok" and groups:
            meter = next(iter(groups))
        groups.setdefault(meter, []).append(record)
    return list(groups.values())


def _meter(energy: Energy | None) -> str:
    if energy is None:
        return ""
    return canonical([energy.measured, energy.source, energy.method, energy.scope])


def _pool(records: Sequence[Record]) -> Result:
    first = records[0]
    found = [_metrics(record) for record in records]
    names = sorted({name for metrics in found for name in metrics})
    metrics: dict[str, float] = {}
    for name in names:
        values = [each[name] for each in found if name in each]
        if name.endswith(SD_WINDOWS):
            if sum(name.removesuffix(SD_WINDOWS) in each for each in found) == 1:
                metrics[name] = values[0]
            continue
        metrics[name] = statistics.fmean(values)
        if len(values) >= 2:
            metrics[name + CI_LOW], metrics[name + CI_HIGH] = mean_interval(values)
    return Result(
        id=first.id,
        configuration=first.configuration,
        config=first.config,
        chosen=first.chosen,
        condition=first.condition,
        convention=first.convention,
        stage=first.stage,
        gpus=first.gpus,
        launches=len(records),
        metrics=metrics,
        undersampled=tuple(sorted({name for record in records for name in record.undersampled})),
        energy=first.energy,
        launch_command=first.launch_command,
    )


def _metrics(record: Record) -> dict[str, float]:
    """What a record gives to its result: known numbers, energy only where it is valid."""
    return {
        name: value
        for name, value in record.metrics.items()
        if math.isfinite(value) and not (record.status == "energy_invalid" and is_energy(name))
    }
