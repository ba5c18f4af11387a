"""How one condition's next point is chosen: the seam of the adaptive searches, and chance."""

import random
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a chooser learns of a point.

    `costs` are its objectives, each to be minimised; `None` where it has not all of them.
    `violations` say for each limit how far the point is beyond it as a fraction of the limit, and
    0 or less where it meets it. A point that cannot exist here is not `feasible`.
    """

    costs: tuple[float, ...] | None
    violations: tuple[float, ...]
    feasible: bool


class Chooser(Protocol):
    """Chooses among points by their place in the list that it was made with."""

    def choose(self, among: Collection[int]) -> int:
        """One of `among`, which is not empty."""
        ...

    def learn(self, place: int, outcome: Outcome | None) -> None:
        """What a point came to; `None` where nothing was learned, for reasons of the machinery."""
        ...


class Chance:
    """Any point that is left is as likely as any other."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def choose(self, among: Collection[int]) -> int:
        return self._random.choice(sorted(among))

    def learn(self, place: int, outcome: Outcome | None) -> None:
        """Chance does not learn."""
