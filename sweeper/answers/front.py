"""Dominance, fronts and knees of results (pure).

Dominance compares means over launches. Results whose intervals overlap in every objective are
ties: which of them is better was not found out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sweeper.answers.results import Provenance, Result, canonical, order
from sweeper.spec import Direction, Values

Objectives = Mapping[str, Direction]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Results that may be compared: one condition, convention, and origin of joules."""

    condition: Values
    convention: str
    provenance: Provenance
    source: str | None
    scope: str | None
    results: tuple[Result, ...]


def costs(result: Result, objectives: Objectives) -> tuple[float, ...] | None:
    """The objectives as numbers to be minimised, or `None` where one of them is not known."""
    found = []
    for metric, direction in objectives.items():
        value = result.value(metric)
        if value is None:
            return None
        found.append(value if direction == "min" else -value)
    return tuple(found)


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether costs are nowhere above the other's and somewhere below."""
    pairs = list(zip(one, other, strict=True))
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


def front(results: Iterable[Result], objectives: Objectives) -> tuple[Result, ...]:
    """The results that no other dominates, by the first objective, then the next, then id.

    A result without one of the objectives' metrics is not among them. The caller sees to it that
    the results may be compared: `comparable`.
    """
    known = [
        (cost, result) for result in results if (cost := costs(result, objectives)) is not None
    ]
    best = [
        (cost, result)
        for cost, result in known
        if not any(dominates(other, cost) for other, _ in known)
    ]
    return tuple(result for _, result in sorted(best, key=lambda pair: (pair[0], pair[1].id)))


def ties(
    front: Iterable[Result], results: Iterable[Result], objectives: Objectives
) -> tuple[tuple[Result, ...], ...]:
    """For each result of a front those, on it or not, that tie with it in every objective."""
    known = [result for result in results if costs(result, objectives) is not None]
    return tuple(
        tuple(
            other
            for other in known
            if other is not result and all(overlap(result, other, each) for each in objectives)
        )
        for result in front
    )


def overlap(one: Result, other: Result, metric: str) -> bool:
    """Whether two intervals share a value; where one launch gives none, its value stands in."""
    low, high = _extent(one, metric)
    other_low, other_high = _extent(other, metric)
    return low <= other_high and other_low <= high


def _extent(result: Result, metric: str) -> tuple[float, float]:
    value = result.metrics[metric]
    return result.interval(metric) or (value, value)


def comparable(results: Iterable[Result]) -> tuple[Group, ...]:
    """Results parted so that each part may share a front.

    Conditions, conventions, scopes and meters are kept apart, and so are measurements, estimates
    and simulations. Results whose joules are unknown stay with the first part of their condition
    and convention, on whose energy front they cannot be.
    """
    alike: dict[tuple[str, str, bool], list[Result]] = {}
    for result in results:
        key = (canonical(result.condition), result.convention, result.simulated)
        alike.setdefault(key, []).append(result)
    groups = [group for members in alike.values() for group in _by_origin(members)]
    return tuple(
        sorted(
            groups,
            key=lambda group: (
                order(group.condition),
                group.convention,
                group.provenance != "measured",
            ),
        )
    )


def knee(front: Sequence[Result], objectives: Objectives) -> Result | None:
    """The result of a two-objective front that lies furthest below the chord of its two ends.

    Distances are taken on logarithmic axes, so that they compare ratios and no unit matters; the
    place of the maximum does not depend on how the axes are scaled. `None` with fewer than three
    different results, with values that have no logarithm, or where nothing lies below the chord.
    """
    logs = [place for result in front if (place := _logs(result, objectives)) is not None]
    if len(objectives) != 2 or len(front) < 3 or len(logs) < len(front):
        return None
    (left, top), (right, bottom) = min(logs), max(logs)
    width, height = right - left, top - bottom
    below = [(top - y) * width - (x - left) * height for x, y in logs]
    furthest = max(range(len(logs)), key=below.__getitem__)
    return front[furthest] if below[furthest] > _ROUNDING * width * height else None


_ROUNDING = 1e-9
"""Of logarithms: three results on one straight line have no knee."""


def _logs(result: Result, objectives: Objectives) -> tuple[float, ...] | None:
    """Logarithms of the objectives, to be minimised."""
    found = []
    for metric, direction in objectives.items():
        value = result.value(metric)
        if value is None or value <= 0:
            return None
        found.append(math.log(value) if direction == "min" else -math.log(value))
    return tuple(found)


def _by_origin(results: Sequence[Result]) -> list[Group]:
    parts: dict[tuple[Provenance, str | None, str | None], list[Result]] = {}
    known = [result for result in results if result.energy is not None]
    for result in known or results:
        energy = result.energy
        origin = (
            result.provenance,
            energy.source if energy else None,
            energy.scope if energy else None,
        )
        parts.setdefault(origin, []).append(result)
    if known:
        next(iter(parts.values())).extend(each for each in results if each.energy is None)
    return [
        Group(
            condition=members[0].condition,
            convention=members[0].convention,
            provenance=provenance,
            source=source,
            scope=scope,
            results=tuple(members),
        )
        for (provenance, source, scope), members in parts.items()
    ]
