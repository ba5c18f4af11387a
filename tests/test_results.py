import random
import statistics
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.answers.interval import mean_interval, t_quantile
from sweeper.answers.results import order, results, settled
from tests.records import ESTIMATED, MEASURED, SIMULATED, make_record, make_window, two_objectives

scipy_stats = pytest.importorskip("scipy.stats")
ENERGY, LATENCY = "energy_per_output_token_j", "latency_mean_s"


def launches(*values, **fields):
    return [
        make_record("p", launch=number, metrics=two_objectives(*value), **fields)
        for number, value in enumerate(values)
    ]


@given(st.floats(0.001, 0.999), st.integers(1, 60))
def test_student_s_quantiles_are_those_of_scipy(p, freedom):
    assert t_quantile(p, freedom) == pytest.approx(
        scipy_stats.t.ppf(p, freedom), rel=1e-6, abs=1e-6
    )


def test_the_interval_of_a_textbook_example():
    low, high = mean_interval([10.0, 12.0, 14.0])
    half = 4.302652729911275 * 2.0 / 3**0.5
    assert (low, high) == pytest.approx((12 - half, 12 + half))


def test_launches_are_pooled_with_an_interval():
    (result,) = results(launches((1.0, 10.0), (2.0, 10.0), (4.0, 10.0)))
    assert result.launches == 3
    assert result.value(ENERGY) == pytest.approx(7 / 3)
    assert result.interval(ENERGY) == pytest.approx(mean_interval([1.0, 2.0, 4.0]))
    assert result.interval(LATENCY) == (10.0, 10.0)


def test_one_launch_has_deviations_and_nothing_called_an_interval():
    windows = [make_window(0, energy_j=3000.0), make_window(1, energy_j=3300.0)]
    (result,) = results([make_record("p", windows=windows)])
    assert result.metrics["energy_j_sd_windows"] == pytest.approx(statistics.stdev([3000, 3300]))
    assert not [name for name in result.metrics if "ci95" in name]
    assert result.interval(ENERGY) is None
    (two,) = results([make_record("p", windows=windows, launch=number) for number in (0, 1)])
    assert not [name for name in two.metrics if name.endswith("_sd_windows")]
    assert two.interval("energy_j") is not None


def test_a_metric_that_one_launch_lacks_is_of_the_others():
    records = launches((1.0, 10.0), (3.0, 12.0))
    lacking = make_record("p", launch=2, status="energy_invalid", metrics=two_objectives(99, 14.0))
    (result,) = results([*records, lacking])
    assert result.value(ENERGY) == 2.0
    assert result.interval(ENERGY) == pytest.approx(mean_interval([1.0, 3.0]))
    assert result.value(LATENCY) == 12.0
    assert result.launches == 3


def test_a_launch_alone_with_a_metric_gives_it_no_interval():
    windows = [make_window(0, energy_j=3000.0), make_window(1, energy_j=3300.0)]
    bare = [make_window(0, energy_j=None), make_window(1, energy_j=None)]
    (result,) = results(
        [
            make_record("p", windows=windows),
            make_record("p", launch=1, windows=bare, status="energy_invalid"),
        ]
    )
    assert result.interval("energy_j") is None
    assert "energy_j_sd_windows" in result.metrics
    assert result.interval("output_tokens_per_s") is not None
    assert "output_tokens_per_s_sd_windows" not in result.metrics


def test_energy_invalid_keeps_performance_and_gives_no_joules():
    metrics = {
        **two_objectives(1.0, 2.0, power_mean_w=3.0, energy_j=4.0, context_idle_w=5.0),
        "energy_j_sd_windows": 0.1,
        "latency_mean_s_sd_windows": 0.2,
    }
    (result,) = results([make_record("p", status="energy_invalid", metrics=metrics)])
    assert result.metrics == {LATENCY: 2.0, "latency_mean_s_sd_windows": 0.2}


def test_what_has_no_numbers_gives_no_result():
    records = [
        make_record(status, status=status, metrics=two_objectives(1, 1))
        for status in ("infeasible", "failed", "wrong_setting")
    ]
    assert results(records) == ()


def test_a_number_that_is_none_is_left_out():
    (result,) = results([make_record("p", metrics={ENERGY: float("nan"), LATENCY: 1.0})])
    assert result.metrics == {LATENCY: 1.0}
    assert result.value(ENERGY) is None


def test_finalists_are_judged_by_their_new_launches_alone():
    full = launches((1.0, 1.0), (1.0, 1.0))
    final = launches((2.0, 2.0), stage="final")
    screen = launches((5.0, 5.0), stage="screen")
    (result,) = results([*screen, *full, *final])
    assert (result.stage, result.value(ENERGY), result.launches) == ("final", 2.0, 1)
    (result,) = results([*screen, *full])
    assert (result.stage, result.value(ENERGY), result.launches) == ("full", 1.0, 2)
    (result,) = results(screen)
    assert (result.stage, result.value(ENERGY)) == ("screen", 5.0)


def test_a_final_launch_without_energy_does_not_hide_a_full_one_with():
    final = make_record("p", stage="final", status="energy_invalid", metrics=two_objectives(9, 9))
    (result,) = results([final, *launches((1.0, 1.0))])
    assert (result.stage, result.value(ENERGY)) == ("full", 1.0)


def test_one_record_counts_for_each_launch_the_last_verdict():
    failed = make_record("p", status="failed", metrics={})
    first = make_record("p", metrics=two_objectives(1, 1), attempt=1)
    again = make_record("p", metrics=two_objectives(2, 2), attempt=2)
    assert settled([failed, first]) == (first,)
    assert settled([first, failed]) == (first,)
    assert settled([first, again]) == (again,)
    assert settled([failed, replace(failed, attempt=1)]) == (replace(failed, attempt=1),)
    assert results([failed, first, again])[0].value(ENERGY) == 2.0


def test_joules_of_different_meters_are_never_pooled():
    records = [
        make_record("p", launch=0, metrics=two_objectives(1, 1), energy=MEASURED),
        make_record("p", launch=1, metrics=two_objectives(9, 3), energy=ESTIMATED),
        make_record("p", launch=2, metrics={LATENCY: 2.0}, status="energy_invalid", energy=None),
    ]
    measured, estimated = sorted(results(records), key=lambda result: result.value(ENERGY))
    assert (measured.value(ENERGY), measured.value(LATENCY), measured.launches) == (1.0, 1.5, 2)
    assert (estimated.value(ENERGY), estimated.value(LATENCY)) == (9.0, 3.0)
    assert (measured.energy, estimated.energy) == (MEASURED, ESTIMATED)


def test_undersampled_in_a_launch_is_undersampled_in_the_result():
    records = [
        make_record("p", metrics={"tpot_p99_s": 1.0}, undersampled=["tpot_p99_s"]),
        make_record("p", launch=1, metrics={"tpot_p99_s": 1.0}),
    ]
    assert results(records)[0].undersampled == ("tpot_p99_s",)


def test_results_come_in_the_order_of_conditions_and_choices_whatever_ended_first():
    records = [
        make_record(
            f"{tokens}-{size}",
            condition={"workload.input_tokens": tokens},
            chosen={"engine.dtype": "float16", "workload.batch_size": size},
        )
        for tokens in (128, 1024)
        for size in (2, 16, 128)
    ]
    expected = [record.id for record in records]
    shuffled = random.Random(3).sample(records, len(records))
    assert [result.id for result in results(shuffled)] == expected


def test_order_takes_numbers_by_size_and_words_after_them():
    values = [{"k": value} for value in (None, "b", 10, True, 9, "a", 9.5)]
    assert [each["k"] for each in sorted(values, key=order)] == [9, 9.5, 10, "a", "b", None, True]


def test_provenance():
    def provenance(energy, **config):
        (result,) = results([make_record("p", energy=energy, config=config)])
        return result.provenance

    assert provenance(MEASURED) == "measured"
    assert provenance(ESTIMATED) == "estimate"
    assert provenance(SIMULATED) == "simulation"
    assert provenance(None) == "measured"
    assert provenance(MEASURED, **{"engine.kind": "simulated"}) == "simulation"


def test_a_result_says_what_it_is_of():
    record = make_record("p", gpus=2, chosen={"a.b": 1}, condition={"c.d": 2}, convention="whole")
    (result,) = results([record])
    for name in ("id", "configuration", "config", "chosen", "condition", "convention", "gpus"):
        assert getattr(result, name) == getattr(record, name)
    assert (result.launch_command, result.energy) == (record.launch_command, record.energy)
