"""What a launch measures next: a list of points, in passes, each pass in an order of its own."""

import random
from collections.abc import Sequence
from typing import Protocol

from sweeper.results.reasons import mendable
from sweeper.results.record import Window
from sweeper.spec import Point


class Agenda(Protocol):
    """Names the next point from the windows so far."""

    def next(self) -> Point | None:
        """The point to measure now; `None` when the launch has nothing left to do."""
        ...

    def tell(self, point: Point, windows: Sequence[Window]) -> bool:
        """Take the windows of a visit to `point`; says whether the point is now complete."""
        ...

    def drop(self, point: Point) -> None:
        """Never again: the point cannot be measured."""
        ...


class ListAgenda:
    """Every point once per pass, `repeats` visits with energy each, shuffled in every pass.

    A visit that has a window without energy is made again at the end of its pass, at most once per
    pass, so a point never takes more than twice its windows.
    """

    def __init__(self, points: Sequence[Point], repeats: int, seed: int) -> None:
        self._points = list(points)
        self._repeats = repeats
        self._random = random.Random(seed)
        self._pass = 0
        self._queue: list[Point] = []
        self._again: list[Point] = []
        self._dropped: set[str] = set()

    def next(self) -> Point | None:
        """The next point of this pass, else a point to measure again, else of the next pass."""
        while True:
            if self._queue:
                point = self._queue.pop()
                if point.id not in self._dropped:
                    return point
                continue
            if self._again:
                self._queue, self._again = self._again, []
                continue
            if self._pass == self._repeats or self._dropped.issuperset(p.id for p in self._points):
                return None
            self._start_pass()

    def tell(self, point: Point, windows: Sequence[Window]) -> bool:
        """Take the windows of a visit; says whether this was the point's last."""
        again = any(each.energy_j is None and mendable(each.reasons) for each in windows)
        if again and point.id not in self._tried_again:
            self._tried_again.add(point.id)
            self._again.append(point)
            return False
        return self._pass == self._repeats

    def drop(self, point: Point) -> None:
        """Take a point off every pass to come."""
        self._dropped.add(point.id)

    def _start_pass(self) -> None:
        self._pass += 1
        self._tried_again: set[str] = set()
        self._queue = self._points[:]
        self._random.shuffle(self._queue)
