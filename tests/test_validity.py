"""From evidence to reasons: one rule after the other, at its threshold and on either side of it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.engines import Request
from sweeper.meters import Reading
from sweeper.meters.integral import Integral
from sweeper.results.reasons import REASONS, code_of
from sweeper.trial.evidence import Evidence, Glance, Known
from sweeper.trial.validity import (
    BALANCE,
    CLOCK_STEP_S,
    DEPARTURE,
    DRIFT_C,
    IDLE_SHARE,
    LIMIT_MARGIN,
    MAX_GAP_S,
    SIGMAS,
    SLOWED_SHARE,
    Work,
    balance,
    energy_j,
    evidence_reasons,
    glance_reasons,
    reading_reasons,
    work_reasons,
)


def reading(t_s: float, **joules: float) -> Reading:
    return Reading(t_s, joules)


def glance(at_s: float = 0.0, wall_s: float | None = None, **state: Any) -> Glance:
    devices = {"a": state} if state else {}
    return Glance(
        # A machine that has been up for a while.
        monotonic_s=5000.0 + at_s,
        wall_s=1e9 + (at_s if wall_s is None else wall_s),
        devices=devices,
    )


def codes(reasons: Iterator[str]) -> list[str]:
    found = [code_of(reason) for reason in reasons]
    assert set(found) <= REASONS.keys()
    return found


def between(span_s: float, **spent_j: float) -> tuple[Reading, Reading]:
    """Two readings so far apart, in time and in joules."""
    offset_j = dict.fromkeys(spent_j, 1000.0)
    after = {device: offset_j[device] + joules for device, joules in spent_j.items()}
    return reading(700.0, **offset_j), reading(700.0 + span_s, **after)


def of_readings(opening: Reading, closing: Reading, devices: str = "") -> list[str]:
    return codes(reading_reasons(opening, closing, 5.0, set(devices)))


def test_energy_is_the_sum_over_devices_of_the_differences():
    assert energy_j(reading(0.0, a=5.0, b=7.0), reading(5.0, a=15.0, b=9.5)) == 12.5


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (reading(7.0, a=0.0), reading(12.0, a=9.0), []),
        (reading(7.0, a=0.0), reading(11.999, a=9.0), ["window_too_short"]),
        (reading(0.0, a=1.0, b=1.0), reading(9.0, a=2.0, b=0.5), ["counter_reset"]),
        (reading(0.0, a=1.0, b=1.0), reading(9.0, a=2.0, b=1.0), ["zero_energy"]),
        (reading(0.0, a=1.0, b=1.0), reading(9.0, a=2.0), ["wrong_gpu_count"]),
        (reading(0.0, a=1.0), reading(9.0, a=2.0, b=1.0), ["wrong_gpu_count"]),
        (reading(0.0, a=1.0, b=2.0), reading(1.0, a=1.0, b=1.0),
         ["window_too_short", "zero_energy", "counter_reset"]),
    ],
)  # fmt: skip
def test_what_two_readings_tell_against_themselves(before, after, found):
    assert of_readings(before, after) == found


def test_readings_tell_of_every_gpu_of_the_launch():
    pair = between(9.0, a=9.0)
    assert of_readings(*pair, devices="a") == []
    assert of_readings(*pair, devices="ab") == ["wrong_gpu_count"]
    assert of_readings(*pair, devices="bc") == [], "a meter of something else than GPUs"


def test_reasons_of_readings_name_the_device():
    (reason,) = reading_reasons(reading(0, a=1.0, b=3.0), reading(9, a=2.0, b=1.0), 5.0, set())
    assert reason == "counter_reset: b went down by 2.000 J"
    (reason,) = reading_reasons(reading(0, a=1.0), reading(9, c=2.0), 5.0, set())
    assert reason == "wrong_gpu_count: a, c not in every reading"


def of_evidence(spent_j: float, span_s: float = 10.0, **evidence: Any) -> list[str]:
    opening, closing = between(span_s, a=spent_j)
    return codes(evidence_reasons(opening, closing, Evidence(**evidence)))


@pytest.mark.parametrize(("beyond", "found"), [(-1e-6, []), (1e-6, ["implausible"])])
def test_a_power_far_above_the_limit_is_implausible(beyond, found):
    spent_j = 10.0 * 700.0 * (1 + LIMIT_MARGIN) * (1 + beyond)
    assert of_evidence(spent_j, known=Known(power_limit_w={"a": 700.0})) == found
    state = glance(power_limit_w=700.0)
    assert of_evidence(spent_j, before=state, after=state) == found
    raised = glance(power_limit_w=900.0)
    assert of_evidence(spent_j, before=state, after=raised) == []
    assert of_evidence(spent_j, known=Known(scope="module", power_limit_w={"a": 700.0})) == []
    assert of_evidence(spent_j) == []


@pytest.mark.parametrize(("beyond", "found"), [(1e-6, []), (-1e-6, ["implausible"])])
def test_a_power_far_below_idle_is_implausible(beyond, found):
    known = Known(idle_w={"a": 80.0})
    assert of_evidence(10.0 * 80.0 * IDLE_SHARE * (1 + beyond), known=known) == found


def power(joules: float = 1000.0, **more: Any) -> dict[str, Integral]:
    fields: dict[str, Any] = {
        "energy_j": joules,
        "samples": 100,
        "largest_gap_s": 0.1,
        "bracketed": True,
        "standard_error_j": 0.0,
        "edges_w": (100.0, 100.0),
    }
    return {"a": Integral(**fields | more)}


SAMPLED = Known(power_method={"a": "instant"}, counter_ratio={"a": 0.9})


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("beyond", "found"), [(-1e-4, []), (1e-4, ["counter_departs"])])
def test_a_counter_is_held_against_its_gpus_own_ratio(sign, beyond, found):
    spent_j = 900.0 * (1 + sign * (DEPARTURE + beyond))
    assert of_evidence(spent_j, power=power(), known=SAMPLED) == found
    assert of_evidence(spent_j, power=power(), known=replace(SAMPLED, counter_ratio={})) == []


@given(st.floats(0.0, 0.1), st.floats(-0.3, 0.3))
def test_a_departure_must_stand_out_of_the_samples_scatter(error, off):
    found = of_evidence(
        900.0 * (1 + off), power=power(standard_error_j=1000.0 * error), known=SAMPLED
    )
    edge = max(DEPARTURE, SIGMAS * error)
    if abs(abs(off) - edge) > 1e-9:
        assert found == (["counter_departs"] if abs(off) > edge else [])


def test_a_power_that_lags_may_depart_by_its_lag():
    jumped = power(edges_w=(100.0, 700.0))
    assert of_evidence(1100.0, power=jumped, known=SAMPLED) == ["counter_departs"]
    lagging = replace(SAMPLED, power_method={"a": "usage"})
    assert of_evidence(1100.0, power=jumped, known=lagging) == []
    assert of_evidence(1200.0, power=jumped, known=lagging) == ["counter_departs"]
    assert of_evidence(1100.0, power=power(), known=lagging) == ["counter_departs"]


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"largest_gap_s": MAX_GAP_S}, []),
        ({"largest_gap_s": MAX_GAP_S + 0.001}, ["sample_gap"]),
        ({"bracketed": False}, ["not_bracketed"]),
        ({"bracketed": False, "largest_gap_s": 3.0}, ["not_bracketed", "sample_gap"]),
        ({"standard_error_j": None, "samples": 1}, []),
    ],
)
def test_samples_are_without_gap_on_both_sides_of_a_window(more, found):
    assert of_evidence(900.0, power=power(**more), known=SAMPLED) == found
    badly_off = of_evidence(9000.0, power=power(**more), known=SAMPLED)
    assert badly_off == (found or ([] if "samples" in more else ["counter_departs"]))


def test_a_sampled_device_without_any_sample_is_told():
    assert of_evidence(900.0, known=SAMPLED) == ["not_bracketed"]
    assert of_evidence(900.0) == []


def of_glances(before: Glance | None, after: Glance | None, known: Known = SAMPLED) -> list[str]:
    return codes(glance_reasons(Evidence(before=before, after=after, known=known)))


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_wall_clock_that_is_set_is_a_step(sign):
    step_s = sign * CLOCK_STEP_S
    assert of_glances(glance(0.0), glance(60.0, 60.0 + 0.99 * step_s)) == []
    assert of_glances(glance(0.0), glance(60.0, 60.0 + 1.01 * step_s)) == ["clock_step"]


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_temperature_that_moves_is_a_drift(sign):
    before = glance(temperature_c=60.0)
    assert of_glances(before, glance(9.0, temperature_c=60.0 + sign * DRIFT_C)) == []
    after = glance(9.0, temperature_c=60.0 + sign * (DRIFT_C + 1))
    assert of_glances(before, after) == ["temperature_drift"]
    assert of_glances(glance(sm_clock_mhz=9), after) == []


COUNTED = {
    "thermal": "thermal_slowdown",
    "sw_thermal_slowdown": "thermal_slowdown",
    "hw_thermal_slowdown": "thermal_slowdown",
    "hw_power_brake_slowdown": "power_brake",
    "power_cap": None,
    "sync_boost": None,
}


@pytest.mark.parametrize(("name", "code"), COUNTED.items())
def test_time_that_a_gpu_was_slowed_down_is_counted(name, code):
    before = glance(0.0, violations_s={name: 7.0})
    little = glance(20.0, violations_s={name: 6.999 + 20.0 * SLOWED_SHARE})
    much = glance(20.0, violations_s={name: 7.001 + 20.0 * SLOWED_SHARE})
    assert of_glances(before, little) == []
    assert of_glances(before, much) == ([code] if code else [])


@pytest.mark.parametrize("edge", [0, 1])
@pytest.mark.parametrize(("name", "code"), [*COUNTED.items(), ("hw_slowdown", "thermal_slowdown")])
def test_where_no_time_is_counted_what_holds_at_an_edge_must_do(name, code, edge):
    glances = [glance(0.0, events=["idle"]), glance(20.0, events=["idle"])]
    glances[edge] = replace(glances[edge], devices={"a": {"events": ["idle", name]}})
    assert of_glances(*glances) == ([code] if code else [])
    if name != "hw_slowdown":
        counted = {"violations_s": {name: 7.0}}
        glances = [replace(g, devices={"a": {**g.devices["a"], **counted}}) for g in glances]
        assert of_glances(*glances) == []


def test_a_slowdown_by_the_brake_is_not_one_by_heat():
    braked = glance(9.0, events=["hw_slowdown", "hw_power_brake_slowdown"])
    assert of_glances(glance(events=[]), braked) == ["power_brake"]


@pytest.mark.parametrize("edge", [0, 1])
def test_who_computes_on_a_gpu_besides_the_engine_is_foreign(edge):
    known = Known(compute_pids={"a": [11, 12]})
    glances = [glance(0.0, compute_pids=[11, 12]), glance(9.0, compute_pids=[12])]
    assert of_glances(*glances, known) == []
    glances[edge] = glance(9.0 * edge, compute_pids=[11, 66])
    assert of_glances(*glances, known) == ["foreign_process"]
    assert of_glances(*glances, Known()) == []
    (reason,) = glance_reasons(Evidence(before=glances[0], after=glances[1], known=known))
    assert reason == "foreign_process: a is computed on by 66"


def test_a_gpu_that_cannot_be_looked_at_says_why_once():
    lost = replace(glance(), failed="gpu_lost: a: GPU is lost")
    assert of_glances(
        lost, replace(lost, monotonic_s=lost.monotonic_s + 9, wall_s=lost.wall_s + 9)
    ) == ["gpu_lost"]
    assert of_glances(glance(), None) == []
    assert of_glances(None, None) == []


def of_work(**work: Any) -> list[str]:
    return codes(
        work_reasons(Work(**{"failed": 0, "asked_tokens": 9, "generated_tokens": 9} | work))
    )


def test_work_is_what_was_asked_for():
    assert of_work() == []
    assert of_work(generated_tokens=12) == []
    assert of_work(generated_tokens=8) == ["fewer_tokens"]
    assert of_work(failed=1) == ["requests_failed"]
    assert of_work(failed=1, generated_tokens=8) == ["requests_failed"]
    assert of_work(balance=(None, 2.0)) == ["unbalanced"]


def request(inputs: int, outputs: int) -> Request:
    return Request(0, range(inputs), outputs)


@given(st.integers(1, 4000), st.integers(1, 500), st.integers(1, 200), st.floats(-0.1, 0.1))
def test_balance_is_judged_relative_to_the_workload(inputs, outputs, count, off):
    requests = {0: request(inputs, max(1, outputs // 2)), 1: request(inputs, outputs)}
    seen_in = round(inputs * count * (1 + off))
    found = of_work(balance=balance(seen_in, outputs * count, requests))
    exact = seen_in / (outputs * count) / (inputs / outputs) - 1
    if abs(abs(exact) - BALANCE) > 1e-9:
        assert found == ([] if abs(exact) < BALANCE else ["unbalanced"])


def test_balance_includes_its_limit():
    requests = {0: request(100, 1)}
    assert of_work(balance=balance(102, 1, requests)) == []
    assert of_work(balance=balance(98, 1, requests)) == []
    (reason,) = work_reasons(Work(failed=0, asked_tokens=0, generated_tokens=0,
                                  balance=balance(103, 1, requests)))  # fmt: skip
    assert reason == "unbalanced: 103.000 tokens in per token out, the workload has 100.000"


def test_balance_needs_a_token():
    assert balance(100, 0, {1: request(10, 3)}) == (None, 10 / 3)
