"""An endpoint against a server that follows a script: every way in which answers go wrong."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Event, Request, engine_traits
from sweeper.engines.endpoint import MOST_FAILED, EndpointEngine
from sweeper.engines.endpoint_stream import Reply
from sweeper.errors import EngineError, Infeasible
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes
from sweeper.trial.latency import Timeline, samples
from tests.fake_server import FakeServer, Script

SIZES = Sizes(max_model_len=64, max_batch_size=8, batch_sizes=(1, 8))


def settings_of(**options: Any) -> Settings:
    return Settings(
        model=ModelSpec(shape="tiny"), engine=EngineSpec(kind="endpoint", options=options)
    )


@contextmanager
def endpoint(script: Script, **options: Any) -> Iterator[tuple[EndpointEngine, FakeServer, Any]]:
    """A loaded engine, its server, and what the engine said; the probe is forgotten."""
    with FakeServer(script) as server:
        engine = EndpointEngine(settings_of(url=server.url, **options), SIZES, (), RealClock())
        try:
            resolved = engine.load()
            server.bodies.clear()
            server.most_running = 0
            yield engine, server, resolved
        finally:
            engine.close()
            engine.close()


def requests(count: int, output_tokens: int = 4) -> list[Request]:
    return [Request(place, [place + 1] * 6, output_tokens) for place in range(count)]


def kinds(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event.kind == kind]


def generated(events: list[Event]) -> int:
    return len(kinds(events, "first_token")) + sum(event.tokens for event in events)


def test_a_batch_is_sent_at_once_with_forced_lengths() -> None:
    with endpoint(Script(), body={"temperature": 0.5}) as (engine, server, resolved):
        events = list(engine.generate(requests(5), Settings()))
        assert resolved["prompts"] == "token ids"
        assert resolved["token_counts"] == "usage of every chunk"
        assert (resolved["model"], resolved["dtype"], resolved["vocabulary"]) == (
            "fake",
            None,
            4096,
        )
        assert len({event.t_s for event in kinds(events, "admitted")}) == 1
        assert generated(events) == 20
        assert sorted(event.request for event in kinds(events, "finished")) == [0, 1, 2, 3, 4]
        assert all(before.t_s <= after.t_s for before, after in pairwise(events))
        sent = sorted(server.bodies, key=lambda body: body["prompt"])
        assert [body["prompt"] for body in sent] == [[n] * 6 for n in (1, 2, 3, 4, 5)]
        forced = {"max_tokens": 4, "min_tokens": 4, "ignore_eos": True, "temperature": 0.5}
        assert all(body.items() >= forced.items() for body in sent)
        assert engine.counts()["generated_tokens"] == engine.progress() == 20


def test_a_closed_loop_has_so_many_in_flight_and_no_more() -> None:
    script = Script(chunks=[(0.01, 1)] * 4)
    with endpoint(script) as (engine, server, _):
        events = list(engine.serve(iter(requests(9)), 3, Settings()))
        assert len(kinds(events, "finished")) == 9
        assert server.most_running == 3
        running = most = 0
        for event in events:
            running += (event.kind == "admitted") - (event.kind == "finished")
            most = max(most, running)
        assert (running, most) == (0, 3)


def test_times_are_at_least_those_of_the_script() -> None:
    """First token after 0.2 s, then 0.1 s, then three tokens at once after 0.3 s."""
    script = Script()
    with endpoint(script) as (engine, _, _):
        script.chunks = [(0.2, 1), (0.1, 1), (0.3, 3)]
        timeline = Timeline()
        for event in engine.generate(requests(1, 5), Settings()):
            timeline.add(event)
    found = samples(timeline, {0: 5}, float("-inf"), float("inf"), streams=True)
    # How much longer than asked for a sleep lasts is up to the machine.
    assert found.ttft_s[0] >= 0.199
    assert found.latency_s[0] >= 0.599
    assert found.tpot_s[0] * 4 == pytest.approx(sum(gap * n for gap, n in found.itl_s))


def chunk(told: int, *, last: bool = False) -> bytes:
    reason = "length" if last else None
    choice = {"index": 0, "text": "", "finish_reason": reason}
    usage = {"prompt_tokens": 6, "completion_tokens": told}
    return b"data: " + json.dumps({"choices": [choice], "usage": usage}).encode() + b"\n\n"


def test_metrics_of_two_streams_by_hand() -> None:
    """Sent at 10 s; chunks in any pieces, at moments that a client would see."""
    first, second = Reply(requests(2, 5)[0]), Reply(requests(2, 3)[1])
    whole = chunk(2)
    pieces = [
        (first, chunk(1), 10.5),
        (second, b": a comment\n\n" + chunk(1), 10.75),
        (first, whole[:30], 11.0),
        (first, whole[30:], 11.5),
        (second, chunk(2), 11.75),
        (first, chunk(4) + chunk(5, last=True), 13.5),
        (second, chunk(3, last=True) + b"data: [DONE]\n\n", 14.75),
    ]
    timeline = Timeline()
    for index in (0, 1):
        timeline.add(Event("admitted", 10.0, index))
    for reply, piece, t_s in pieces:
        for event in reply.take(piece, t_s):
            timeline.add(event)
    assert first.close(15.0) == second.close(15.0) == []
    found = samples(timeline, {0: 5, 1: 3}, float("-inf"), float("inf"), streams=True)
    assert found.ttft_s == (0.5, 0.75)
    assert found.tpot_s == ((13.5 - 10.5) / 4, (14.75 - 10.75) / 2)
    assert found.latency_s == (3.5, 4.75)
    # The fourth and the fifth token came in one piece, and the third with the fourth.
    assert found.plain()["itl_s"] == [(0.0, 2), (1.0, 2), (2.0, 1), (3.0, 1)]


@pytest.mark.parametrize("usage", ["end", "never"])
def test_where_chunks_are_not_counted_for_us_each_is_a_token(usage: str) -> None:
    with endpoint(Script(usage=usage)) as (engine, _, _):
        events = list(engine.generate(requests(2), Settings()))
        assert [event.tokens for event in kinds(events, "tokens")] == [1] * 6
        assert len(kinds(events, "finished")) == 2


def test_tokens_that_only_the_end_tells_of_came_with_the_last_chunk() -> None:
    script = Script(usage="end")
    with endpoint(script) as (engine, _, _):
        script.chunks = [(0.0, 1), (0.0, 2), (0.0, 2)]
        events = list(engine.generate(requests(1, 5), Settings()))
        assert generated(events) == 5
        burst = kinds(events, "tokens")[-1]
        assert (burst.tokens, burst.running) == (2, 0)
        assert events[-1].kind == "finished"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"chunks": [(0.0, 2)] * 2, "usage": "never"}, "2 of 4 tokens.*no usage was told"),
        ({"chunks": [(0.0, 1)] * 3, "reason": "stop"}, "3 of 4 tokens, ended by stop"),
        ({"chunks": [(0.0, 1)] * 5}, "5 of 4 tokens"),
        ({"chunks": [(0.0, 1)] * 5 + [(0.0, -2)], "usage": "end"}, "6 chunks for 3 tokens"),
        ({"cut_after": 2}, "cut after 2 of 4 tokens|ClientPayloadError"),
        ({"cut_after": 0}, "cut after 0|ClientPayloadError"),
        ({"statuses": [500]}, "the server answers 500: no luck"),
        ({"statuses": [429]}, "the server answers 429"),
        ({"chunks": [(0.0, 1), (5.0, 3)]}, "imeout"),
        ({"chunks": [(5.0, 4)]}, "imeout"),
    ],
)
def test_what_goes_wrong_fails_that_request_and_says_why(change: dict[str, Any], said: str) -> None:
    script = Script()
    with endpoint(script, silence_s=1.0) as (engine, _, _):
        before = dict(vars(script))
        vars(script).update(change)
        events = list(engine.generate(requests(1), Settings()))
        assert [event.kind for event in (events[0], events[-1])] == ["admitted", "failed"]

        assert re.search(said, events[-1].detail), events[-1].detail
        vars(script).update(before)
        assert len(kinds(list(engine.generate(requests(2), Settings())), "finished")) == 2


def test_one_that_fails_leaves_the_others_alone() -> None:
    script = Script()
    with endpoint(script) as (engine, _, _):
        script.statuses = [200, 500, 200, 503]
        events = list(engine.serve(iter(requests(6)), 1, Settings()))
        assert [event.request for event in kinds(events, "failed")] == [1, 3]
        assert [event.request for event in kinds(events, "finished")] == [0, 2, 4, 5]


def test_a_server_that_only_fails_is_given_up() -> None:
    script = Script()
    with endpoint(script) as (engine, server, _):
        script.statuses = [500] * 1000
        with pytest.raises(EngineError, match=r"32 requests failed one after the other.*500"):
            list(engine.serve(iter(requests(500)), 2, Settings()))
        assert MOST_FAILED <= len(server.bodies) < 200


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_a_server_never_takes_cannot_be(status: int) -> None:
    script = Script()
    with endpoint(script) as (engine, _, _):
        script.statuses = [status]
        with pytest.raises(Infeasible, match=f"answers {status}"):
            list(engine.generate(requests(3), Settings()))
        assert len(kinds(list(engine.generate(requests(3), Settings())), "finished")) == 3


def test_who_stops_listening_cancels_what_runs() -> None:
    script = Script()
    with endpoint(script) as (engine, server, _):
        script.chunks = [(0.0, 1), (30.0, 3)]
        heard: list[Event] = []
        stream = engine.serve(iter(requests(50)), 4, Settings())
        while sum(event.kind == "first_token" for event in heard) < 4:
            heard.append(next(stream))
        started_s = time.monotonic()
        stream.close()
        while server.running and time.monotonic() < started_s + 5:
            time.sleep(0.01)
        assert (server.running, server.cancelled) == (0, 4)
        assert len(server.bodies) == 4
        script.chunks = None
        events = list(engine.generate(requests(2), Settings()))
        assert len(kinds(events, "finished")) == 2


def test_a_fault_of_the_source_is_not_swallowed() -> None:
    def broken() -> Iterator[Request]:
        yield from requests(2)
        raise ZeroDivisionError("in the source")

    with (
        endpoint(Script()) as (engine, _, _),
        pytest.raises(ZeroDivisionError, match="in the source"),
    ):
        list(engine.serve(broken(), 1, Settings()))


def test_a_server_without_token_ids_gets_as_many_words() -> None:
    with endpoint(Script(takes_ids=False, extra=1)) as (engine, server, resolved):
        assert resolved["prompts"] == "text"
        events = list(engine.generate(requests(2), Settings()))
        assert len(kinds(events, "finished")) == 2
        assert {len(body["prompt"].split()) for body in server.bodies} == {5}


def test_a_prompt_of_another_length_is_no_result() -> None:
    script = Script(takes_ids=False)
    with endpoint(script) as (engine, _, _):
        script.extra = 2
        [failed] = kinds(list(engine.generate(requests(1), Settings())), "failed")
        assert failed.detail == "a prompt of 8 tokens, sent were 6"


def test_what_is_too_long_is_refused_before_it_is_sent() -> None:
    with endpoint(Script()) as (engine, server, _):
        with pytest.raises(Infeasible, match=r"66 positions asked.* 64"):
            list(engine.generate(requests(2, 60), Settings()))
        with pytest.raises(Infeasible, match=r"66 positions asked.* 64"):
            list(engine.serve(iter(requests(2, 60)), 1, Settings()))
        assert server.bodies == []


@pytest.mark.parametrize(
    ("script", "options", "error", "said"),
    [
        (Script(max_model_len=32), {}, Infeasible, "64 tokens, the server takes 32"),
        (Script(), {"model": "other"}, EngineError, "no model other: name one of fake"),
        (Script(chunks=[(0.0, 1)] * 2), {}, Infeasible, "2 of 4 tokens"),
        (Script(key="secret"), {}, EngineError, "answers 401"),
        (Script(), {"api_key_env": "SWEEPER_TEST_NO_KEY"}, EngineError, "NO_KEY is not set"),
    ],
)
def test_a_server_that_will_not_do_is_found_at_load(
    script: Script, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised, endpoint(script, **options):
        pass
    assert isinstance(raised.value, Infeasible) is (error is Infeasible)


def test_nobody_there_is_said_in_time() -> None:
    engine = EndpointEngine(
        settings_of(url="http://127.0.0.1:9", ready_s=0.2), SIZES, (), RealClock()
    )
    with pytest.raises(EngineError, match=r"not ready after 0.2 s: http://127.0.0.1:9"):
        engine.load()
    engine.close()


def test_a_key_comes_from_the_environment_and_is_told_to_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SWEEPER_TEST_KEY", "secret")
    with endpoint(Script(key="secret"), api_key_env="SWEEPER_TEST_KEY") as (engine, _, resolved):
        assert len(kinds(list(engine.generate(requests(1), Settings())), "finished")) == 1
        assert "secret" not in repr(resolved) + engine.launch_command()
    traits = engine_traits("endpoint")
    settings = settings_of(url="http://127.0.0.1:9", api_key_env="SWEEPER_TEST_KEY")
    assert traits.preflight(settings) is None
    monkeypatch.delenv("SWEEPER_TEST_KEY")
    assert "SWEEPER_TEST_KEY is not set" in (traits.preflight(settings) or "")


def test_a_command_that_is_not_there_is_found_before_a_gpu_is_held() -> None:
    settings = settings_of(command="no-such-server-anywhere --port {port}")
    assert "no program no-such-server-anywhere" in (
        engine_traits("endpoint").preflight(settings) or ""
    )
    engine = EndpointEngine(settings, SIZES, (), RealClock())
    with pytest.raises(EngineError, match="cannot be started"):
        engine.load()
    engine.close()


def test_work_before_load_is_refused() -> None:
    engine = EndpointEngine(settings_of(url="http://127.0.0.1:9"), SIZES, (), RealClock())
    with pytest.raises(EngineError, match="not loaded"):
        list(engine.generate(requests(1), Settings()))
    with pytest.raises(EngineError, match="not loaded"):
        list(engine.serve(iter(requests(1)), 1, Settings()))
