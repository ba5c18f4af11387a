"""The best of each condition so far, without pooling every record anew for every record."""

from collections.abc import Iterable
from dataclasses import replace

from sweeper.answers.best import candidates, choose, target_of
from sweeper.answers.criteria import study_limits
from sweeper.answers.front import comparable
from sweeper.answers.results import Result, canonical, results
from sweeper.answers.table import brief
from sweeper.progress.snapshot import Best
from sweeper.results.record import Record
from sweeper.spec import Study, Values

FEW = 64
"""So many points are ranked at every record, in milliseconds."""
PERIOD_S = 1.0
"""More of them at most this often."""


class BestSoFar:
    """Pools a point when it has a new record, and ranks all points when somebody asks."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._limits = study_limits(study)
        self._target = target_of(study.objectives, self._limits)
        self._records: dict[str, list[Record]] = {}
        self._results: dict[str, tuple[Result, ...]] = {}
        self._stale: set[str] = set()
        self._found: dict[str, Best] = {}
        self._ranked_s: float | None = None

    def add(self, records: Iterable[Record]) -> None:
        """Take records; their windows are not kept."""
        for record in records:
            self._records.setdefault(record.id, []).append(replace(record, windows=()))
            self._stale.add(record.id)

    def of(self, condition: Values) -> Best | None:
        """The best of one condition when `now` was last asked for all."""
        return self._found.get(canonical(condition))

    def now(self, now_s: float) -> tuple[Best, ...]:
        """The best of each condition that has one, at most `PERIOD_S` old."""
        if self._stale and (
            self._ranked_s is None
            or len(self._records) <= FEW
            or now_s - self._ranked_s >= PERIOD_S
        ):
            self._ranked_s = now_s
            for point in self._stale:
                self._results[point] = results(self._records[point])
            self._stale.clear()
            self._found = self._rank()
        return tuple(self._found.values())

    def _rank(self) -> dict[str, Best]:
        target = {self._target: self._study.objectives[self._target]}
        found: dict[str, Best] = {}
        for group in comparable(each for pooled in self._results.values() for each in pooled):
            *_, allowed = candidates(group, self._study, self._limits, target)
            choice = choose(allowed, target)
            if choice is not None:
                best = choice.best
                origin = None if group.provenance == "measured" else group.provenance
                found.setdefault(
                    canonical(group.condition),
                    Best(
                        condition=brief(group.condition),
                        chosen=brief(best.chosen),
                        id=best.id,
                        metric=self._target,
                        value=best.value(self._target),
                        origin=origin,
                    ),
                )
        return found
