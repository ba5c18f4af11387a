"""Another search, and after it the finalists of every condition, launched again in blocks."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeper.answers.finalists import finalists
from sweeper.blocks import blocks, left
from sweeper.plan import NOMINAL, Cost, expand, largest_first
from sweeper.results.contents import Contents
from sweeper.results.record import Record
from sweeper.spec import Study, Trial

if TYPE_CHECKING:
    from sweeper.search import Circumstances, Search


class Finals:
    """Blocks begin when the other search has ended and nothing that it asked for is under way.

    They are no part of its budget: a winner is not named because money was left.
    """

    def __init__(self, search: "Search", study: Study, around: "Circumstances") -> None:
        self._search = search
        self._study = study
        self._before = around.before
        self._cost = around.cost
        self._records = list(around.before.accepted().values())
        self._left: tuple[Trial, ...] | None = None
        if search.finished:
            self._choose()

    @property
    def finished(self) -> bool:
        return self._search.finished and self._left == ()

    @property
    def searching(self) -> bool:
        """Whether the other search may ask for more."""
        return not self._search.finished

    @property
    def chosen(self) -> bool:
        """Whether the finalists are known."""
        return self._left is not None

    def ask(self, idle: int, under_way: int) -> Sequence[Trial]:
        if not self._search.finished:
            asked = self._search.ask(idle, under_way)
            if asked or not self._search.finished:
                return asked
        if self._left is None:
            if under_way:
                return ()
            self._choose()
        asked, self._left = self._left or (), ()
        return asked

    def tell(self, record: Record) -> None:
        if record.stage != "final":
            self._records.append(record)
            self._search.tell(record)

    def ended(self, trial: Trial, lease: Mapping[str, Any]) -> None:
        if not trial.block:
            self._search.ended(trial, lease)

    def _choose(self) -> None:
        before = Contents(records=tuple(self._records))
        accepted = self._before.accepted()
        made = chosen_blocks(self._study, before, self._cost)
        self._left = largest_first(left(made, accepted))


def chosen_blocks(study: Study, contents: Contents, cost: Cost = NOMINAL) -> tuple[Trial, ...]:
    """The blocks of the finalists that a journal names, measured or not."""
    if not study.settings.measure.finalists.blocks:
        return ()
    points = {point.id: point for point in expand(study)[0]}
    compared = finalists(contents.standing(), study)
    return tuple(
        block
        for ids in compared
        for block in blocks(study, [points[name] for name in ids if name in points], cost)
    )
