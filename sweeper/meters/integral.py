"""Joules from samples of power: the trapezoid rule between two moments, and its error (pure)."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import stdev

Sample = tuple[float, float]
"""(seconds, watts)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Integral:
    """The integral of sampled power over an interval, and what speaks for it.

    `samples` lie inside. `largest_gap_s` is the longest part of the interval without a sample.
    `bracketed`: there is a sample at the beginning or before it, and one at the end or after it.
    `standard_error_j` is what the scatter of the samples makes of it, as if each was drawn anew:
    the right size for bursts much faster than the samples, too much for power that changes slowly;
    `None` with fewer than two. `edges_w` is the power at the beginning and the end.
    """

    energy_j: float
    samples: int
    largest_gap_s: float
    bracketed: bool
    standard_error_j: float | None
    edges_w: tuple[float, float]


def integrate(samples: Sequence[Sample], from_s: float, until_s: float) -> Integral | None:
    """What `samples`, in the order of time, say of an interval; `None` where there are none."""
    if not samples:
        return None
    times = [t_s for t_s, _ in samples]
    inside = samples[bisect_left(times, from_s) : bisect_right(times, until_s)]
    marks = [from_s, *(t_s for t_s, _ in inside), until_s]
    scatter_w = stdev(watts for _, watts in inside) if len(inside) > 1 else None
    return Integral(
        energy_j=integral(samples, from_s, until_s),
        samples=len(inside),
        largest_gap_s=max(after - before for before, after in pairwise(marks)),
        bracketed=times[0] <= from_s and until_s <= times[-1],
        standard_error_j=(
            None if scatter_w is None else scatter_w * (until_s - from_s) / math.sqrt(len(inside))
        ),
        edges_w=(_at(samples, times, from_s), _at(samples, times, until_s)),
    )


def integral(samples: Sequence[Sample], from_s: float, until_s: float) -> float:
    """Joules between two moments of a power that goes straight from sample to sample.

    Before the first sample and after the last one it is as there.
    """
    times = [t_s for t_s, _ in samples]
    inside = samples[bisect_right(times, from_s) : bisect_left(times, until_s)]
    line = [(from_s, _at(samples, times, from_s)), *inside, (until_s, _at(samples, times, until_s))]
    return math.fsum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(line))


def _at(samples: Sequence[Sample], times: Sequence[float], t_s: float) -> float:
    place = bisect_right(times, t_s)
    if place in {0, len(samples)}:
        return samples[min(place, len(samples) - 1)][1]
    (before_s, before_w), (after_s, after_w) = samples[place - 1 : place + 1]
    return before_w + (after_w - before_w) * (t_s - before_s) / (after_s - before_s)
