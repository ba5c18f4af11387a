"""What each result saves against the baseline, all other axes equal (pure)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from sweeper.answers.adjustment import adjusted
from sweeper.answers.change import Change, Launched, Lease, change
from sweeper.answers.front import Group
from sweeper.answers.results import Result, canonical, settled
from sweeper.results.metrics import is_energy
from sweeper.results.record import Record
from sweeper.spec import Study


@dataclass(frozen=True, kw_only=True)
class Saving:
    """A result against its baseline, by metric; a metric that either lacks is absent."""

    result: Result
    baseline: Result
    changes: Mapping[str, Change]


def savings(
    group: Group, study: Study, records: Iterable[Record], metrics: Sequence[str]
) -> tuple[Saving, ...]:
    """Every result of a group against the one that differs from it in the baseline's axes alone.

    A result without such a partner, or with more than one, has no saving. The p-values of each
    metric are adjusted over the savings of the group.
    """
    if not study.baseline:
        return ()
    swept = _swept(study)
    partners: dict[str, list[Result]] = {}
    for result in group.results:
        if _is_baseline(result, study):
            partners.setdefault(_rest(result, swept), []).append(result)
    by_id: dict[str, list[Record]] = {}
    for record in settled(records):
        by_id.setdefault(record.id, []).append(record)
    found = []
    for result in group.results:
        against = partners.get(_rest(result, swept), [])
        if len(against) != 1 or _is_baseline(result, study):
            continue
        baseline = against[0]
        changes = {}
        for metric in metrics:
            ours = launched(result, by_id.get(result.id, ()), metric)
            theirs = launched(baseline, by_id.get(baseline.id, ()), metric)
            if (made := change(ours, theirs, _gain(metric, result))) is not None:
                changes[metric] = made
        found.append(Saving(result=result, baseline=baseline, changes=changes))
    return _adjusted(found, metrics)


def _adjusted(found: Sequence[Saving], metrics: Sequence[str]) -> tuple[Saving, ...]:
    made: list[dict[str, Change]] = [{} for _ in found]
    for metric in metrics:
        having = [place for place, each in enumerate(found) if metric in each.changes]
        changes = adjusted([found[place].changes[metric] for place in having])
        for place, each in zip(having, changes, strict=True):
            made[place][metric] = each
    return tuple(replace(each, changes=new) for each, new in zip(found, made, strict=True))


def launched(result: Result, records: Iterable[Record], metric: str) -> dict[Lease, list[Launched]]:
    """What the records that a result was pooled from say of a metric, by lease."""
    found: dict[Lease, list[Launched]] = {}
    for record in records:
        value = record.metrics.get(metric)
        if (
            value is None
            or not math.isfinite(value)
            or (record.id, record.stage) != (result.id, result.stage)
            or record.status not in {"ok", "energy_invalid"}
            or (is_energy(metric) and record.status == "energy_invalid")
            or (record.energy is not None and _origin(record) != _origin(result))
        ):
            continue
        lease = (record.trial_id, record.attempt)
        found.setdefault(lease, []).append(Launched(value, boards(record)))
    return found


def boards(record: Record) -> frozenset[str]:
    """The UUIDs of the GPUs that a launch ran on; none where the record does not say."""
    devices = record.environment.get("devices") or {}
    return frozenset(str(gpu["uuid"]) for gpu in devices.get("gpus") or () if gpu.get("uuid"))


def _gain(metric: str, result: Result) -> float | None:
    """The gain error that a metric of a result has in it."""
    return result.energy.systematic if result.energy and is_energy(metric) else None


def _swept(study: Study) -> frozenset[str]:
    """The keys that move with a key of the baseline, itself included."""
    return frozenset(
        key
        for axis in study.axes
        if any(key in choice for choice in axis.choices for key in study.baseline)
        for choice in axis.choices
        for key in choice
    ) | frozenset(study.baseline)


def _is_baseline(result: Result, study: Study) -> bool:
    return all(
        result.config.get(key, result.chosen.get(key)) == value
        for key, value in study.baseline.items()
    )


def _rest(result: Result, swept: frozenset[str]) -> str:
    """The choices that a comparison keeps equal, as text."""
    return canonical({key: value for key, value in result.chosen.items() if key not in swept})


def _origin(of: Record | Result) -> str:
    energy = of.energy
    if energy is None:
        return ""
    return canonical([energy.measured, energy.source, energy.method, energy.scope])
