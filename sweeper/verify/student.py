"""Student's t by way of the incomplete beta function, and intervals of means.

P(|T| > t) = I_x(n / 2, 1 / 2) with x = n / (n + t²), n degrees of freedom (Abramowitz and Stegun,
26.7.1 and 26.5.27); I by its continued fraction (26.5.8), evaluated by Lentz's method.
"""

import math
from collections.abc import Sequence
from functools import cache

_TINY = 1e-300
_SAME = 1e-16
_TERMS = 10_000


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of the mean of two independent values or more."""
    count = len(values)
    mean = math.fsum(values) / count
    variance = math.fsum((value - mean) ** 2 for value in values) / (count - 1)
    half = quantile(0.975, count - 1) * math.sqrt(variance / count)
    return mean - half, mean + half


@cache
def quantile(p: float, freedom: float) -> float:
    """The p-quantile (0.5 < p < 1), by bisection on a logarithmic scale."""
    low, high = math.log(1e-12), math.log(1e12)
    while low < (middle := (low + high) / 2) < high:
        if outside(math.exp(middle), freedom) > 2 * (1 - p):
            low = middle
        else:
            high = middle
    return math.exp(low)


def outside(t: float, freedom: float) -> float:
    """P(|T| > t)."""
    return incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularized incomplete beta function I_x(a, b) for 0 < x < 1."""
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    logs = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    front = math.exp(logs + a * math.log(x) + b * math.log1p(-x)) / a
    return front / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    value = upper = 1.0
    lower = 0.0
    for term in range(1, _TERMS):
        m = term // 2
        if term % 2:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / (1 + step * lower or _TINY)
        upper = 1 + step / upper or _TINY
        value *= upper * lower
        if abs(upper * lower - 1) < _SAME * 10:
            return value
    raise ArithmeticError(f"I_{x}({a}, {b}) does not converge")
