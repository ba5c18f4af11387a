"""Every point of the axes, in as few launches as the pool is filled with."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeper.plan import plan
from sweeper.results.record import Record
from sweeper.spec import Study, Trial

if TYPE_CHECKING:
    from sweeper.search import Circumstances


class Grid:
    """Asks for everything that is left at once, the largest trials first."""

    def __init__(self, study: Study, around: "Circumstances") -> None:
        todo = plan(study, done=around.done, devices=around.devices, cost=around.cost)
        self._left = todo.trials

    @property
    def finished(self) -> bool:
        return not self._left

    def ask(self, idle: int, under_way: int) -> Sequence[Trial]:
        asked, self._left = self._left, ()
        return asked

    def tell(self, record: Record) -> None:
        """A grid learns nothing."""

    def ended(self, trial: Trial, lease: Mapping[str, Any]) -> None:
        """Nor does it count."""
