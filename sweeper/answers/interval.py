"""Confidence intervals of means over independent launches (pure)."""

import math
from collections.abc import Sequence
from functools import cache

CONFIDENCE = 0.95


def mean_interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % confidence interval of a mean of at least two values, by Student's t."""
    count = len(values)
    mean = math.fsum(values) / count
    # Not statistics.stdev, whose fractions are a hundred times slower.
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = t_quantile((1 + CONFIDENCE) / 2, count - 1) * math.sqrt(variance / count)
    return mean - half, mean + half


@cache
def t_quantile(p: float, freedom: int) -> float:
    """The `p`-quantile (0 < p < 1) of Student's t with a whole number of degrees of freedom."""
    if p < 0.5:
        return -t_quantile(1 - p, freedom)
    low, high = 0.0, math.pi / 2
    while low < (angle := (low + high) / 2) < high:
        if _central(angle, freedom) < 2 * p - 1:
            low = angle
        else:
            high = angle
    return math.sqrt(freedom) * math.tan(low)


def p_value(t: float, freedom: int) -> float:
    """P(|T| > |t|) of Student's t: the two-sided p of a mean that many standard errors from 0."""
    return max(0.0, 1.0 - _central(math.atan(abs(t) / math.sqrt(freedom)), freedom))


def _central(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) tan(angle)): Abramowitz and Stegun 26.7.3 and 26.7.4."""
    cosine = math.cos(angle)
    odd = freedom % 2
    term = cosine if odd else 1.0
    total = 0.0
    for k in range(1 + odd, freedom, 2):
        total += term
        term *= cosine * cosine * k / (k + 1)
    total *= math.sin(angle)
    return (angle + total) * 2 / math.pi if odd else total
