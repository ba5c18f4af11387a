"""Searches choose what is launched next: the seam, and where each one lives.

A search is asked for trials whenever devices have nothing to do, and told every record and every
end of a lease. A grid is a search that names everything at once.
"""

import importlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from sweeper.errors import PlaceError
from sweeper.plan import Cost
from sweeper.results.contents import Contents
from sweeper.results.record import Key, Record
from sweeper.search.budget import Elapsed
from sweeper.search.finals import Finals
from sweeper.spec import Study, Trial

SEARCHES: Mapping[str, str] = {
    "grid": "sweeper.search.grid:Grid",
    "random": "sweeper.search.adaptive:random_search",
    "optuna": "sweeper.search.adaptive:optuna_search",
}
"""Import paths of the searches that exist."""


class Search(Protocol):
    """What every search does; asked and told by one thread."""

    @property
    def finished(self) -> bool:
        """Whether it will never ask for another trial."""
        ...

    def ask(self, idle: int, under_way: int) -> Sequence[Trial]:
        """Trials to start on `idle` devices that have nothing to do, the first one first.

        Of those it named before, `under_way` wait or run. Empty when it has to hear of them first;
        while none is, only if it is then finished.
        """
        ...

    def tell(self, record: Record) -> None:
        """A point of a launch has its verdict, or was given up (`failed`)."""
        ...

    def ended(self, trial: Trial, lease: Mapping[str, Any]) -> None:
        """A lease ended: `seconds`, `gpu_seconds` and `energy_j`, where known."""
        ...


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What a search is made with beside its study.

    `done` are keys with a verdict, `devices` how many there are to fill, `elapsed` tells the
    seconds that the study has taken.
    """

    before: Contents
    done: Collection[Key]
    devices: int
    cost: Cost
    elapsed: Elapsed


def search_for(study: Study, around: Circumstances) -> Search:
    """The search that a study asks for, with what was measured before, and then its finals.

    Raises:
        PlaceError: its library is not installed.
    """
    module, _, name = SEARCHES[study.search.kind].partition(":")
    try:
        alone = replace(around, before=around.before.without("final"))
        made: Search = getattr(importlib.import_module(module), name)(study, alone)
    except ImportError as error:
        raise PlaceError(
            f"search.kind: {study.search.kind} cannot be used here ({error}): "
            f"pip install 'sweeper[{study.search.kind}]'"
        ) from error
    return Finals(made, study, around) if study.settings.measure.finalists.blocks else made
