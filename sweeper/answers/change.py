"""One metric of one result as a ratio to its baseline's: how much, how surely, seen by what (pure).

All of it is on the scale of logarithms, where a ratio is a difference: its estimate is the ratio of
geometric means, its interval and its p come from Student's t. Paired where both sides were launched
in the same leases (blocks, Kalibera and Jones, ISMM 2013, and Hoefler and Belli, SC 2015): then a
block's ratio is one value, and what both sides share in it cancels. Else by Welch's approximation
(Biometrika 34, 1947).

A board's gain error is the same in every launch on it. It cancels where both sides ran on the same
boards, and launches on several boards show it as variance; else no interval can hold it, and it
stands beside the ratio.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sweeper.answers.interval import CONFIDENCE, p_value, t_quantile

MIN_BLOCKS = 6
"""Blocks that a claim of significance needs: with 5 pairs Wilcoxon's exact two-sided p, which asks
nothing of the distribution, cannot go below 2 / 2**5 = 0.0625; with 6 it reaches 0.03125."""

Lease = tuple[str, int]
"""A trial and its attempt: what was measured in one is of the same GPUs, and is one block."""

Adjustment = Literal["Holm", "Benjamini-Hochberg"]


@dataclass(frozen=True, slots=True)
class Launched:
    """What one launch says of a metric, and the UUIDs of its boards, empty where not known."""

    value: float
    boards: frozenset[str] = frozenset()


Placements = frozenset[frozenset[str]]
"""Different sets of boards, by UUID."""

Side = Mapping[Lease, Sequence[Launched]]
"""The launches of one result by lease."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """A metric as a ratio to the baseline's.

    `low` and `high` are the 95 % interval and `p` is two-sided, of no change at all: `None` from
    fewer than two blocks, or launches on a side. `launches` are those that it is made of, of the
    result and of the baseline, `blocks` the leases that hold both (0 where unpaired), `boards` on
    how many different boards (sets of them for launches on several) each side ran, `None` where
    that is not known. `systematic` is the boards' relative gain error, of each side, where it
    neither cancels nor shows in the interval.

    `p_adjusted` is for `family` comparisons at once, by `adjustment`. `significant` is whether it
    is at most 0.05; `None` where nothing may be claimed: unpaired, or fewer than `MIN_BLOCKS`.
    """

    ratio: float
    low: float | None
    high: float | None
    paired: bool
    launches: tuple[int, int]
    blocks: int
    boards: tuple[int | None, int | None]
    systematic: float | None
    p: float | None
    p_adjusted: float | None = None
    adjustment: Adjustment | None = None
    family: int = 0
    significant: bool | None = None

    @property
    def percent(self) -> float:
        """The change in percent of the baseline; a saving is negative."""
        return 100 * (self.ratio - 1)

    @property
    def claimable(self) -> bool:
        """Whether there are blocks enough to claim significance."""
        return self.paired and self.blocks >= MIN_BLOCKS and self.p is not None

    @property
    def within_gain(self) -> bool:
        """Whether two boards whose gains err oppositely would show as much without any change."""
        gain = self.systematic
        return gain is not None and abs(math.log(self.ratio)) <= math.log((1 + gain) / (1 - gain))


def change(ours: Side, theirs: Side, systematic: float | None = None) -> Change | None:
    """The ratio of `ours` to `theirs`; `None` unless there are values and all are positive.

    Paired where more than half of the leases of either side hold both; then the others are left
    out. `systematic` is the gain error of the boards, for a metric that has their gain in it.
    """
    values = [each.value for side in (ours, theirs) for made in side.values() for each in made]
    if not (ours and theirs and all(value > 0 for value in values)):
        return None
    shared = [lease for lease in ours if lease in theirs]
    paired = 2 * len(shared) > max(len(ours), len(theirs))
    if paired:
        ours, theirs = ({lease: side[lease] for lease in shared} for side in (ours, theirs))
        apart = [_mean(_logs(ours[each])) - _mean(_logs(theirs[each])) for each in shared]
        middle, error, freedom = _of_pairs(apart)
    else:
        one, other = ([each for made in side.values() for each in made] for side in (ours, theirs))
        middle, error, freedom = _welch(_logs(one), _logs(other))
    half = None if error is None else t_quantile((1 + CONFIDENCE) / 2, freedom) * error
    boards = (_placements(ours), _placements(theirs))
    return Change(
        ratio=math.exp(middle),
        low=None if half is None else math.exp(middle - half),
        high=None if half is None else math.exp(middle + half),
        paired=paired,
        launches=(_count(ours), _count(theirs)),
        blocks=len(shared) if paired else 0,
        boards=(_number(boards[0]), _number(boards[1])),
        systematic=None if _seen(ours, theirs, boards, paired=paired) else systematic,
        p=None if error is None else p_value(_score(middle, error), freedom),
    )


def _of_pairs(apart: Sequence[float]) -> tuple[float, float | None, int]:
    """Mean, its standard error and degrees of freedom of differences, one a block."""
    count, mean = len(apart), _mean(apart)
    if count < 2:
        return mean, None, 0
    return mean, math.sqrt(_variance(apart) / count), count - 1


def _welch(one: Sequence[float], other: Sequence[float]) -> tuple[float, float | None, int]:
    """The same of the difference of two means of independent values."""
    middle = _mean(one) - _mean(other)
    if min(len(one), len(other)) < 2:
        return middle, None, 0
    parts = [(_variance(each) / len(each), len(each) - 1) for each in (one, other)]
    total = math.fsum(part for part, _ in parts)
    if total == 0:
        return middle, 0.0, 1
    below = sum((part / total) ** 2 / freedom for part, freedom in parts)
    # Rounded down, which makes the interval wider: the quantile is of whole degrees of freedom.
    return middle, math.sqrt(total), max(1, math.floor(1 / below * (1 + _ROUNDING)))


_ROUNDING = 1e-9
"""A whole number of degrees of freedom must not be lost to the last bit."""


def _score(middle: float, error: float) -> float:
    if error == 0:
        return math.inf if middle else 0.0
    return middle / error


def _seen(
    ours: Side,
    theirs: Side,
    boards: tuple[Placements | None, Placements | None],
    *,
    paired: bool,
) -> bool:
    """Whether the gain of the boards cancels, or varies between the launches of either side."""
    one, other = boards
    if one is None or other is None:
        return False
    if min(len(one), len(other)) > 1 or (one == other and len(one) == 1):
        return True
    return paired and all(_boards(ours[lease]) == _boards(theirs[lease]) for lease in ours)


def _number(placements: Placements | None) -> int | None:
    return None if placements is None else len(placements)


def _placements(side: Side) -> Placements | None:
    """The different sets of boards that a side ran on, or `None` where one is not known."""
    found = frozenset(each.boards for made in side.values() for each in made)
    return found if all(found) else None


def _boards(made: Sequence[Launched]) -> Placements:
    return frozenset(each.boards for each in made)


def _count(side: Side) -> int:
    return sum(len(made) for made in side.values())


def _logs(made: Sequence[Launched]) -> list[float]:
    return [math.log(each.value) for each in made]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((each - mean) ** 2 for each in values) / (len(values) - 1)
