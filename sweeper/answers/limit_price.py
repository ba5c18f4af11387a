"""What a limit costs: the recommendation as one limit moves and the others stay (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass

from sweeper.answers.best import Answer, choose, target_of
from sweeper.answers.criteria import Limit, judge, meets
from sweeper.answers.quality import quality_fault
from sweeper.answers.results import Result
from sweeper.spec import Study


@dataclass(frozen=True, kw_only=True)
class Step:
    """From this bound on, `best` is recommended, at `value` of the target metric."""

    bound: float
    best: Result
    value: float


@dataclass(frozen=True, kw_only=True)
class LimitPrice:
    """The recommendations that a limit passes through, from where it binds most.

    `now` is the step that the limit stands on; `None` where nothing meets it.
    """

    limit: Limit
    target: str
    steps: tuple[Step, ...]
    now: int | None

    @property
    def relaxed(self) -> tuple[Step, ...]:
        """The steps that a looser limit would reach."""
        return self.steps[0 if self.now is None else self.now + 1 :]


def limit_prices(answer: Answer, study: Study) -> tuple[LimitPrice, ...]:
    """The price of each limit of an answer."""
    target = target_of(answer.objectives, answer.limits)
    pool = [
        result
        for result in answer.group.results
        if result.value(target) is not None and quality_fault(study, result) is None
    ]
    return tuple(_price(limit, answer, pool, target) for limit in answer.limits)


def _price(limit: Limit, answer: Answer, pool: Sequence[Result], target: str) -> LimitPrice:
    others = [each for each in answer.limits if each is not limit]
    direction = {target: answer.objectives[target]}
    needs: dict[float, list[Result]] = {}
    for result in pool:
        verdict = judge(result, limit)
        sampled = verdict.basis in {"value", "interval"}
        if verdict.value is not None and sampled and meets(result, others):
            needs.setdefault(verdict.value, []).append(result)
    steps: list[Step] = []
    admitted: list[Result] = []
    for bound in sorted(needs, reverse=not limit.upper):
        admitted += needs[bound]
        choice = choose(admitted, direction)
        if choice is not None and (not steps or choice.best is not steps[-1].best):
            value = choice.best.metrics[target]
            steps.append(Step(bound=bound, best=choice.best, value=value))
    reached = [
        index
        for index, step in enumerate(steps)
        if (step.bound <= limit.bound if limit.upper else step.bound >= limit.bound)
    ]
    return LimitPrice(
        limit=limit, target=target, steps=tuple(steps), now=reached[-1] if reached else None
    )
