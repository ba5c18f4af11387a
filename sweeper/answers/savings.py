"""What each result saves against the baseline, all other axes equal (pure).

The ratio of two means has its interval on the scale of logarithms, from the relative deviations of
the launches (the delta method): paired where both sides come from the same leases, and thus from
the same GPUs, else by Welch's approximation (Biometrika 34, 1947), which carries the variance
between boards. One launch on either side gives a ratio and no interval.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeper.answers.front import Group
from sweeper.answers.interval import CONFIDENCE, t_quantile
from sweeper.answers.results import Result, canonical, settled
from sweeper.results.metrics import is_energy
from sweeper.results.record import Record
from sweeper.spec import Study

Lease = tuple[str, int]
"""A trial and its attempt: what was measured in one is of the same GPUs."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A metric as a ratio to the baseline's; `low` and `high` are `None` without an interval.

    `launches` are those of the result and of the baseline.
    """

    ratio: float
    low: float | None
    high: float | None
    paired: bool
    launches: tuple[int, int]

    @property
    def percent(self) -> float:
        """The change in percent of the baseline; a saving is negative."""
        return 100 * (self.ratio - 1)


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

    A result without such a partner, or with more than one, has no saving.
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
            ours = values(result, by_id.get(result.id, ()), metric)
            theirs = values(baseline, by_id.get(baseline.id, ()), metric)
            if (made := change(ours, theirs)) is not None:
                changes[metric] = made
        found.append(Saving(result=result, baseline=baseline, changes=changes))
    return tuple(found)


def values(result: Result, records: Iterable[Record], metric: str) -> dict[Lease, list[float]]:
    """What the records that a result was pooled from say of a metric, by lease."""
    found: dict[Lease, list[float]] = {}
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
        found.setdefault((record.trial_id, record.attempt), []).append(value)
    return found


def change(
    ours: Mapping[Lease, Sequence[float]], theirs: Mapping[Lease, Sequence[float]]
) -> Change | None:
    """The ratio of two means and its 95 % interval; `None` unless all values are positive."""
    one = [value for each in ours.values() for value in each]
    other = [value for each in theirs.values() for value in each]
    if not one or not other or min(*one, *other) <= 0:
        return None
    once = all(len(each) == 1 for each in (*ours.values(), *theirs.values()))
    paired = once and ours.keys() == theirs.keys()
    if paired:
        spread = _paired([ours[lease][0] for lease in ours], [theirs[lease][0] for lease in ours])
    else:
        spread = _unpaired(one, other)
    ratio = _mean(one) / _mean(other)
    return Change(
        ratio=ratio,
        low=None if spread is None else ratio * math.exp(-spread),
        high=None if spread is None else ratio * math.exp(spread),
        paired=paired,
        launches=(len(one), len(other)),
    )


def _paired(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Half the interval of the logarithm of a ratio of paired means."""
    count = len(one)
    if count < 2:
        return None
    mean, mean_other = _mean(one), _mean(other)
    apart = [a / mean - b / mean_other for a, b in zip(one, other, strict=True)]
    variance = math.fsum(each**2 for each in apart) / (count - 1)
    return _t(count - 1) * math.sqrt(variance / count)


def _unpaired(one: Sequence[float], other: Sequence[float]) -> float | None:
    """The same of independent means."""
    if min(len(one), len(other)) < 2:
        return None
    parts = [_relative_variance(each) for each in (one, other)]
    total = math.fsum(parts)
    if total == 0:
        return 0.0
    below = sum(part**2 / (len(each) - 1) for part, each in zip(parts, (one, other), strict=True))
    # Rounded down, which makes the interval wider: the quantile is of whole degrees of freedom.
    freedom = max(1, math.floor(total**2 / below * (1 + _ROUNDING)))
    return _t(freedom) * math.sqrt(total)


_ROUNDING = 1e-9
"""A whole number of degrees of freedom must not be lost to the last bit."""


def _relative_variance(values: Sequence[float]) -> float:
    """Of the mean, over the square of the mean."""
    count, mean = len(values), _mean(values)
    return math.fsum((each / mean - 1) ** 2 for each in values) / (count - 1) / count


def _t(freedom: int) -> float:
    return t_quantile((1 + CONFIDENCE) / 2, freedom)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


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
