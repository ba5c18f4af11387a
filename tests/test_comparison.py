"""A counter beside the power that its device tells: period and ratio, from ticks and samples."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.meters.comparison import Comparison
from sweeper.meters.counter import Tick, period_s
from sweeper.meters.integral import integral


@pytest.mark.long
@given(
    st.floats(0.01, 0.3),
    st.sets(st.integers(1, 40), max_size=10),
    st.integers(0, 10_000),
)
def test_ticks_that_nobody_saw_do_not_stretch_the_period(
    true_s: float, missed: set[int], seed: int
) -> None:
    rng = random.Random(seed)
    seen = [
        Tick(5.0 + place * true_s + rng.uniform(-0.1, 0.1) * true_s, place, number)
        for number, place in enumerate(place for place in range(42) if place not in missed)
    ]
    assert period_s(seen) == pytest.approx(true_s, rel=0.01)


def test_the_integral_goes_straight_from_sample_to_sample() -> None:
    samples = [(1.0, 100.0), (2.0, 300.0), (4.0, 300.0)]
    assert integral(samples, 1.0, 2.0) == pytest.approx(200.0)
    assert integral(samples, 1.5, 3.0) == pytest.approx(0.5 * 250.0 + 300.0)
    assert integral(samples, 0.0, 1.0) == pytest.approx(100.0)
    assert integral(samples, 3.0, 6.0) == pytest.approx(900.0)
    assert integral(samples, 2.25, 2.5) == pytest.approx(75.0)


@given(st.floats(0.0, 4.0), st.floats(0.1, 5.0), st.floats(0.2, 3.0))
def test_the_integral_of_a_wave_is_its_closed_form(
    from_s: float, length_s: float, hertz: float
) -> None:
    omega = 2 * math.pi * hertz
    samples = [(t / 100, 300 + 80 * math.sin(omega * t / 100)) for t in range(1000)]
    until_s = from_s + length_s
    wave = 80 / omega * (math.cos(omega * from_s) - math.cos(omega * until_s))
    assert integral(samples, from_s, until_s) == pytest.approx(300 * length_s + wave, rel=0.005)


def test_without_power_there_is_no_ratio() -> None:
    assert Comparison(0.1, 3.0, 300.0, 0.0).ratio is None
    assert Comparison(0.1, 3.0, 318.0, 300.0).ratio == pytest.approx(1.06)
