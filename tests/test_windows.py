"""What lies between two edges: tokens, requests, samples, joules."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.engines import Event, Request
from sweeper.meters import Reading
from sweeper.results.reasons import code_of
from sweeper.trial.evidence import Evidence, Glance, Known
from sweeper.trial.latency import Timeline, samples
from sweeper.trial.windows import Edges, spread, window


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
    assert found.evidence["work"] == {
        "failed": 0,
        "asked_tokens": 6,
        "generated_tokens": 6,
        "balance": None,
    }
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


def test_tokens_of_one_request_wait_for_its_own_last_ones():
    timeline = timeline_of(
        Event("admitted", 10.0, 1),
        Event("admitted", 10.0, 2),
        Event("first_token", 11.0, 1),
        Event("first_token", 11.5, 2),
        Event("tokens", 11.5, 2, tokens=1),
        Event("tokens", 12.0, 1, tokens=1, running=1),
        Event("tokens", 12.5, 2, tokens=3, running=1),
        Event("finished", 12.5, 2),
        Event("tokens", 14.0, 1, tokens=1, running=1),
        Event("finished", 14.0, 1),
    )
    assert timeline.steps == [
        (11.5, 1, 0.0),
        (12.0, 1, 1.0),
        (12.5, 1, 1.0),
        (12.5, 2, 0.0),
        (14.0, 1, 2.0),
    ]
    found = samples(timeline, {1: 3, 2: 5}, 0.0, 20.0, streams=True)
    assert (found.ttft_s, found.tpot_s) == ((1.0, 1.5), (3.0 / 2, 1.0 / 4))
    assert sum(gap * tokens for gap, tokens in found.itl_s) == 4.0


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


@pytest.mark.parametrize("convention", ["whole", "steady"])
def test_requests_that_ended_early_take_the_energy(convention):
    edges = replace(WHOLE, started_s=10.5) if convention == "steady" else WHOLE
    requests = {1: request(1, outputs=4), 2: request(2, outputs=3)}
    found = taken(convention, edges=edges, requests=requests)
    assert found.energy_j is None
    assert found.reasons[0] == "fewer_tokens: 6 generated of 7 asked for"
    assert found.discarded_j == 60.0


def test_what_speaks_against_a_window_is_found_by_all_rules_at_once():
    before = Glance(monotonic_s=0.0, wall_s=0.0, devices={"a": {"temperature_c": 30.0}})
    after = Glance(monotonic_s=9.0, wall_s=19.0, devices={"a": {"temperature_c": 60.0}})
    known = Known(devices=("a",), power_method={"a": "instant"}, power_limit_w={"a": 10.0})
    edges = replace(WHOLE, evidence=Evidence(before=before, after=after, known=known))
    found = taken(edges=edges, requests={1: request(1, outputs=4), 2: request(2)}, min_window_s=9)
    assert [code_of(reason) for reason in found.reasons] == [
        "implausible",
        "window_too_short",
        "temperature_drift",
        "not_bracketed",
        "clock_step",
        "fewer_tokens",
    ]
    json.dumps(found.evidence, allow_nan=False)
    assert found.evidence["before"]["devices"] == {"a": {"temperature_c": 30.0}}
    assert found.evidence["known"]["power_limit_w"] == {"a": 10.0}


def test_a_steady_window_without_a_token_has_no_ratio():
    edges = Edges(started_s=14.0, ended_s=15.0, opening=None, closing=None, reason="x: y")
    found = taken("steady", edges=edges)
    assert found.reasons == ("unbalanced: no token was generated inside the window", "x: y")
    assert tuple(found.evidence["work"]["balance"]) == (None, 10 / 3)


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
