"""Savings against the baseline: by hand, and against definitions written another way."""

import math
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.answers.best import answers
from sweeper.answers.savings import change, savings
from sweeper.spec import Axis, Settings, Study
from tests.records import ESTIMATED, make_record, two_objectives

WIDTH, SIZE, QUANTIZED = "engine.tensor_parallel", "workload.batch_size", "engine.quantization"
ENERGY = "energy_per_output_token_j"
T_1, T_2 = 12.7062047, 4.30265273
POSITIVE = st.floats(0.01, 1000.0)


def axis(*choices):
    return Axis(label=next(iter(choices[0])), choices=choices)


def study(*axes, **baseline):
    return Study(
        name="s",
        settings=Settings(),
        axes=axes,
        baseline={{"width": WIDTH, "size": SIZE}[key]: value for key, value in baseline.items()},
    )


def grid(**baseline):
    return study(axis({WIDTH: 1}, {WIDTH: 2}), axis({SIZE: 1}, {SIZE: 8}), **baseline)


def record(width, size, energy, launch=0, trial=None, **fields):
    return make_record(
        f"w{width}-s{size}",
        launch=launch,
        chosen={WIDTH: width, SIZE: size},
        metrics=two_objectives(energy, 2 * energy),
        trial_id=trial or f"t{width}-{size}-{launch}",
        **fields,
    )


def found(records, asked, metrics=(ENERGY,)):
    [answer] = answers(records, asked)
    return {each.result.id: each for each in savings(answer.group, asked, records, metrics)}


def leases(*values):
    return {(f"t{index}", 0): [value] for index, value in enumerate(values)}


def test_a_saving_is_stated_against_the_result_that_differs_in_the_baselines_axis_alone():
    records = [record(1, 1, 8.0), record(2, 1, 6.0), record(1, 8, 4.0), record(2, 8, 5.0)]
    made = found(records, grid(width=1))
    assert {name: each.baseline.id for name, each in made.items()} == {
        "w2-s1": "w1-s1",
        "w2-s8": "w1-s8",
    }
    assert made["w2-s1"].changes[ENERGY].percent == pytest.approx(-25.0)
    assert made["w2-s8"].changes[ENERGY].ratio == pytest.approx(1.25)


def test_without_a_baseline_or_its_result_there_is_no_saving():
    assert found([record(1, 1, 8.0), record(2, 1, 6.0)], grid()) == {}
    assert found([record(2, 1, 6.0), record(1, 8, 6.0)], grid(width=1)) == {}


def test_keys_that_move_with_the_baselines_are_not_other_axes():
    moved = axis({WIDTH: 1, SIZE: 1}, {WIDTH: 2, SIZE: 8})
    made = found([record(1, 1, 8.0), record(2, 8, 6.0)], study(moved, width=1))
    assert {name: each.baseline.id for name, each in made.items()} == {"w2-s8": "w1-s1"}


def test_two_results_that_could_be_the_baseline_are_none():
    moved = axis({WIDTH: 1, SIZE: 1}, {WIDTH: 1, SIZE: 4}, {WIDTH: 2, SIZE: 8})
    records = [record(1, 1, 8.0), record(1, 4, 7.0), record(2, 8, 6.0)]
    assert found(records, study(moved, width=1)) == {}


def test_one_launch_gives_a_ratio_and_no_interval():
    made = found([record(1, 1, 8.0), record(2, 1, 6.0)], grid(width=1))["w2-s1"].changes[ENERGY]
    assert (made.low, made.high, made.launches, made.paired) == (None, None, (1, 1), False)


def test_an_unpaired_interval_by_hand():
    """Standard errors of 10 % and 5 % of two launches each: Welch's degrees of freedom are 1."""
    made = change(leases(9.0, 11.0), {("u0", 0): [19.0], ("u1", 0): [21.0]})
    half = T_1 * math.sqrt(0.1**2 + 0.05**2)
    assert not made.paired
    assert made.ratio == pytest.approx(0.5)
    assert made.low == pytest.approx(0.5 * math.exp(-half))
    assert made.high == pytest.approx(0.5 * math.exp(half))


def test_a_paired_interval_by_hand():
    """What both sides share in a lease cancels: of 10, 11, 12 and 20, 22, 24.6 little is left."""
    made = change(leases(10.0, 11.0, 12.0), leases(20.0, 22.0, 24.6))
    mean = 66.6 / 3
    apart = [10 / 11 - 20 / mean, 11 / 11 - 22 / mean, 12 / 11 - 24.6 / mean]
    half = T_2 * math.sqrt(sum(each**2 for each in apart) / 2 / 3)
    assert made.paired
    assert made.ratio == pytest.approx(11 / mean)
    assert made.high == pytest.approx(made.ratio * math.exp(half))
    assert made.high / made.low < 1.1


@pytest.mark.parametrize(("trials", "paired"), [(("a", "b", "a", "b"), True), ("abcd", False)])
def test_the_same_leases_make_a_pair(trials, paired):
    records = [
        record(1, 1, 8.0, 0, trials[0]),
        record(1, 1, 8.8, 1, trials[1]),
        record(2, 1, 6.0, 0, trials[2]),
        record(2, 1, 6.6, 1, trials[3]),
    ]
    made = found(records, grid(width=1))["w2-s1"].changes[ENERGY]
    assert (made.paired, made.launches) == (paired, (2, 2))
    assert (made.high - made.low < 1e-9) is paired


def test_another_attempt_is_another_lease():
    records = [record(1, 1, 8.0, trial="a"), record(2, 1, 6.0, trial="a", attempt=1)]
    assert not found(records, grid(width=1))["w2-s1"].changes[ENERGY].paired


def test_a_launch_without_energy_says_nothing_of_energy():
    records = [record(1, 1, 8.0), record(1, 1, 80.0, 1, status="energy_invalid"), record(2, 1, 6.0)]
    made = found(records, grid(width=1), (ENERGY, "latency_mean_s"))["w2-s1"].changes
    assert made[ENERGY].ratio == pytest.approx(6 / 8)
    assert made["latency_mean_s"].ratio == pytest.approx(12 / 88)


def test_joules_of_another_meter_are_left_out():
    records = [record(1, 1, 8.0), record(2, 1, 6.0)]
    records.append(replace(record(2, 1, 1.0, 1), energy=ESTIMATED))
    asked = grid(width=1)
    measured, _ = answers(records, asked)
    [made] = savings(measured.group, asked, records, [ENERGY])
    assert made.changes[ENERGY].ratio == pytest.approx(6 / 8)


def test_a_value_of_zero_has_no_ratio():
    assert change(leases(0.0, 1.0), leases(1.0, 1.0)) is None
    assert change(leases(), leases(1.0)) is None


@given(st.lists(POSITIVE, min_size=2, max_size=6), st.lists(POSITIVE, min_size=2, max_size=6))
def test_an_unpaired_change_is_the_ratio_of_means_inside_its_interval(one, other):
    theirs = {("u", index): [value] for index, value in enumerate(other)}
    made = change(leases(*one), theirs)
    assert made.ratio == pytest.approx(statistics.fmean(one) / statistics.fmean(other))
    assert made.low <= made.ratio <= made.high
    back = change(theirs, leases(*one))
    assert (back.low * made.high, back.high * made.low) == pytest.approx((1, 1))


@given(st.lists(POSITIVE, min_size=2, max_size=6), st.floats(0.1, 10.0))
def test_what_is_proportional_in_every_lease_has_no_uncertainty_when_paired(values, factor):
    made = change(leases(*(factor * each for each in values)), leases(*values))
    assert made.ratio == pytest.approx(factor)
    assert made.high == pytest.approx(made.low)


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=2, max_size=6), st.floats(0.01, 100))
def test_no_unit_changes_a_change(pairs, unit):
    one, other = leases(*(a for a, _ in pairs)), leases(*(b for _, b in pairs))
    scaled = [
        {key: [unit * v for v in each] for key, each in side.items()} for side in (one, other)
    ]
    made, again = change(one, other), change(*scaled)
    assert (again.ratio, again.low) == pytest.approx((made.ratio, made.low), rel=1e-6)
