"""Which results are launched again, in blocks, before one of them is named (pure)."""

from collections.abc import Iterable, Sequence

from sweeper.answers.best import candidates, target_of
from sweeper.answers.criteria import Limit, study_limits
from sweeper.answers.front import Group, comparable, costs
from sweeper.answers.results import Result, canonical, results, settled
from sweeper.answers.savings import savings
from sweeper.results.record import Record
from sweeper.spec import Study


def finalists(records: Iterable[Record], study: Study) -> tuple[tuple[str, ...], ...]:
    """The ids to compare, for each condition and convention that has any, the best first.

    They are the study's `count` best by the objective that best is chosen by, among those within
    the limits by value, as intervals are what the blocks are for. After them come the results that
    their savings are stated against. Records of earlier blocks have no say: finalists stay the
    same while blocks are measured.
    """
    screened = settled(record for record in records if record.stage != "final")
    found: dict[str, list[str]] = {}
    for group in comparable(results(screened)):
        chosen = _of_group(group, study)
        if chosen:
            key = canonical([dict(group.condition), group.convention])
            found.setdefault(key, []).extend(each.id for each in chosen)
    return tuple(tuple(dict.fromkeys(ids)) for ids in found.values())


def _of_group(group: Group, study: Study) -> list[Result]:
    limits = study_limits(study)
    target = target_of(study.objectives, limits)
    direction = {target: study.objectives[target]}
    _, known, allowed = candidates(group, study, (), direction)
    within = [each for each in allowed or known if _within(each, limits)]
    ranked = sorted(within, key=lambda each: (costs(each, direction), each.gpus, each.id))
    best = ranked[: study.settings.measure.finalists.count]
    against = {each.result.id: each.baseline for each in savings(group, study, (), ())}
    partners = [against[each.id] for each in best if each.id in against]
    return [*best, *partners]


def _within(result: Result, limits: Sequence[Limit]) -> bool:
    """Whether a result meets every limit by its mean."""
    for limit in limits:
        value = result.value(limit.metric)
        if value is None or limit.metric in result.undersampled:
            return False
        if (value > limit.bound) if limit.upper else (value < limit.bound):
            return False
    return True
