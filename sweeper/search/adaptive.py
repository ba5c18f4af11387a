"""Searches that choose launches as they go, from what those before came to.

Every condition has a chooser of its own, as it has a front of its own; conditions take turns.
A choice names a configuration, and the launch is then filled: loading is paid for once, so the
other conditions choose a point of that configuration too, and all of them another until loading
is a small part of the launch.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sweeper.answers.criteria import Verdict, judge, study_limits
from sweeper.answers.front import costs
from sweeper.answers.results import canonical, results
from sweeper.plan import by_configuration, expand, min_requests, scorer_of, sizes_of, trial_of
from sweeper.results.contents import Contents
from sweeper.results.record import Record
from sweeper.search.budget import Budget
from sweeper.search.chooser import Chance, Chooser, Outcome
from sweeper.spec import Point, Study, Trial

if TYPE_CHECKING:
    from sweeper.search import Circumstances

LOAD_SHARE = 1 / 3
"""Of a launch that a search fills, at most this part is spent on loading, where points are left."""
UNMET = 1.0
"""The violation of a limit on a metric that is missing or has too few samples: as if twice it."""

Make = Callable[[Study, Sequence[Point], int], Chooser]
"""`make(study, points, seed)`: the chooser of one condition, which has these points."""


def random_search(study: Study, around: "Circumstances") -> "Adaptive":
    """Points in an order of chance, none twice."""
    return Adaptive(study, around, lambda _, __, seed: Chance(seed))


def optuna_search(study: Study, around: "Circumstances") -> "Adaptive":
    """Points that Optuna's TPE expects to be good."""
    from sweeper.search.tpe import Tpe

    return Adaptive(
        study,
        around,
        lambda study, points, seed: Tpe(study.axes, points, len(study.objectives), seed),
    )


class Adaptive:
    """See `sweeper.search.Search`."""

    def __init__(self, study: Study, around: "Circumstances", make: Make) -> None:
        self._study = study
        self._cost = around.cost
        self._budget = Budget.of(study.search.budget, around.before, around.elapsed)
        self._points, _ = expand(study)
        self._place = {point.id: place for place, point in enumerate(self._points)}
        groups = by_configuration(self._points)
        self._sizes = {group[0].configuration: sizes_of(group) for group in groups}
        self._requests = min_requests(study)
        self._scorer = scorer_of(study)
        self._limits = study_limits(study)
        self._records: dict[str, dict[int, Record]] = {}
        self._open = set(range(len(self._points)))
        # A sitting that goes on must not repeat the random numbers of the one before.
        seed = study.search.seed + len(around.before.records)
        self._conditions = _conditions(study, self._points, make, seed)
        self._remember(around.before)
        self._owed = self._half_done()

    @property
    def finished(self) -> bool:
        return self._budget.spent or not (self._open or self._owed)

    def ask(self, idle: int, under_way: int) -> Sequence[Trial]:
        asked: list[Trial] = []
        while sum(trial.gpus for trial in asked) < max(1, idle):
            if not self._owed and self._open:
                points = self._launch()
                launches = self._study.settings.measure.launches
                self._owed += [self._trial(points, number) for number in range(launches)]
            if not self._owed or self._budget.committed:
                break
            trial = self._owed.pop(0)
            self._budget.begin(trial)
            asked.append(trial)
        return asked

    def tell(self, record: Record) -> None:
        place = self._place.get(record.id)
        if place is None:
            return
        self._open.discard(place)
        told = self._records.setdefault(record.id, {})
        told[record.launch] = record
        if len(told) == self._study.settings.measure.launches:
            condition = self._conditions[canonical(self._points[place].condition)]
            condition.chooser.learn(condition.within[place], self._outcome(told.values()))

    def ended(self, trial: Trial, lease: Mapping[str, Any]) -> None:
        self._budget.end(trial, lease)

    def _remember(self, before: Contents) -> None:
        """Learn from earlier sittings, in the order in which they measured.

        A failure is no verdict: its point may be chosen once more.
        """
        for record in before.accepted().values():
            self.tell(record)

    def _half_done(self) -> list[Trial]:
        """What earlier sittings left of points that are to be launched several times."""
        launches = self._study.settings.measure.launches
        begun = [point for point in self._points if point.id in self._records]
        return [
            self._trial(group, number)
            for number in range(launches)
            for group in by_configuration(
                point for point in begun if number not in self._records[point.id]
            )
        ]

    def _launch(self) -> list[Point]:
        """Points of one configuration, at least one."""
        first, *others = sorted(
            (each for each in self._conditions.values() if each.among(self._open)),
            key=lambda condition: condition.turns,
        )
        lead = self._choose(first, first.among(self._open))
        configuration = self._points[lead].configuration
        chosen = [lead]
        turns = itertools.chain(others, itertools.cycle((first, *others)))
        for turn, condition in enumerate(turns):
            left = any(each.among(self._open, configuration) for each in (first, *others))
            if not left or (turn >= len(others) and self._full(chosen)):
                break
            if alike := condition.among(self._open, configuration):
                chosen.append(self._choose(condition, alike))
        return [self._points[place] for place in chosen]

    def _choose(self, condition: "_Condition", among: Collection[int]) -> int:
        within = {condition.within[place]: place for place in among}
        place = within[condition.chooser.choose(within)]
        self._open.discard(place)
        condition.turns += 1
        return place

    def _full(self, chosen: Sequence[int]) -> bool:
        """Whether loading is a small part of a launch of these points."""
        load_s = self._cost.load_s(self._points[chosen[0]].settings)
        work_s = math.fsum(self._cost.point_s(self._points[place].settings) for place in chosen)
        return load_s <= LOAD_SHARE * (load_s + work_s)

    def _trial(self, points: Sequence[Point], number: int) -> Trial:
        sizes = self._sizes[points[0].configuration]
        scorer = self._scorer if number == 0 else None
        return trial_of(points, number, "full", sizes, self._requests, self._cost, scorer)

    def _outcome(self, records: Iterable[Record]) -> Outcome | None:
        verdicts = [record for record in records if record.accepted]
        if not verdicts:
            return None
        found = results(verdicts)
        if not found:
            unmet = tuple(UNMET for _ in self._limits)
            return Outcome(costs=None, violations=unmet, feasible=False)
        return Outcome(
            costs=costs(found[0], self._study.objectives),
            violations=tuple(violation(judge(found[0], limit)) for limit in self._limits),
            feasible=True,
        )


def violation(verdict: Verdict) -> float:
    """How far beyond its limit, as a fraction of it; at least something where it is not met."""
    if verdict.excess is None or verdict.basis == "undersampled":
        return UNMET
    return verdict.excess


@dataclass
class _Condition:
    """One condition's points, by configuration, and who chooses among them."""

    chooser: Chooser
    within: Mapping[int, int]
    by_configuration: Mapping[str, frozenset[int]]
    turns: int = 0

    def among(self, open_places: Collection[int], configuration: str | None = None) -> list[int]:
        """Those of its points that are open, of one configuration or of all, in their order."""
        if configuration is None:
            places: Collection[int] = self.within
        else:
            places = self.by_configuration.get(configuration, frozenset())
        return sorted(place for place in places if place in open_places)


def _conditions(
    study: Study, points: Sequence[Point], make: Make, seed: int
) -> dict[str, _Condition]:
    places: dict[str, list[int]] = {}
    for place, point in enumerate(points):
        places.setdefault(canonical(point.condition), []).append(place)
    found = {}
    for number, (name, own) in enumerate(places.items()):
        configurations: dict[str, list[int]] = {}
        for place in own:
            configurations.setdefault(points[place].configuration, []).append(place)
        found[name] = _Condition(
            chooser=make(study, [points[place] for place in own], seed + number),
            within={place: index for index, place in enumerate(own)},
            by_configuration={key: frozenset(each) for key, each in configurations.items()},
        )
    return found
