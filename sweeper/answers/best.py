"""What to recommend for a condition, and why (pure)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeper.answers.criteria import Limit, Verdict, judge, meets, study_limits
from sweeper.answers.front import Group, Objectives, comparable, costs, front, knee, overlap, ties
from sweeper.answers.quality import quality_fault
from sweeper.answers.results import Result, canonical, order, results, settled
from sweeper.answers.savings import Saving, savings
from sweeper.answers.units import CAVEAT, digits, quantity
from sweeper.results.metrics import is_energy
from sweeper.results.record import Record
from sweeper.spec import Study


@dataclass(frozen=True, kw_only=True)
class Miss:
    """The result that comes nearest to being recommended, and what keeps it from it."""

    result: Result
    worst: Verdict | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The front of one group of comparable results, and the one to take.

    `ties` are the results whose interval overlaps that of the lowest, without `best` itself;
    `front_ties`, for each result of the front, those that overlap with it in every objective.
    `savings` are against the study's baseline, in each objective.
    """

    group: Group
    objectives: Objectives
    limits: tuple[Limit, ...]
    front: tuple[Result, ...]
    front_ties: tuple[tuple[Result, ...], ...]
    knee: Result | None
    best: Result | None
    ties: tuple[Result, ...]
    why: str
    nearest_miss: Miss | None
    savings: tuple[Saving, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The winner among allowed results, its ties, and how many were to choose from."""

    best: Result
    ties: tuple[Result, ...]
    among: int


def answers(
    records: Iterable[Record],
    study: Study,
    *,
    objectives: Objectives | None = None,
    where: Sequence[Limit] = (),
) -> tuple[Answer, ...]:
    """One answer for each group of comparable results; also for a condition without any result.

    `objectives` stand in for the study's. `where` bounds both the front and the best, which has to
    meet the study's own limits as well.
    """
    verdicts = settled(records)
    groups = comparable(results(verdicts))
    answered = {canonical(group.condition) for group in groups}
    empty = {canonical(record.condition): record for record in verdicts}
    nothing = (
        Group(
            condition=record.condition,
            convention=record.convention,
            provenance="measured",
            source=None,
            scope=None,
            results=(),
        )
        for key, record in empty.items()
        if key not in answered
    )
    groups += tuple(sorted(nothing, key=lambda group: order(group.condition)))
    aims = study.objectives if objectives is None else objectives
    return tuple(
        answer(group, study, aims, where, savings(group, study, verdicts, list(aims)))
        for group in groups
    )


def answer(
    group: Group,
    study: Study,
    objectives: Objectives,
    where: Sequence[Limit] = (),
    saved: tuple[Saving, ...] = (),
) -> Answer:
    """The front and the best of one group."""
    limits = study_limits(study, where)
    within = [each for each in group.results if meets(each, where)]
    shown = front(within, objectives)
    # Objectives that stand in for the study's were asked for: the first of them decides.
    given = list(objectives) != list(study.objectives)
    target = next(iter(objectives)) if given else target_of(objectives, limits)
    direction = {target: objectives[target]}
    known, meeting, allowed = candidates(group, study, limits, direction)
    choice = choose(allowed, direction)
    turn = knee(shown, objectives)
    miss = None
    if choice is not None:
        why = _why(choice, target, objectives, limits, group)
        if len(meeting) > len(allowed):
            word = "unchecked" if study.quality is None else "too low or not known"
            why += f"; {len(meeting) - len(allowed)} more are quality: {word}"
    else:
        miss = nearest_miss(meeting, known, limits, study, direction)
        why = _why_not(miss, meeting, known, group, target)
    if turn is not None and not limits:
        why += f"; the knee of the front is {turn.id}"
    return Answer(
        group=group,
        objectives=objectives,
        limits=limits,
        front=shown,
        front_ties=ties(shown, within, objectives),
        knee=turn,
        best=choice.best if choice else None,
        ties=choice.ties if choice else (),
        why=why,
        nearest_miss=miss,
        savings=saved,
    )


def candidates(
    group: Group, study: Study, limits: Sequence[Limit], target: Objectives
) -> tuple[list[Result], list[Result], list[Result]]:
    """The results that have the target, those of them within the limits, and the allowed ones."""
    known = [each for each in group.results if costs(each, target) is not None]
    meeting = [each for each in known if meets(each, limits)]
    allowed = [each for each in meeting if quality_fault(study, each) is None]
    return known, meeting, allowed


def choose(allowed: Sequence[Result], target: Objectives) -> Choice | None:
    """The fewest GPUs among the result with the least cost and those that tie with it."""
    if not allowed:
        return None
    metric = next(iter(target))
    ranked = sorted(allowed, key=lambda each: (costs(each, target), each.gpus, each.id))
    tied = [each for each in ranked if overlap(each, ranked[0], metric)]
    best = min(tied, key=lambda each: each.gpus)
    return Choice(
        best=best, ties=tuple(each for each in tied if each is not best), among=len(allowed)
    )


def nearest_miss(
    meeting: Sequence[Result],
    known: Sequence[Result],
    limits: Sequence[Limit],
    study: Study,
    target: Objectives,
) -> Miss | None:
    """What comes nearest, where nothing may be recommended.

    A result that meets the limits and was only not checked for quality comes first; else the one
    whose worst relative excess over a limit is the least. Missing or undersampled metrics are
    further away than any excess.
    """
    if meeting:
        least = min(meeting, key=lambda each: (costs(each, target), each.id))
        reason = f"meets the limits, but {quality_fault(study, least)}"
        if study.quality is None:
            reason += "; quality: unchecked_ok in the study allows it"
        return Miss(result=least, worst=None, reason=reason)
    misses = [(_worst(each, limits), each) for each in known if limits]
    if not misses:
        return None
    verdict, nearest = min(
        misses, key=lambda pair: (*_distance(pair[0]), costs(pair[1], target), pair[1].id)
    )
    return Miss(result=nearest, worst=verdict, reason=_fault(verdict))


def target_of(objectives: Objectives, limits: Sequence[Limit]) -> str:
    """The objective that best is chosen by: the first, or without limits the first of energy."""
    if not limits:
        for metric in objectives:
            if is_energy(metric):
                return metric
    return next(iter(objectives))


def _worst(result: Result, limits: Sequence[Limit]) -> Verdict:
    return max((judge(result, limit) for limit in limits), key=_distance)


def _distance(verdict: Verdict) -> tuple[int, float]:
    unmet = ("value", "interval", "undersampled", "missing").index(verdict.basis)
    return (max(unmet, 1), verdict.excess or 0.0)


def _fault(verdict: Verdict) -> str:
    limit = verdict.limit
    if verdict.value is None or verdict.excess is None:
        return f"{limit.metric} is not known; asked is {limit}"
    value = quantity(verdict.value, limit.metric)
    if verdict.basis == "undersampled":
        return f"{limit.metric} of {value} has too few samples to be held against {limit}"
    what = "the end of the interval" if verdict.basis == "interval" else "the value"
    side = "above" if limit.upper else "below"
    share = digits(100 * verdict.excess, significant=2)
    return f"{limit.metric}: {what}, {value}, is {share} % {side} the limit ({limit})"


def _why(
    choice: Choice,
    target: str,
    objectives: Objectives,
    limits: Sequence[Limit],
    group: Group,
) -> str:
    best = choice.best
    extreme = "least" if objectives[target] == "min" else "most"
    caveat = f" ({CAVEAT[best.provenance]})" if CAVEAT[best.provenance] else ""
    value = quantity(best.metrics[target], target)
    if choice.ties:
        head = (
            f"tied for the {extreme} {target} with {', '.join(each.id for each in choice.ties)} "
            f"(intervals overlap), at {value}{caveat}; of these on the fewest GPUs ({best.gpus})"
        )
    else:
        head = f"{extreme} {target}, {value}{caveat}"
    if not limits:
        return f"{head}, of {choice.among} results; no limits are set"
    by_value = any(judge(best, limit).basis == "value" for limit in limits)
    basis = "by value: one launch gives no interval" if by_value else "with their whole interval"
    asked = " and ".join(str(limit) for limit in limits)
    of = f"{choice.among} of {len(group.results)}"
    return f"{head}, among the {of} results that meet {asked} ({basis})"


def _why_not(
    miss: Miss | None,
    meeting: Sequence[Result],
    known: Sequence[Result],
    group: Group,
    target: str,
) -> str:
    if not group.results:
        return "nothing was measured: no point of this condition has a result"
    if not known or miss is None:
        return f"none of {len(group.results)} results has {target}"
    what = "nothing is recommended" if meeting else "nothing meets the limits"
    return f"{what}; nearest is {miss.result.id}: {miss.reason}"
