"""What lies between two edges: tokens, requests, samples, joules."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.engines import Event, Request
from sweeper.meters import Reading
from sweeper.trial.latency import Timeline, samples
from sweeper.trial.windows import BALANCE, Edges, energy_j, spread, unbalanced, window


def reading(t_s: float, **joules: float) -> Reading:
    return Reading(t_s, {device.replace("_", "-"): value for device, value in joules.items()})


def timeline_of(*events: Event) -> Timeline:
    timeline = Timeline()
    for event in events:
        timeline.add(event)
    return timeline


def request(index: int, inputs: int = 10, outputs: int = 3) -> Request:
    return Request(index, range(inputs), outputs)


TWO = timeline_of(
    Event("admitted", 10.0, 1),
    Event("admitted", 10.0, 2),
    Event("first_token", 11.0, 1),
    Event("first_token", 11.0, 2),
    Event("tokens", 12.0, tokens=2, running=2),
    Event("tokens", 14.0, tokens=2, running=2),
    Event("finished", 14.0, 1),
    Event("finished", 14.0, 2),
)


def test_energy_is_the_sum_over_devices_of_the_differences():
    assert energy_j(reading(0.0, a=5.0, b=7.0), reading(5.0, a=15.0, b=9.5), 5.0) == (12.5, None)


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        (reading(7.0, a=0.0), reading(11.999, a=9.0), "window_too_short"),
        (reading(0.0, a=1.0, b=1.0), reading(9.0, a=2.0, b=0.5), "counter_reset"),
        (reading(0.0, a=1.0, b=1.0), reading(9.0, a=2.0, b=1.0), "zero_energy"),
        (reading(0.0, a=1.0, b=1.0), reading(9.0, a=2.0), "wrong_gpu_count"),
        (reading(0.0, a=1.0), reading(9.0, a=2.0, b=1.0), "wrong_gpu_count"),
    ],
)
def test_no_number_without_a_reason(before, after, code):
    joules, reason = energy_j(before, after, 5.0)
    assert joules is None
    assert reason.startswith(f"{code}: ")


def test_reasons_name_the_device():
    _, reason = energy_j(reading(0.0, a=1.0, b=3.0), reading(9.0, a=2.0, b=1.0), 5.0)
    assert reason == "counter_reset: b went down by 2.000 J"
    _, reason = energy_j(reading(0.0, a=1.0), reading(9.0, c=2.0), 5.0)
    assert reason == "wrong_gpu_count: a, c"


def taken(convention: str = "whole", *, edges: Edges, timeline: Timeline = TWO, **more):
    requests = {index: request(index) for index in timeline.requests}
    return window(
        index=more.pop("index", 0),
        convention=convention,
        edges=edges,
        timeline=timeline,
        requests=more.pop("requests", requests),
        min_window_s=more.pop("min_window_s", 4.0),
        gpus=more.pop("gpus", 2),
        streams=more.pop("streams", True),
    )


WHOLE = Edges(
    started_s=10.0, ended_s=14.0, opening=reading(9.5, a=0.0), closing=reading(14.5, a=60.0)
)


def test_a_whole_window_by_hand():
    found = taken(edges=WHOLE, index=3)
    assert (found.index, found.convention, found.reason) == (3, "whole", None)
    assert (found.started_s, found.ended_s, found.duration_s) == (10.0, 14.0, 4.0)
    assert (found.requests, found.requests_failed) == (2, 0)
    assert (found.input_tokens, found.output_tokens) == (20, 6)
    assert found.energy_j == 60.0
    assert found.samples == {
        "ttft_s": [1.0, 1.0],
        "tpot_s": [1.5, 1.5],
        "latency_s": [4.0, 4.0],
        "itl_s": [(1.0, 2), (2.0, 2)],
    }
    assert found.readings == [
        {"t_s": 9.5, "energy_j": {"a": 0.0}},
        {"t_s": 14.5, "energy_j": {"a": 60.0}},
    ]
    assert found.metrics["energy_per_output_token_j"] == 10.0
    assert found.metrics["power_mean_w"] == 60.0 / 5.0
    assert found.metered_s == 5.0
    assert found.metrics["output_tokens_per_s"] == 1.5
    assert found.metrics["latency_mean_s"] == 4.0


def test_work_that_began_on_the_edge_belongs_to_a_whole_window_but_not_to_a_steady_one():
    edges = Edges(started_s=11.0, ended_s=14.0, opening=None, closing=None, reason="x: y")
    assert taken("whole", edges=edges).output_tokens == 6
    assert taken("steady", edges=edges).output_tokens == 4


def test_a_steady_window_counts_what_happened_after_its_start_up_to_its_end():
    edges = Edges(started_s=10.5, ended_s=12.0, opening=None, closing=None, reason="x: y")
    found = taken("steady", edges=edges)
    assert (found.input_tokens, found.output_tokens, found.requests) == (20, 4, 0)
    assert found.samples == {"itl_s": [(1.0, 2)]}
    later = taken("steady", edges=replace(edges, started_s=12.0, ended_s=14.0))
    assert (later.input_tokens, later.output_tokens, later.requests) == (0, 2, 2)


def test_the_pause_between_two_batches_is_nobodys_token_gap():
    second = [
        Event("admitted", 14.0, 3),
        Event("first_token", 15.0, 3),
        Event("tokens", 15.5, tokens=1, running=1),
        Event("finished", 15.5, 3),
    ]
    first = [
        Event("admitted", 10.0, 1),
        Event("first_token", 11.0, 1),
        Event("tokens", 11.25, tokens=1, running=1),
        Event("finished", 11.25, 1),
    ]
    timeline = timeline_of(*first, *second)
    assert [gap for _, _, gap in timeline.steps] == [0.25, 0.5]


def test_a_prefill_among_running_requests_is_part_of_their_token_gap():
    timeline = timeline_of(
        Event("admitted", 10.0, 1),
        Event("first_token", 11.0, 1),
        Event("tokens", 11.25, tokens=1, running=1),
        Event("admitted", 11.25, 2),
        Event("first_token", 12.0, 2),
        Event("tokens", 12.25, tokens=2, running=2),
    )
    assert [gap for _, _, gap in timeline.steps] == [0.25, 1.0]


def test_what_came_in_one_burst_was_waited_for_once():
    """Of five tokens each, one request gets four at once after its first, one two and two."""
    timeline = timeline_of(
        Event("admitted", 10.0, 1),
        Event("admitted", 10.0, 2),
        Event("first_token", 11.0, 1),
        Event("first_token", 11.0, 2),
        Event("tokens", 12.0, tokens=6, running=2),
        Event("finished", 12.0, 1),
        Event("tokens", 14.0, tokens=2, running=1),
        Event("finished", 14.0, 2),
    )
    assert timeline.steps == [(12.0, 2, 1.0), (12.0, 4, 0.0), (14.0, 1, 2.0), (14.0, 1, 0.0)]
    found = samples(timeline, {1: 5, 2: 5}, 0.0, 20.0, streams=True)
    assert found.tpot_s == (1.0 / 4, 3.0 / 4)
    assert found.plain()["itl_s"] == [(0.0, 5), (1.0, 2), (2.0, 1)]
    waited_s = sum(gap * tokens for gap, tokens in found.itl_s)
    assert waited_s == pytest.approx(sum(tpot * 4 for tpot in found.tpot_s))


def test_a_token_that_came_with_its_first_one_had_no_gap():
    timeline = timeline_of(
        Event("admitted", 10.0, 1),
        Event("first_token", 11.0, 1),
        Event("tokens", 11.0, tokens=2),
        Event("tokens", 12.5, tokens=1, running=1),
    )
    assert timeline.steps == [(11.0, 2, 0.0), (12.5, 1, 1.5)]


def test_a_failed_reading_keeps_the_performance():
    edges = Edges(
        started_s=10.0, ended_s=14.0, opening=None, closing=None, reason="gpu_lost: GPU-a"
    )
    found = taken(edges=edges)
    assert (found.energy_j, found.reason, found.readings) == (None, "gpu_lost: GPU-a", [])
    assert found.metrics["output_tokens_per_s"] == 1.5
    assert not any("energy" in name or "power" in name for name in found.metrics)


def test_one_reading_is_kept_but_gives_no_energy():
    edges = Edges(
        started_s=10.0,
        ended_s=14.0,
        opening=reading(9.5, a=1.0),
        closing=None,
        reason="gpu_lost: GPU-a",
    )
    found = taken(edges=edges)
    assert found.energy_j is None
    assert len(found.readings) == 1


def test_a_reason_of_the_edges_wins_over_good_readings():
    edges = Edges(
        started_s=10.0,
        ended_s=14.0,
        opening=WHOLE.opening,
        closing=WHOLE.closing,
        reason="clock_step: 3 s",
    )
    found = taken(edges=edges)
    assert (found.energy_j, found.reason) == (None, "clock_step: 3 s")


def test_failed_requests_take_the_energy():
    timeline = timeline_of(
        Event("admitted", 10.0, 1),
        Event("admitted", 10.0, 2),
        Event("first_token", 11.0, 1),
        Event("tokens", 12.0, tokens=1, running=1),
        Event("finished", 12.0, 1),
        Event("failed", 12.0, 2, detail="refused"),
    )
    found = taken(edges=WHOLE, timeline=timeline)
    assert (found.energy_j, found.reason) == (None, "requests_failed: 1")
    assert (found.requests, found.requests_failed) == (1, 1)


def test_every_reason_is_kept_the_gravest_first():
    timeline = timeline_of(Event("admitted", 10.0, 1), Event("failed", 12.0, 1))
    edges = Edges(started_s=10.0, ended_s=14.0, opening=None, closing=None, reason="gpu_lost: a")
    assert taken(edges=edges, timeline=timeline).reasons == ("gpu_lost: a", "requests_failed: 1")


def test_an_engine_that_does_not_stream_tells_only_latencies():
    assert set(taken(edges=WHOLE, streams=False).samples) == {"latency_s"}


def test_one_output_token_has_no_tpot():
    timeline = timeline_of(
        Event("admitted", 1.0, 1), Event("first_token", 2.0, 1), Event("finished", 2.0, 1)
    )
    found = taken(edges=WHOLE, timeline=timeline, requests={1: request(1, outputs=1)})
    assert found.samples == {"ttft_s": [1.0], "latency_s": [1.0]}


def test_a_steady_window_out_of_balance_has_no_energy():
    edges = Edges(
        started_s=10.5,
        ended_s=14.0,
        opening=reading(10.5, a=0.0),
        closing=reading(14.5, a=60.0),
    )
    balanced = taken("steady", edges=edges)
    assert (balanced.energy_j, balanced.reason) == (60.0, None)
    off = taken("steady", edges=replace(edges, ended_s=12.0))
    assert off.energy_j is None
    assert off.reason.startswith("unbalanced: 5.000 tokens in per token out")
    assert taken("whole", edges=replace(edges, ended_s=12.0)).energy_j == 60.0


@given(st.integers(1, 4000), st.integers(1, 500), st.integers(1, 200), st.floats(-0.1, 0.1))
def test_balance_is_judged_relative_to_the_workload(inputs, outputs, count, off):
    requests = {0: Request(0, range(inputs), max(1, outputs // 2)), 1: request(1, inputs, outputs)}
    seen_in = round(inputs * count * (1 + off))
    reason = unbalanced(seen_in, outputs * count, requests)
    exact = seen_in / (outputs * count) / (inputs / outputs) - 1
    if abs(abs(exact) - BALANCE) > 1e-9:
        assert (reason is None) == (abs(exact) < BALANCE)


def test_balance_includes_its_limit():
    requests = {0: request(0, 100, 1)}
    assert unbalanced(102, 1, requests) is None
    assert unbalanced(98, 1, requests) is None
    assert unbalanced(103, 1, requests) == (
        "unbalanced: 103.000 tokens in per token out, the workload has 100.000"
    )


def test_balance_needs_a_token():
    assert unbalanced(100, 0, {1: request(1)}) == (
        "unbalanced: no token was generated inside the window"
    )


def test_spread_of_durations():
    assert spread([2.0, 2.5, 2.2]) == pytest.approx(0.25)
    assert spread([2.0, 2.0]) == 0.0
    assert spread([0.5, 0.75]) == pytest.approx(0.5)
    assert spread([2.0]) == float("inf")
    assert spread([]) == float("inf")
    assert spread([0.0, 2.0]) == float("inf")
    assert spread([-1.0, 2.0]) == float("inf")


@given(
    st.lists(st.tuples(st.floats(0.01, 3.0), st.integers(1, 4)), min_size=1, max_size=30),
    st.floats(0, 60),
    st.floats(0, 60),
)
def test_tokens_between_any_edges_are_those_of_a_plain_count(steps, one, other):
    start_s, end_s = sorted((one, other))
    t_s, events = 1.0, [Event("admitted", 0.0, 7), Event("first_token", 1.0, 7)]
    for gap, tokens in steps:
        t_s += gap
        events.append(Event("tokens", t_s, tokens=tokens, running=tokens))
    edges = Edges(started_s=start_s, ended_s=end_s, opening=None, closing=None, reason="x: y")
    found = taken("steady", edges=edges, timeline=timeline_of(*events))
    expected = sum(e.tokens for e in events if e.kind == "tokens" and start_s < e.t_s <= end_s)
    expected += start_s < 1.0 <= end_s
    assert found.output_tokens == expected
    assert found.input_tokens == (10 if start_s < 1.0 <= end_s else 0)
