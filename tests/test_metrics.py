import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.results.components import COMPONENTS
from sweeper.results.metrics import (
    METRICS,
    higher_is_better,
    is_energy,
    percentile,
    record_metrics,
    undersampled,
    undersampled_names,
    weighted_percentile,
    window_metrics,
)
from sweeper.results.phases import PHASE_METRICS
from tests.records import make_window

SECONDS = st.floats(0.001, 100.0)
EVERY_COMPONENT = {"cpu": {"0": 900.0, "1": 600.0}, "dram": {"0": 500.0}, "idle_gpu": {"b": 2000.0}}
PAIRS = st.lists(st.tuples(SECONDS, st.integers(1, 6)), min_size=1, max_size=12)


def a_window_s_metrics(**given_values):
    values = {
        "duration_s": 10.0,
        "energy_j": 600.0,
        "requests": 4,
        "input_tokens": 100,
        "output_tokens": 200,
        "samples": {},
        "gpus": 2,
    }
    return window_metrics(**(values | given_values))


def test_each_metric_of_a_window_by_hand():
    samples = {"ttft_s": [0.1, 0.3], "itl_s": [[0.01, 3], [0.05, 1]]}
    assert a_window_s_metrics(samples=samples) == pytest.approx(
        {
            "energy_j": 600.0,
            "energy_per_output_token_j": 3.0,
            "energy_per_token_j": 2.0,
            "energy_per_request_j": 150.0,
            "power_mean_w": 60.0,
            "output_tokens_per_s": 20.0,
            "requests_per_s": 0.4,
            "duration_s": 10.0,
            "gpu_seconds": 20.0,
            "ttft_mean_s": 0.2,
            "ttft_p50_s": 0.2,
            "ttft_p90_s": 0.28,
            "ttft_p99_s": 0.298,
            "itl_mean_s": 0.02,
            "itl_p50_s": 0.01,
            "itl_p90_s": 0.01 + 0.04 * 0.7,
            "itl_p99_s": 0.01 + 0.04 * 0.97,
        }
    )


def test_what_is_not_known_is_absent_and_never_zero():
    bare = a_window_s_metrics(energy_j=None, gpus=0, samples={"ttft_s": [], "itl_s": [[0.1, 0]]})
    assert set(bare) == {"output_tokens_per_s", "requests_per_s", "duration_s"}
    idle = a_window_s_metrics(requests=0, input_tokens=0, output_tokens=0)
    assert set(idle) == {
        *("energy_j", "power_mean_w", "output_tokens_per_s", "requests_per_s", "duration_s"),
        "gpu_seconds",
    }
    assert set(a_window_s_metrics(duration_s=0.0)) == {
        *("energy_j", "energy_per_output_token_j", "energy_per_token_j", "energy_per_request_j"),
    }
    assert record_metrics((), 2) == ({}, ())


def test_every_name_that_is_made_is_documented():
    samples = {name: [1.0] for name in ("ttft_s", "tpot_s", "latency_s")} | {"itl_s": [[1.0, 2]]}
    readings = make_window(components=EVERY_COMPONENT).readings
    made = set(a_window_s_metrics(samples=samples, readings=readings, good=3))
    assert set(METRICS) - made == {
        *("context_idle_w", "bare_idle_w", "peak_memory_bytes"),
        *("energy_drift_ratio", "tpot_drift_ratio"),
        *PHASE_METRICS,
    }
    assert made <= set(METRICS)


def test_energy_ratios_are_ratios_of_sums_over_the_windows_that_have_energy():
    windows = [
        make_window(0, duration_s=10, energy_j=100.0, output_tokens=10, input_tokens=0, requests=1),
        make_window(
            1, duration_s=30, energy_j=500.0, output_tokens=90, input_tokens=100, requests=3
        ),
        make_window(2, duration_s=60, energy_j=None, output_tokens=900, input_tokens=7, requests=6),
    ]
    metrics, _ = record_metrics(windows, 4)
    assert metrics["energy_j"] == pytest.approx(300.0)
    assert metrics["energy_per_output_token_j"] == pytest.approx(6.0)
    assert metrics["energy_per_token_j"] == pytest.approx(3.0)
    assert metrics["energy_per_request_j"] == pytest.approx(150.0)
    assert metrics["power_mean_w"] == pytest.approx(15.0)
    assert metrics["output_tokens_per_s"] == pytest.approx(10.0)
    assert metrics["requests_per_s"] == pytest.approx(0.1)
    assert metrics["duration_s"] == pytest.approx(100 / 3)
    assert metrics["gpu_seconds"] == pytest.approx(400 / 3)
    assert metrics["energy_j_sd_windows"] == pytest.approx(statistics.stdev([100.0, 500.0]))
    assert metrics["duration_s_sd_windows"] == pytest.approx(statistics.stdev([10, 30, 60]))


def test_no_window_with_energy_gives_no_energy_metric():
    metrics, _ = record_metrics([make_window(0, energy_j=None), make_window(1, energy_j=None)], 1)
    assert not [name for name in metrics if is_energy(name)]
    assert metrics["output_tokens_per_s"] > 0


def test_latencies_are_of_the_pooled_samples():
    windows = [make_window(0, latency_s=[1.0]), make_window(1, latency_s=[2.0, 2.0, 4.0])]
    metrics, few = record_metrics(windows, 1)
    assert metrics["latency_mean_s"] == pytest.approx(2.25)
    assert metrics["latency_p50_s"] == 2.0
    assert metrics["latency_mean_s_sd_windows"] == pytest.approx(statistics.stdev([1.0, 8 / 3]))
    assert "latency_p50_s_sd_windows" not in metrics
    assert few == ("latency_p50_s", "latency_p90_s", "latency_p99_s")


def test_one_window_has_no_deviation():
    metrics, _ = record_metrics([make_window(0)], 1)
    assert not [name for name in metrics if name.endswith("_sd_windows")]


def test_a_percentile_is_undersampled_by_the_tokens_that_waited_not_by_the_pairs():
    assert undersampled_names({"itl_s": [[0.01, 499]], "ttft_s": [0.1] * 50}) == (
        *("ttft_p99_s", "itl_p99_s"),
    )
    assert undersampled_names({"itl_s": [[0.01, 500]], "ttft_s": []}) == ()


@pytest.mark.parametrize(("percent", "enough"), [(50, 10), (90, 50), (99, 500)])
def test_five_samples_must_lie_beyond_a_percentile(percent, enough):
    assert undersampled(enough - 1, percent)
    assert not undersampled(enough, percent)


@given(PAIRS, st.floats(0.0, 1.0))
def test_a_weighted_percentile_is_the_percentile_of_the_samples_written_out(pairs, q):
    written_out = [value for value, weight in pairs for _ in range(weight)]
    assert math.isclose(weighted_percentile(pairs, q), percentile(written_out, q))


@given(st.lists(SECONDS, min_size=2, max_size=30), st.integers(1, 99))
def test_percentiles_are_those_of_the_standard_library(samples, percent):
    expected = statistics.quantiles(samples, n=100, method="inclusive")[percent - 1]
    assert math.isclose(percentile(samples, percent / 100), expected, rel_tol=1e-9)


@given(
    st.lists(
        st.tuples(
            st.integers(1, 500), st.floats(1.0, 1e4), st.one_of(st.none(), st.floats(1, 1e5))
        ),
        min_size=1,
        max_size=5,
    )
)
def test_energy_per_token_lies_between_those_of_the_windows(parts):
    windows = [
        make_window(index, output_tokens=tokens, duration_s=seconds, energy_j=joules)
        for index, (tokens, seconds, joules) in enumerate(parts)
    ]
    metrics, _ = record_metrics(windows, 1)
    each = [joules / tokens for tokens, _, joules in parts if joules is not None]
    assert ("energy_per_output_token_j" in metrics) == bool(each)
    if each:
        pooled = metrics["energy_per_output_token_j"]
        assert min(each) * (1 - 1e-9) <= pooled <= max(each) * (1 + 1e-9)


def test_what_needs_a_meter_and_what_is_wanted_high():
    energy = {name for name in METRICS if is_energy(name)}
    assert energy == {
        *("energy_j", "energy_per_output_token_j", "energy_per_token_j", "energy_per_request_j"),
        *("power_mean_w", "context_idle_w", "bare_idle_w", "beside_energy_share"),
        *(f"{name}_energy_j" for name in COMPONENTS),
        *(f"{name}_energy_per_output_token_j" for name in COMPONENTS),
        "energy_drift_ratio",
        *PHASE_METRICS,
    }
    assert is_energy("energy_j_sd_windows")
    assert not is_energy("latency_mean_s_sd_windows")
    assert {name for name in METRICS if higher_is_better(name)} == {
        *("output_tokens_per_s", "requests_per_s", "goodput_rps"),
    }
