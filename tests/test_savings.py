"""Savings against the baseline: which results make one, and of which launches."""

import math
from dataclasses import replace

import pytest

from sweeper.answers.best import answers
from sweeper.answers.savings import savings
from sweeper.spec import Axis, Settings, Study
from tests.records import ESTIMATED, make_record, two_objectives

WIDTH, SIZE, QUANTIZED = "engine.tensor_parallel", "workload.batch_size", "engine.quantization"
ENERGY = "energy_per_output_token_j"


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
    assert made["latency_mean_s"].ratio == pytest.approx(12 / math.sqrt(16 * 160))


def test_joules_of_another_meter_are_left_out():
    records = [record(1, 1, 8.0), record(2, 1, 6.0)]
    records.append(replace(record(2, 1, 1.0, 1), energy=ESTIMATED))
    asked = grid(width=1)
    measured, _ = answers(records, asked)
    [made] = savings(measured.group, asked, records, [ENERGY])
    assert made.changes[ENERGY].ratio == pytest.approx(6 / 8)


def on(width, energy, launch, boards, **fields):
    gpus = [{"uuid": each} for each in boards]
    return record(width, 1, energy, launch, environment={"devices": {"gpus": gpus}}, **fields)


def test_the_gain_of_other_boards_stands_beside_joules_and_nothing_else():
    records = [on(1, 8.0 + n, n, "a") for n in range(2)] + [
        on(2, 6.0 + n, n, "b") for n in range(2)
    ]
    made = found(records, grid(width=1), (ENERGY, "latency_mean_s"))["w2-s1"].changes
    assert (made[ENERGY].boards, made[ENERGY].systematic) == ((1, 1), 0.05)
    assert (made["latency_mean_s"].boards, made["latency_mean_s"].systematic) == ((1, 1), None)


def test_blocks_on_the_same_boards_make_a_claim_free_of_gain():
    records = [
        on(
            width,
            energy * (1 + 0.01 * n) * (1.002 if n % 2 == width % 2 else 1),
            n,
            "ab"[n % 2],
            trial=f"block{n}",
        )
        for width, energy in ((1, 8.0), (2, 6.0))
        for n in range(6)
    ]
    made = found(records, grid(width=1))["w2-s1"].changes[ENERGY]
    assert (made.blocks, made.boards, made.systematic) == (6, (2, 2), None)
    assert (made.significant, made.adjustment, made.family) == (True, "Holm", 1)
    assert made.p_adjusted == made.p < 0.001


def test_p_is_adjusted_over_the_savings_of_a_metric():
    sizes = (1, 8)
    records = [
        record(
            width,
            size,
            (8.0 - 2 * width) * (1 + 0.01 * ((n * size + width) % 3)),
            n,
            trial=f"block{n}-{size}",
        )
        for width in (1, 2)
        for size in sizes
        for n in range(6)
    ]
    made = found(records, grid(width=1), (ENERGY, "latency_mean_s"))
    assert len(made) == 2
    for saving in made.values():
        assert {each.family for each in saving.changes.values()} == {2}
        assert all(each.p_adjusted > each.p for each in saving.changes.values())
