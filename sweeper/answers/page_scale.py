"""Axes of a plot: values to pixels, and ticks that can be read (pure)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

MARGIN = 0.07
"""Of the span of the values, left free at each end."""
STRETCH = 0.8
"""A limit is drawn where it widens the span of the values by no more than this share."""
MANTISSAS = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7))
"""Where ticks of a logarithmic axis may stand in a decade, the sparsest first."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One axis: `low` and `high` are shown at the pixels `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    def pixel(self, value: float) -> float:
        """Where a value is drawn; beyond the axis it is its end."""
        low, high, here = (self._warp(each) for each in (self.low, self.high, value))
        share = min(max((here - low) / (high - low), 0.0), 1.0)
        return self.start + share * (self.end - self.start)

    def shows(self, value: float) -> bool:
        """Whether a value lies on the axis."""
        return self.low <= value <= self.high

    def ticks(self, most: int) -> list[float]:
        """At most so many round values, and where the span allows it at least three."""
        found = []
        for candidate in self._candidates():
            inside = [each for each in candidate if self.shows(each)]
            if len(inside) <= most:
                found.append(inside)
        return max(found, key=len, default=[])

    def _warp(self, value: float) -> float:
        if not self.logarithmic:
            return value
        return math.log(value) if value > 0 else -math.inf

    def _candidates(self) -> Iterable[list[float]]:
        if self.logarithmic:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            for stride in (5, 3, 2):
                yield [10.0**power for power in range(first, last + 1, stride)]
            for mantissas in MANTISSAS:
                yield [
                    mantissa * 10.0**power
                    for power in range(first, last + 1)
                    for mantissa in mantissas
                ]
        if not self.logarithmic or self.high < 6 * self.low:
            power = 10.0 ** math.floor(math.log10((self.high - self.low) / 2))
            for step in (5 * power, 2 * power, power, power / 2, power / 5):
                count = math.floor(self.high / step)
                yield [step * each for each in range(math.ceil(self.low / step), count + 1)]


def scale(values: Sequence[float], marks: Iterable[float], start: float, end: float) -> Scale:
    """An axis for values, logarithmic where all are positive, and for the marks near them."""
    logarithmic = min(values) > 0
    low, high = min(values), max(values)
    for mark in marks:
        if logarithmic and mark <= 0:
            continue
        wider = (min(low, mark), max(high, mark))
        if _span(*wider, logarithmic) <= max(_span(low, high, logarithmic) * (1 + STRETCH), 0.5):
            low, high = wider
    if logarithmic:
        grow = max(MARGIN * math.log(high / low), 0.06)
        low, high = low * math.exp(-grow), high * math.exp(grow)
    else:
        grow = MARGIN * (high - low) or abs(high) or 1.0
        low, high = low - grow, high + grow
    return Scale(low=low, high=high, start=start, end=end, logarithmic=logarithmic)


def _span(low: float, high: float, logarithmic: bool) -> float:
    return math.log(high / low) if logarithmic else high - low
