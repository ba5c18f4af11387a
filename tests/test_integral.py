"""Joules from samples: against brute force, and how far the truth lies from them."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.meters.integral import integral, integrate


def placed(steps: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Gaps and watts as samples."""
    samples, t_s = [], 0.0
    for gap_s, watts in steps:
        t_s += gap_s
        samples.append((t_s, watts))
    return samples


SAMPLES = st.lists(
    st.tuples(st.floats(0.001, 2.0), st.floats(0.0, 1000.0)), min_size=1, max_size=30
).map(placed)


def watts_at(samples: list[tuple[float, float]], t_s: float) -> float:
    if t_s <= samples[0][0]:
        return samples[0][1]
    for (from_s, before_w), (until_s, after_w) in pairwise(samples):
        if t_s <= until_s:
            return before_w + (after_w - before_w) * (t_s - from_s) / (until_s - from_s)
    return samples[-1][1]


@given(SAMPLES, st.floats(-1.0, 30.0), st.floats(0.01, 20.0))
def test_the_integral_is_the_sum_of_thin_slices(samples, from_s, length_s):
    slices = 4000
    width_s = length_s / slices
    brute_j = math.fsum(
        watts_at(samples, from_s + (place + 0.5) * width_s) * width_s for place in range(slices)
    )
    exact_j = integral(samples, from_s, from_s + length_s)
    assert exact_j == pytest.approx(brute_j, abs=2.0 * 1000.0 * width_s)


@given(SAMPLES, st.floats(0.0, 20.0), st.floats(0.01, 10.0), st.floats(0.01, 10.0))
def test_integrals_of_two_parts_are_that_of_the_whole(samples, from_s, one_s, other_s):
    middle_s, until_s = from_s + one_s, from_s + one_s + other_s
    parts_j = integral(samples, from_s, middle_s) + integral(samples, middle_s, until_s)
    assert integral(samples, from_s, until_s) == pytest.approx(parts_j, abs=1e-6)


@given(SAMPLES, st.floats(-1.0, 40.0), st.floats(0.01, 20.0))
def test_gaps_and_brackets_are_those_seen_by_walking_along(samples, from_s, length_s):
    until_s = from_s + length_s
    found = integrate(samples, from_s, until_s)
    inside = [t_s for t_s, _ in samples if from_s <= t_s <= until_s]
    assert found.samples == len(inside)
    assert found.bracketed == (
        any(t_s <= from_s for t_s, _ in samples) and any(t_s >= until_s for t_s, _ in samples)
    )
    last_s, gap_s = from_s, 0.0
    for t_s in [*inside, until_s]:
        gap_s, last_s = max(gap_s, t_s - last_s), t_s
    assert found.largest_gap_s == gap_s
    assert found.edges_w == pytest.approx((watts_at(samples, from_s), watts_at(samples, until_s)))


def test_without_samples_there_is_no_integral_and_with_one_no_error():
    assert integrate([], 0.0, 1.0) is None
    alone = integrate([(0.5, 100.0)], 0.0, 1.0)
    assert (alone.energy_j, alone.standard_error_j, alone.bracketed) == (100.0, None, False)
    assert integrate([(5.0, 100.0)], 0.0, 1.0).standard_error_j is None


@pytest.mark.long
def test_the_standard_error_covers_bursts_that_the_samples_cannot_follow():
    """Square bursts much faster than 10 Hz, as of an engine's steps: 95 % within two errors."""
    rng = random.Random(1)
    within, errors = 0, []
    for _ in range(400):
        period_s, busy = rng.uniform(0.011, 0.019), rng.uniform(0.3, 0.7)
        times = [place * 0.1 + rng.uniform(-0.004, 0.004) for place in range(-1, 102)]
        samples = [(t_s, 700.0 if t_s / period_s % 1 < busy else 300.0) for t_s in times]
        found = integrate(samples, 0.0, 10.0)
        truth_j = 10.0 * (300.0 + 400.0 * busy)
        within += abs(found.energy_j - truth_j) < 2 * found.standard_error_j
        errors.append(found.standard_error_j / truth_j)
    assert within >= 0.93 * 400
    assert max(errors) < 0.06
