"""The price of a limit: by hand, and against asking for the best again at many limits."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.answers.best import answer, answers
from sweeper.answers.limit_price import limit_prices
from sweeper.spec import Settings, Study
from tests.records import make_record, two_objectives

LATENCY, THROUGHPUT = "latency_mean_s", "output_tokens_per_s"


def study(**limits):
    return Study(name="s", settings=Settings(), limits=limits)


def record(name, energy, latency, throughput=100.0, launch=0, **fields):
    metrics = two_objectives(energy, latency, output_tokens_per_s=throughput)
    return make_record(name, launch=launch, metrics=metrics, **fields)


def prices(records, asked):
    [found] = answers(records, asked)
    return limit_prices(found, asked)


def steps(price):
    return [(step.bound, step.best.id, step.value) for step in price.steps]


def test_a_looser_limit_reaches_less_energy_in_steps():
    records = [record("fast", 9.0, 1.0), record("mid", 6.0, 2.0), record("slow", 3.0, 4.0)]
    records.append(record("worse", 7.0, 3.0))
    [price] = prices(records, study(latency_mean_s=2.5))
    assert steps(price) == [(1.0, "fast", 9.0), (2.0, "mid", 6.0), (4.0, "slow", 3.0)]
    assert price.now == 1
    assert [step.best.id for step in price.relaxed] == ["slow"]


def test_where_nothing_meets_the_limit_every_step_is_a_relaxation():
    [price] = prices([record("only", 3.0, 4.0)], study(latency_mean_s=2.5))
    assert (price.now, [step.bound for step in price.relaxed]) == (None, [4.0])


def test_a_lower_limit_is_relaxed_downwards():
    records = [record("a", 9.0, 1.0, 300.0), record("b", 5.0, 1.0, 100.0)]
    [price] = prices(records, study(output_tokens_per_s=200.0))
    assert steps(price) == [(300.0, "a", 9.0), (100.0, "b", 5.0)]
    assert price.now == 0


def test_the_other_limits_stay():
    records = [record("a", 9.0, 1.0, 300.0), record("b", 5.0, 3.0, 100.0)]
    asked = study(latency_mean_s=2.0, output_tokens_per_s=200.0)
    for price in prices(records, asked):
        assert [step.best.id for step in price.steps] == ["a"]


def test_a_limit_is_met_with_the_whole_interval():
    """Of 1 and 3 s the interval ends at 2 + 12.7 s."""
    records = [record("a", 5.0, 1.0), record("a", 5.0, 3.0, launch=1)]
    [price] = prices(records, study(latency_mean_s=5.0))
    assert price.steps[0].bound == pytest.approx(14.7062, abs=1e-3)


def test_what_is_undersampled_or_unknown_has_no_price():
    records = [
        record("few", 1.0, 1.0, undersampled=(LATENCY,)),
        make_record("none", metrics={"energy_per_output_token_j": 1.0}),
    ]
    [price] = prices(records, study(latency_mean_s=2.0))
    assert (price.steps, price.now) == ((), None)


def test_what_is_not_checked_for_quality_is_never_the_best():
    eight = {"engine.quantization": "fp8"}
    records = [record("a", 5.0, 1.0), record("q", 1.0, 1.0, config=eight, chosen=eight)]
    [price] = prices(records, study(latency_mean_s=2.0))
    assert [step.best.id for step in price.steps] == ["a"]


POINTS = st.lists(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=2
    ),
    min_size=1,
    max_size=7,
)


@pytest.mark.long
@given(POINTS, st.integers(0, 10), st.integers(0, 10))
def test_the_steps_are_what_asking_again_at_every_limit_finds(points, latency, throughput):
    records = [
        record(f"p{index}", *map(float, launch), launch=number, gpus=1 + index % 3)
        for index, launches in enumerate(points)
        for number, launch in enumerate(launches)
    ]
    limits = {LATENCY: float(latency), THROUGHPUT: float(throughput)}
    asked = study(**limits)
    [found] = answers(records, asked)
    for price in limit_prices(found, asked):
        metric, upper = price.limit.metric, price.limit.upper
        bounds = {step.bound for step in price.steps} | {each / 2 for each in range(-40, 80)}
        for bound in bounds:
            moved = replace(asked, limits={**limits, metric: bound})
            again = answer(found.group, moved, found.objectives)
            reached = [
                step
                for step in price.steps
                if (step.bound <= bound if upper else step.bound >= bound)
            ]
            expected = again.best.id if again.best else None
            assert (reached[-1].best.id if reached else None) == expected
        best = None if price.now is None else price.steps[price.now].best
        assert best is found.best
