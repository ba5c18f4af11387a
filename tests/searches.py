"""A search that names what a test wants launched, all at once."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.results.record import Record
from sweeper.spec import Trial


class Listed:
    """Like a grid; keeps what it is told."""

    def __init__(self, trials: Sequence[Trial]) -> None:
        self.left = list(trials)
        self.told: list[Record] = []
        self.leases: list[tuple[str, Mapping[str, Any]]] = []

    @property
    def finished(self) -> bool:
        return not self.left

    def ask(self, idle: int, under_way: int) -> Sequence[Trial]:
        asked, self.left = self.left, []
        return asked

    def tell(self, record: Record) -> None:
        self.told.append(record)

    def ended(self, trial: Trial, lease: Mapping[str, Any]) -> None:
        self.leases.append((trial.id, lease))
