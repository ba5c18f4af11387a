"""p-values for many comparisons at once (pure)."""

from collections.abc import Sequence
from dataclasses import replace

from sweeper.answers.change import Adjustment, Change
from sweeper.answers.interval import CONFIDENCE


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that all claims below a level hold together (Holm, Scand. J. Stat. 6, 1979).

    Whatever depends on what, the chance of any false claim is at most the level.
    """
    count = len(p_values)
    found, highest = [0.0] * count, 0.0
    for rank, place in enumerate(_ascending(p_values)):
        highest = max(highest, min(1.0, (count - rank) * p_values[place]))
        found[place] = highest
    return found


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that of all below a level that share at most is false (JRSS B 57, 1995).

    In expectation, for comparisons that are independent or positively dependent, as those
    against one baseline are.
    """
    count = len(p_values)
    found, lowest = [0.0] * count, 1.0
    for rank, place in reversed([*enumerate(_ascending(p_values), start=1)]):
        lowest = min(lowest, count / rank * p_values[place])
        found[place] = lowest
    return found


def adjusted(changes: Sequence[Change]) -> list[Change]:
    """The changes of one metric with their p-values adjusted, in the same order.

    Claims, which are paired in at least `MIN_BLOCKS` blocks, are few and meant to be named: by
    Holm. The others only screen, and are never called significant: by Benjamini and Hochberg. Which
    of the two a change is follows from how it was measured, not from what was found.
    """
    found = list(changes)
    for claims in (True, False):
        family = [
            (place, each.p)
            for place, each in enumerate(changes)
            if each.claimable is claims and each.p is not None
        ]
        name: Adjustment = "Holm" if claims else "Benjamini-Hochberg"
        adjust = holm if claims else benjamini_hochberg
        for (place, _), p in zip(family, adjust([p for _, p in family]), strict=True):
            found[place] = replace(
                changes[place],
                p_adjusted=p,
                adjustment=name,
                family=len(family),
                significant=p <= 1 - CONFIDENCE if claims else None,
            )
    return found


def _ascending(p_values: Sequence[float]) -> list[int]:
    return sorted(range(len(p_values)), key=p_values.__getitem__)
