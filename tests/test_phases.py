"""Prefill parted from decoding: the windows that a visit takes, and the split made from them."""

import math
import random
import statistics

import pytest

from sweeper.results.metrics import record_metrics
from sweeper.results.phases import phase_metrics
from sweeper.spec import MeasureSpec
from tests.records import make_window
from tests.test_protocol import PREFILL_S, STEP_S, WARMUP, launched, point


def windows(phase: str, joules: list[float], *, requests: int, tokens_in: int, tokens_out: int):
    return [
        make_window(
            index=number,
            phase=phase,
            energy_j=each,
            requests=requests,
            input_tokens=requests * tokens_in,
            output_tokens=requests * tokens_out,
        )
        for number, each in enumerate(joules)
    ]


def test_the_split_by_hand():
    whole = windows("all", [1000.0, 1020.0], requests=10, tokens_in=40, tokens_out=11)
    prompts = windows("prefill", [300.0, 340.0], requests=20, tokens_in=40, tokens_out=1)
    found, spread = phase_metrics([*whole, *prompts])
    assert found["energy_prefill_per_request_j"] == pytest.approx(16.0)
    assert found["energy_prefill_per_input_token_j"] == pytest.approx(0.4)
    assert found["energy_decode_per_output_token_j"] == pytest.approx((101.0 - 16.0) / 10)
    request_sd, prefill_sd = statistics.stdev([100.0, 102.0]), statistics.stdev([15.0, 17.0])
    assert spread["energy_prefill_per_request_j"] == pytest.approx(prefill_sd)
    assert spread["energy_decode_per_output_token_j"] == pytest.approx(
        math.hypot(request_sd, prefill_sd) / 10
    )


def test_what_cannot_be_told_is_absent():
    whole = windows("all", [1000.0], requests=10, tokens_in=40, tokens_out=11)
    prompts = windows("prefill", [300.0], requests=20, tokens_in=40, tokens_out=1)
    dear = windows("prefill", [3000.0], requests=20, tokens_in=40, tokens_out=1)
    lost = [make_window(phase="prefill", energy_j=None, reasons=("gpu_lost: GPU-a",))]
    single = windows("all", [1000.0], requests=10, tokens_in=40, tokens_out=1)
    assert phase_metrics(whole) == phase_metrics([*whole, *lost]) == ({}, {})
    assert phase_metrics([*whole, *prompts])[1] == {}
    assert "energy_decode_per_output_token_j" not in phase_metrics([*whole, *dear])[0]
    assert "energy_decode_per_output_token_j" not in phase_metrics([*single, *prompts])[0]
    assert "energy_prefill_per_request_j" in phase_metrics(prompts)[0]


def test_the_propagated_deviation_is_that_of_the_split():
    """Against many launches drawn from known windows."""
    drawn = random.Random(5)
    splits, told = [], []
    for _ in range(4000):
        whole = [drawn.gauss(1000.0, 10.0) for _ in range(3)]
        prompts = [drawn.gauss(300.0, 6.0) for _ in range(3)]
        found, spread = phase_metrics(
            windows("all", whole, requests=10, tokens_in=40, tokens_out=11)
            + windows("prefill", prompts, requests=20, tokens_in=40, tokens_out=1)
        )
        splits.append(found["energy_decode_per_output_token_j"])
        told.append(spread["energy_decode_per_output_token_j"] ** 2)
    # Means of three windows scatter by a third of the variance of one.
    assert statistics.variance(splits) * 3 == pytest.approx(statistics.fmean(told), rel=0.06)


def test_windows_of_prefill_alone_count_for_nothing_else():
    whole = windows("all", [1000.0, 1020.0], requests=10, tokens_in=40, tokens_out=11)
    prompts = windows("prefill", [300.0, 340.0], requests=20, tokens_in=40, tokens_out=1)
    with_them, without = (record_metrics(each, 2)[0] for each in ([*whole, *prompts], whole))
    assert {name: with_them[name] for name in without} == without
    assert "energy_decode_per_output_token_j_sd_windows" in with_them


@pytest.mark.parametrize("window", ["whole", "steady"])
def test_a_launch_takes_both_kinds_of_windows(window):
    batching = "static" if window == "whole" else "continuous"
    asked = point("a", 4, window=window, batching=batching)
    measure = MeasureSpec(warmup=WARMUP, window=window, min_window_s=6.0, repeats=2, phases=True)
    settings = asked.settings.__class__(workload=asked.settings.workload, measure=measure)
    asked = asked.__class__(**{**vars(asked), "settings": settings})
    _, meter, _, records, failure = launched(asked)
    assert failure is None
    record = records["a"]
    assert record.status == "ok"
    assert [each.phase for each in record.windows] == ["all", "prefill"] * 2
    assert [each.index for each in record.windows] == [0, 1, 2, 3]
    prompts = [each for each in record.windows if each.phase == "prefill"]
    assert all(each.output_tokens == each.requests for each in prompts)
    power_w = 2 * meter.power_w
    if window == "whole":
        # Four prompts in 0.5 s, then eight steps: the split is what the fake engine does.
        assert record.metrics["energy_prefill_per_request_j"] == pytest.approx(
            power_w * PREFILL_S / 4
        )
        assert record.metrics["energy_decode_per_output_token_j"] == pytest.approx(
            power_w * STEP_S / 4
        )
