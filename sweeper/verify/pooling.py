"""Records pooled over launches, fronts and the best of them, as the journal's rules say.

Of a point only the latest stage with an `ok` record counts. Launches of different meters are not
pooled. An `energy_invalid` record gives its performance alone.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweeper.verify import beside
from sweeper.verify.figures import ENERGY, IDLE, PHASES, SPREAD
from sweeper.verify.sources import Line
from sweeper.verify.student import interval

STAGES = ("final", "full", "screen")
LOW, HIGH = "_ci95_low", "_ci95_high"
SCORE = "quality_score"
NEEDS_METER = frozenset({*ENERGY, *IDLE, *PHASES, *beside.METRICS, "energy_drift_ratio"})


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A result as it was made again; `records` are the lines it is of."""

    records: Sequence[Line]
    metrics: Mapping[str, float]
    undersampled: frozenset[str]
    launches: int

    @property
    def first(self) -> Line:
        """The record that stands for settings and meter."""
        return self.records[0]

    @property
    def id(self) -> str:
        """The point's."""
        return str(self.first["id"])

    def extent(self, metric: str) -> tuple[float, float]:
        """The interval of a metric, or its value twice where there is none."""
        value = self.metrics[metric]
        return self.metrics.get(metric + LOW, value), self.metrics.get(metric + HIGH, value)

    @property
    def kind(self) -> str:
        """`measured`, `estimate` or `simulation`."""
        energy = self.first["energy"]
        if self.first["config"]["engine.kind"] == "simulated":
            return "simulation"
        if energy is None or energy["measured"]:
            return "measured"
        return "simulation" if energy["source"] == "simulated" else "estimate"


def pooled(accepted: Iterable[Line]) -> list[Pooled]:
    """Every result of these verdicts."""
    points: dict[str, list[Line]] = {}
    everything = list(accepted)
    for record in everything:
        if record["status"] in {"ok", "energy_invalid"}:
            points.setdefault(record["id"], []).append(record)
    found = []
    for records in points.values():
        good = [record for record in records if record["status"] == "ok"] or records
        stage = min((record["stage"] for record in good), key=STAGES.index)
        chosen = [record for record in records if record["stage"] == stage]
        found += [_pool(group) for group in _by_meter(chosen)]
    return [_scored(each, everything) for each in found]


def _scored(result: Pooled, verdicts: Sequence[Line]) -> Pooled:
    """With the mean score of its configuration's records, which is of any of its launches."""
    mine = result.first["configuration"]
    scores = [
        record["metrics"][SCORE]
        for record in verdicts
        if record["configuration"] == mine and SCORE in record["metrics"]
    ]
    metrics = {k: v for k, v in result.metrics.items() if not k.startswith(SCORE)}
    if scores:
        metrics[SCORE] = math.fsum(scores) / len(scores)
    return replace(result, metrics=metrics)


def comparable(results: Iterable[Pooled]) -> dict[str, list[Pooled]]:
    """Results that may share a front, by a text that names what they share.

    A result whose joules are unknown goes with the first others of its condition and convention.
    """
    alike: dict[str, list[Pooled]] = {}
    for result in results:
        simulated = result.first["config"]["engine.kind"] == "simulated"
        alike.setdefault(
            canonical([result.first["condition"], result.first["convention"], simulated]), []
        ).append(result)
    found: dict[str, list[Pooled]] = {}
    for members in alike.values():
        known = [each for each in members if each.first["energy"] is not None]
        for result in known or members:
            found.setdefault(group_of(result), []).append(result)
        for result in members if known else ():
            if result.first["energy"] is None:
                found[group_of(known[0])].append(result)
    return found


def group_of(result: Pooled) -> str:
    """What the results of one front share, as text."""
    energy = result.first["energy"] or {}
    about = (energy.get("source"), energy.get("scope"))
    condition, convention = result.first["condition"], result.first["convention"]
    return canonical([condition, convention, result.kind, *about])


def front(results: Sequence[Pooled], objectives: Mapping[str, str]) -> set[str]:
    """The ids that no other result beats in one objective without being beaten in another."""
    costs = {each.id: cost for each in results if (cost := costs_of(each, objectives)) is not None}
    return {
        name
        for name, mine in costs.items()
        if not any(
            other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
            for other in costs.values()
        )
    }


def costs_of(result: Pooled, objectives: Mapping[str, str]) -> tuple[float, ...] | None:
    """The objectives, each so that less is better; `None` where one is not known."""
    if any(name not in result.metrics for name in objectives):
        return None
    return tuple(
        result.metrics[name] * (1 if direction == "min" else -1)
        for name, direction in objectives.items()
    )


def within(result: Pooled, limits: Iterable[Mapping[str, Any]]) -> bool:
    """Whether the worse end of every limited metric is on the right side of its bound."""
    for limit in limits:
        name = limit["metric"]
        if name not in result.metrics or name in result.undersampled:
            return False
        low, high = result.extent(name)
        if not (high <= limit["bound"] if limit["upper"] else low >= limit["bound"]):
            return False
    return True


def canonical(value: Any) -> str:
    """Text that is the same for equal plain data."""
    return json.dumps(value, sort_keys=True)


def _by_meter(records: Sequence[Line]) -> list[list[Line]]:
    groups: dict[str, list[Line]] = {}
    for record in sorted(records, key=lambda each: (each["status"] != "ok", each["launch"])):
        energy = record["energy"]
        parts = ("measured", "source", "method", "scope")
        meter = canonical(energy and [energy[part] for part in parts])
        if record["status"] != "ok" and groups:
            meter = next(iter(groups))
        groups.setdefault(meter, []).append(record)
    return list(groups.values())


def _pool(records: Sequence[Line]) -> Pooled:
    each = [known(record) for record in records]
    metrics: dict[str, float] = {}
    for name in sorted({name for launch in each for name in launch}):
        values = [launch[name] for launch in each if name in launch]
        if name.endswith(SPREAD):
            if sum(name.removesuffix(SPREAD) in launch for launch in each) == 1:
                metrics[name] = values[0]
            continue
        metrics[name] = math.fsum(values) / len(values)
        if len(values) > 1:
            metrics[name + LOW], metrics[name + HIGH] = interval(values)
    return Pooled(
        records=records,
        metrics=metrics,
        undersampled=frozenset(name for record in records for name in record["undersampled"]),
        launches=len(records),
    )


def known(record: Line) -> dict[str, float]:
    """What a record gives to its result: energy only where it is valid."""
    invalid = record["status"] == "energy_invalid"
    return {
        name: value
        for name, value in record["metrics"].items()
        if not (invalid and name.removesuffix(SPREAD) in NEEDS_METER)
    }
