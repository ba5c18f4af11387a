"""The windows of one visit to a point: the whole work and, where asked for, its prefill alone.

    visit   [settle | reading -- whole requests -- reading] [settle | reading -- prompts -- reading]
    phase   all                                              prefill

Prefill is parted from decoding by windows of its own: the same prompts, as many at a time, each
asked for one token. `results/phases.py` makes the split of the two.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from sweeper.results.record import Phase
from sweeper.spec import Convention, Point
from sweeper.trial.steady import SteadyWindows
from sweeper.trial.whole import WholeWindows
from sweeper.trial.windows import Taken

Series = WholeWindows | SteadyWindows
CONVENTIONS: Mapping[Convention, type[Series]] = {
    "whole": WholeWindows,
    "steady": SteadyWindows,
}
Make = Callable[[Point, type[Series]], Series]
"""`make(point, kind)`: what takes windows of a point, with a workload of its own."""


class Visits:
    """Takes the windows of one point, visit by visit."""

    def __init__(self, point: Point, make: Make) -> None:
        settings = point.settings
        self._series: dict[Phase, Series] = {"all": make(point, CONVENTIONS[settings.convention])}
        if settings.measure.phases:
            # With one token each there is no steady state to wait for: the work is all prefill.
            self._series["prefill"] = make(prefill_of(point), WholeWindows)

    def take(self, index: int) -> Iterator[Taken]:
        """The windows of a visit as they close, numbered from `index`.

        Raises:
            Infeasible: the batch does not fit, or the engine cannot serve in this way.
            EngineError: the engine failed.
        """
        for place, (phase, series) in enumerate(self._series.items()):
            taken = series.take(index + place)
            yield replace(taken, window=replace(taken.window, phase=phase))

    def whole(self, index: int) -> Taken:
        """One window of the whole work; raises as `take` does."""
        return self._series["all"].take(index)


def prefill_of(point: Point) -> Point:
    """The point with one token per answer."""
    workload = replace(point.settings.workload, output_tokens=1)
    return replace(point, settings=replace(point.settings, workload=workload))
