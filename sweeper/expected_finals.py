"""The blocks that a study will end in, before anything of it is measured (pure).

Who the finalists are is measured; what they cost is reckoned with those that the roofline expects.
"""

from collections.abc import Mapping, Sequence

from sweeper.answers.best import target_of
from sweeper.answers.criteria import Limit, study_limits
from sweeper.blocks import blocks, comparisons
from sweeper.plan import Cost, holds
from sweeper.roofline import Estimate
from sweeper.spec import Point, Study, Trial

LATENCIES = {
    "ttft": "prefill_s",
    "tpot": "decode_step_s",
    "itl": "decode_step_s",
    "latency": "latency_s",
}
"""What the roofline says of each latency; it knows no percentiles."""


def expected_blocks(
    study: Study, points: Sequence[Point], estimates: Mapping[str, Estimate], cost: Cost
) -> tuple[Trial, ...]:
    """Blocks of the points that are expected to be the finalists of each condition.

    `estimates` are of points by id; without one a point comes after those that have one.
    """
    return tuple(
        block
        for group in comparisons(points)
        for block in blocks(study, _finalists(study, group, estimates), cost)
    )


def _finalists(
    study: Study, points: Sequence[Point], estimates: Mapping[str, Estimate]
) -> list[Point]:
    limits = study_limits(study)
    target = target_of(study.objectives, limits)
    sign = 1 if study.objectives[target] == "min" else -1

    def rank(point: Point) -> tuple[bool, float]:
        found = estimates.get(point.id)
        value = None if found is None else _expected(found, target)
        return value is None, sign * (value or 0.0)

    within = [
        point
        for point in points
        if point.id not in estimates or all(_within(estimates[point.id], limit) for limit in limits)
    ]
    best = sorted(within, key=rank)[: study.settings.measure.finalists.count]
    return list({each.id: each for each in (*best, *_against(study, best, points))}.values())


def _within(found: Estimate, limit: Limit) -> bool:
    value = _expected(found, limit.metric)
    return value is None or (value <= limit.bound if limit.upper else value >= limit.bound)


def _expected(found: Estimate, metric: str) -> float | None:
    name = LATENCIES.get(metric.partition("_")[0], metric)
    value: float | None = getattr(found, name, None)
    return value


def _against(study: Study, best: Sequence[Point], points: Sequence[Point]) -> list[Point]:
    """What the savings of the best are stated against: all other axes equal."""
    if not study.baseline:
        return []
    swept = {
        key
        for axis in study.axes
        if any(key in choice for choice in axis.choices for key in study.baseline)
        for choice in axis.choices
        for key in choice
    }

    def rest(point: Point) -> dict[str, object]:
        return {key: value for key, value in point.chosen.items() if key not in swept}

    base = [point for point in points if holds(study.baseline, point.settings)]
    return [other for each in best for other in base if rest(other) == rest(each)]
