"""Optuna's tree-structured Parzen estimator as a chooser, through its ask and tell.

The sampler is named, as Optuna's default has changed with its versions. Axes whose values are
numbers are told as ordered places, the others as unordered ones, so that nothing rests on units.
"""

import random
import warnings
from collections.abc import Collection, Mapping, Sequence

import optuna

from sweeper.search.chooser import Outcome
from sweeper.spec import Axis, Point

TRIES = 4
"""Suggestions that may not be chosen, as they were before, till the nearest that may be is."""
STARTUP = 10
"""Points chosen at random before the model is asked (Optuna's own default)."""

Places = Mapping[str, int]
"""By an axis's label, the place of a value in its order."""


class Tpe:
    """Learns which values of the axes go with low costs, limits as constraints.

    A point that is under way counts as bad until its outcome is told (Optuna's constant liar), so
    that points chosen together are not alike.
    """

    def __init__(
        self, axes: Sequence[Axis], points: Sequence[Point], objectives: int, seed: int
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with warnings.catch_warnings():
            # Some of these arguments are called experimental; the version is pinned.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(
                n_startup_trials=STARTUP, multivariate=True, constant_liar=True, seed=seed
            )
        self._study = optuna.create_study(directions=["minimize"] * objectives, sampler=sampler)
        self._axes = {axis.label: _ordered(axis) for axis in axes if len(axis.choices) > 1}
        self._distributions = {
            axis.label: _distribution(axis) for axis in axes if axis.label in self._axes
        }
        self._of_point = [self._places(point) for point in points]
        self._at = {tuple(places.items()): place for place, places in enumerate(self._of_point)}
        self._asked: dict[int, optuna.trial.Trial] = {}
        self._random = random.Random(seed)
        self._worst: list[float] | None = None

    def choose(self, among: Collection[int]) -> int:
        allowed = set(among)
        alike = self._alike(allowed)
        suggested: dict[str, int] = {}
        for _ in range(TRIES):
            if alike:
                self._study.enqueue_trial(alike)
            trial = self._study.ask(self._distributions)
            suggested = {name: trial.params[name] for name in self._axes}
            found = self._at.get(tuple(suggested.items()))
            if found in allowed:
                self._asked[found] = trial
                return found
            # Failed trials are no part of the model.
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
        nearest = self._nearest(suggested, allowed)
        self._asked[nearest] = self._ask(nearest)
        return nearest

    def learn(self, place: int, outcome: Outcome | None) -> None:
        trial = self._asked.pop(place, None) or self._ask(place)
        if outcome is None:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        values = outcome.costs
        if values is None and self._worst is None:
            # Nothing to compare it with yet: the model starts without it.
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return
        for number, violation in enumerate(outcome.violations):
            trial.set_constraint(f"limit_{number}", violation)
        missing = values is None or not outcome.feasible
        trial.set_constraint("feasible", 1.0 if missing else 0.0)
        if values is None:
            self._study.tell(trial, self._worst)
            return
        self._worst = [max(pair) for pair in zip(self._worst or values, values, strict=True)]
        self._study.tell(trial, list(values))

    def _ask(self, place: int) -> optuna.trial.Trial:
        self._study.enqueue_trial(dict(self._of_point[place]))
        return self._study.ask(self._distributions)

    def _alike(self, allowed: Collection[int]) -> dict[str, int]:
        """What all allowed points have in common, which the model need not be asked for."""
        each = [self._of_point[place] for place in allowed]
        return {
            name: each[0][name]
            for name in self._axes
            if all(places[name] == each[0][name] for places in each)
        }

    def _nearest(self, suggested: Places, allowed: Collection[int]) -> int:
        """The allowed point that has most in common with a suggestion; chance between equals.

        On a small grid the model soon suggests what was measured; its neighbours are what it
        knows to be good, and a model that is asked again only says the same.
        """

        def distance(place: int) -> float:
            return sum(
                _apart(suggested[name], there, self._distributions[name])
                for name, there in self._of_point[place].items()
            )

        distances = {place: distance(place) for place in sorted(allowed)}
        least = min(distances.values())
        return self._random.choice([place for place, far in distances.items() if far == least])

    def _places(self, point: Point) -> dict[str, int]:
        return {
            label: next(
                place
                for place, choice in enumerate(choices)
                if all(point.chosen[key] == value for key, value in choice.items())
            )
            for label, choices in self._axes.items()
        }


def _apart(one: int, other: int, along: optuna.distributions.BaseDistribution) -> float:
    """Between two places of an axis: a part of its length where it has an order, else 0 or 1."""
    if isinstance(along, optuna.distributions.IntDistribution):
        return abs(one - other) / float(along.high - along.low)
    return float(one != other)


def _ordered(axis: Axis) -> list[Mapping[str, object]]:
    """The choices of an axis: by size where they are numbers, else as written."""
    if not _numeric(axis):
        return list(axis.choices)
    return sorted(axis.choices, key=lambda choice: choice[axis.label])


def _numeric(axis: Axis) -> bool:
    return all(
        list(choice) == [axis.label] and type(choice[axis.label]) in (int, float)
        for choice in axis.choices
    )


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    count = len(axis.choices)
    if _numeric(axis):
        return optuna.distributions.IntDistribution(0, count - 1)
    return optuna.distributions.CategoricalDistribution(list(range(count)))
