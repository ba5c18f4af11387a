import re
from dataclasses import replace

import pytest

from sweeper.answers.receipt import receipt
from sweeper.errors import StudyError
from sweeper.results.reasons import REASONS
from tests.records import ESTIMATED, make_record, make_window


def a_record(name="abc123", **fields):
    windows = [
        make_window(0, energy_j=3000.0, output_tokens=500, devices=("GPU-a", "GPU-b")),
        make_window(1, energy_j=None, reasons=["counter_reset: GPU-b went down by 3.000 J"]),
        make_window(2, energy_j=3200.0, output_tokens=400, devices=("GPU-a", "GPU-b")),
    ]
    return make_record(name, windows=windows, **fields)


def test_energy_per_token_can_be_followed_from_the_readings():
    record = a_record()
    text = receipt([record], "abc123")
    differences = [
        (float(after), float(before), float(spent))
        for after, before, spent in re.findall(r"GPU-.: (\S+) - (\S+) = (\S+) J", text)
    ]
    assert len(differences) == 4
    assert all(after - before == spent for after, before, spent in differences)
    joules, tokens, ratio = re.search(
        r"(\S+) J / (\d+) tokens out = (\S+) J/token, over 2 of 3 windows", text
    ).groups()
    assert float(joules) == sum(spent for *_, spent in differences)
    assert int(tokens) == 900
    assert float(ratio) == pytest.approx(record.metrics["energy_per_output_token_j"], rel=1e-5)
    assert f"energy_per_output_token_j  {record.metrics['energy_per_output_token_j']:.6g}" in text


def test_a_receipt_tells_what_happened_what_was_looked_at_and_where():
    text = receipt([a_record(environment={"host": "node-7", "versions": {"vllm": "1"}})], "abc")
    for words in (
        "engine loaded in 12.500 s",
        "only 1 of 2 readings",
        "no energy: counter_reset: GPU-b went down by 3.000 J",
        "ok    gpu_free: 0 processes",
        "node-7",
        '{"vllm": "1"}',
        "energy: measured, nvml (counter) of the gpu",
        "±5 %",
        "$ vllm serve some/model",
        "3.00 s?",
    ):
        assert words in text


def test_a_window_tells_what_it_was_judged_by():
    edges = [
        {
            "temperature_c": 57.0,
            "sm_clock_mhz": 1980,
            "violations_s": {"power_cap": 7.0, "thermal": 1.0},
        },
        {
            "temperature_c": 58.0,
            "sm_clock_mhz": 1470,
            "violations_s": {"power_cap": 37.0, "thermal": 1.0},
        },
    ]
    glances = [
        {"monotonic_s": 40.0 * n, "wall_s": 0.0, "devices": {"GPU-a": state}, "failed": None}
        for n, state in enumerate(edges)
    ]
    power = {"samples": 300, "energy_j": 20_731.4, "standard_error_j": 35.25}
    evidence = {"before": glances[0], "after": glances[1], "power": {"GPU-a": power}}
    told = replace(make_window(), evidence=evidence)
    bare = replace(make_window(1), evidence={"before": None, "after": None, "power": {}})
    text = receipt([make_record("abc", windows=[told, bare])], "abc")
    assert (
        "GPU-a: 57 to 58 °C, 1980 to 1470 MHz, power_cap 75% of the time, "
        "300 power samples give 20731.4 ± 35.2 J\n"
    ) in text


def test_every_reason_of_a_discarded_window_has_a_way_out():
    window = make_window(energy_j=None, reasons=["sample_gap: 3 s", "unheard_of: x"])
    text = receipt([make_record("abc", windows=[window])], "abc")
    assert f"no energy: sample_gap: 3 s\n      {REASONS['sample_gap'].remedy}\n" in text
    assert "no energy: unheard_of: x\n" in text


def test_an_estimate_says_so():
    assert "energy: NOT MEASURED, codecarbon" in receipt([a_record(energy=ESTIMATED)], "abc")
    assert "energy: none" in receipt([a_record(energy=None)], "abc")


def test_a_record_without_numbers_gives_its_reason():
    record = make_record("abc", status="infeasible", reason="out of memory", launch_command=None)
    text = receipt([record], "a")
    assert "infeasible: out of memory" in text
    assert "numbers: none" in text


def test_every_launch_of_the_point_is_shown_and_no_other_point():
    records = [a_record(), a_record(launch=1), a_record("abd999")]
    text = receipt(records, "abc")
    assert text.count("abc123  launch") == 2
    assert "abd999" not in text


@pytest.mark.parametrize(
    ("asked", "answer"), [("ab", "abc123, abd999"), ("x", "x"), ("", "abc123")]
)
def test_an_id_that_is_none_or_several(asked, answer):
    with pytest.raises(StudyError, match=answer):
        receipt([a_record(), a_record("abd999")], asked)


def test_a_whole_id_is_that_id_though_another_begins_with_it():
    assert "abc1234  launch" not in receipt([a_record(), a_record("abc1234")], "abc123")
