"""A search that says what it asks for, to whoever shows the progress."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sweeper.results.record import Record
from sweeper.search import Search
from sweeper.spec import BudgetSpec, Trial

Say = Callable[[Sequence[Trial]], None]
"""`say(asked)`: these are to be done too, and what the search will ask for may have changed."""


class Announced:
    """Another search, announced."""

    def __init__(self, search: Search, say: Say) -> None:
        self._search = search
        self._say = say

    @property
    def finished(self) -> bool:
        return self._search.finished

    def ask(self, idle: int, under_way: int) -> Sequence[Trial]:
        asked = self._search.ask(idle, under_way)
        self._say(asked)
        return asked

    def tell(self, record: Record) -> None:
        self._search.tell(record)

    def ended(self, trial: Trial, lease: Mapping[str, Any]) -> None:
        self._search.ended(trial, lease)
        self._say(())


def budget_words(budget: BudgetSpec) -> str | None:
    """Where a search stops, in words; `None` where nothing but its points ends it."""
    said = [
        f"{value:g} {unit}"
        for value, unit in (
            (budget.launches, "launches"),
            (budget.gpu_hours, "GPU-hours"),
            (budget.joules, "J"),
            (budget.wall_s, "s"),
        )
        if value is not None
    ]
    return " or ".join(said) or None
