"""What every engine must do, whatever it runs: one suite.

test_engines.py runs it over each, test_endpoint_vllm.py over a server of completions.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise
from typing import Any

import pytest

from sweeper.engines import Engine, Event, Request
from sweeper.errors import Infeasible
from sweeper.spec import EngineSpec, Settings
from sweeper.speculation import verified_tokens

INPUT_TOKENS, OUTPUT_TOKENS = 12, 5
ALWAYS_NAMED = {"vocabulary", "dtype", "tensor_parallel", "graphs", "compile", "devices"}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A loaded engine, what it said of itself, and a way to have another one."""

    engine: Engine
    resolved: Mapping[str, Any]
    settings: Settings
    make: Callable[[], Engine]
    absurd: Sequence[Request]
    """A batch that does not fit, wherever this runs."""
    unknown: frozenset[str] = frozenset()
    """Settings that cannot be seen from outside: they are told of as `None`."""
    together: bool = True
    """Whether a step is told of as a whole; else each request's tokens come by themselves."""
    most_requests: int = 4
    """Larger batches than this are more than the engine takes at a time."""

    serves: bool = True
    """Whether it batches continuously with these settings, where it does at all."""

    def batch(self, size: int, output_tokens: Sequence[int] = (OUTPUT_TOKENS,)) -> list[Request]:
        """As `batch` makes it, as large as the engine takes."""
        return batch(min(size, self.most_requests), output_tokens)


def batch(size: int, output_tokens: Sequence[int] = (OUTPUT_TOKENS,)) -> list[Request]:
    """Prompts that differ; output lengths are taken in turns."""
    return [
        Request(
            100 + place,
            [(7 * place + position) % 1000 for position in range(INPUT_TOKENS)],
            output_tokens[place % len(output_tokens)],
        )
        for place in range(size)
    ]


def run(subject: Subject, requests: Sequence[Request]) -> list[Event]:
    return list(subject.engine.generate(requests, subject.settings))


def streams_apart(subject: Subject) -> bool:
    """Whether requests are streams of their own, which give what came meanwhile in one burst.

    vLLM's asynchronous engine merges the outputs of steps that nobody has listened to yet.
    """
    return subject.settings.engine.mode == "online"


def most_tokens(subject: Subject) -> int:
    """The most that one step may give of a request."""
    further = OUTPUT_TOKENS - 1
    return further if streams_apart(subject) else verified_tokens(subject.settings.engine)


def generated(events: Sequence[Event]) -> int:
    return sum(event.kind == "first_token" for event in events) + sum(
        event.tokens for event in events
    )


def moments(events: Sequence[Event], kind: str) -> dict[int | None, float]:
    return {event.request: event.t_s for event in events if event.kind == kind}


def it_says_what_it_resolved_to(subject: Subject) -> None:
    assert json.loads(json.dumps(subject.resolved, allow_nan=False)) == dict(subject.resolved)
    assert set(subject.resolved) >= ALWAYS_NAMED
    assert subject.resolved["vocabulary"] >= 1000
    default, asked = EngineSpec(), subject.settings.engine
    for name in {field.name for field in fields(EngineSpec)} - {"kind", "env"}:
        unset = getattr(asked, name) == getattr(default, name)
        assert name in subject.resolved or unset, f"{name} was asked for and is not told of"
    for name in ("dtype", "tensor_parallel", "pipeline_parallel", "data_parallel", "compile"):
        known = None if name in subject.unknown else getattr(asked, name)
        assert subject.resolved[name] == known


def a_batch_gives_every_request_exactly_its_tokens(subject: Subject) -> None:
    mixed = subject.batch(4, output_tokens=(1, OUTPUT_TOKENS, 2))
    for requests in (batch(1), subject.batch(3), mixed):
        events = run(subject, requests)
        indices = {request.index for request in requests}
        assert generated(events) == sum(request.output_tokens for request in requests)
        for kind in ("admitted", "first_token", "finished"):
            named = [event.request for event in events if event.kind == kind]
            assert sorted(named) == sorted(indices)
        assert not moments(events, "failed")


def time_goes_forward(subject: Subject) -> None:
    events = run(subject, subject.batch(3))
    assert all(before.t_s <= after.t_s for before, after in pairwise(events))
    admitted, first, finished = (
        moments(events, kind) for kind in ("admitted", "first_token", "finished")
    )
    assert len(set(admitted.values())) == 1
    assert admitted.keys() == first.keys() == finished.keys()
    for index, sent_s in admitted.items():
        assert sent_s < first[index] <= finished[index]
        # What does not stream comes whole.
        assert (first[index] < finished[index]) is subject.settings.workload.streams


def every_step_tells_how_many_ran(subject: Subject) -> None:
    """A token for each that runs; where a draft proposes, up to as many as are verified."""
    requests = subject.batch(3)
    steps = [event for event in run(subject, requests) if event.kind == "tokens"]
    most, further = most_tokens(subject), OUTPUT_TOKENS - 1
    assert sum(step.tokens for step in steps) == len(requests) * further
    if not subject.together:
        told = Counter[int | None]()
        for step in steps:
            told[step.request] += step.tokens
            assert step.running <= 1 <= step.tokens
        assert told == {100: further, 101: further, 102: further}
        return
    assert {step.request for step in steps} == {None}
    if streams_apart(subject):
        # Tokens that came in one burst with a first one are a step without anybody waiting.
        assert all(0 <= step.running <= len(requests) for step in steps)
        return
    assert -(-further // most) <= len(steps) <= further
    assert steps[0].running == len(requests)
    assert all(before.running >= after.running for before, after in pairwise(steps))
    assert all(step.running <= step.tokens <= step.running * most for step in steps)


def the_same_requests_give_the_same_events(subject: Subject) -> None:
    """Where each request's tokens come by themselves, in what order is up to the network."""
    told = []
    for _ in range(2):
        requests = subject.batch(3)
        events = run(subject, requests)
        if streams_apart(subject):
            assert generated(events) == len(requests) * OUTPUT_TOKENS
            events = [event for event in events if event.kind != "tokens"]
        told.append([(event.kind, event.request, event.tokens) for event in events])
    if not subject.together:
        told = [_by_request(each) for each in told]
    assert told[0] == told[1]


def _by_request(told: Sequence[tuple[str, int | None, int]]) -> list[tuple[str, int | None, int]]:
    """Each request's events of a kind as one, with all of their tokens."""
    tokens = Counter[tuple[str, int | None]]()
    for kind, request, count in told:
        tokens[kind, request] += count
    return sorted((kind, request, count) for (kind, request), count in tokens.items())


def a_batch_that_does_not_fit_leaves_it_working(subject: Subject) -> None:
    with pytest.raises(Infeasible):
        run(subject, subject.absurd)
    requests = subject.batch(2)
    assert generated(run(subject, requests)) == len(requests) * OUTPUT_TOKENS


def continuous_batching_is_done_or_refused(subject: Subject) -> None:
    requests = batch(6)
    if not (subject.engine.continuous and subject.serves):
        with pytest.raises(Infeasible, match="static"):
            next(subject.engine.serve(iter(requests), 2, subject.settings))
        return
    events = list(subject.engine.serve(iter(requests), 2, subject.settings))
    assert generated(events) == 6 * OUTPUT_TOKENS
    assert max(event.running for event in events if event.kind == "tokens") <= 2
    in_flight = accumulate(
        (event.kind == "admitted") - (event.kind == "finished") for event in events
    )
    assert max(in_flight) == 2


def who_stops_listening_cancels_what_runs(subject: Subject) -> None:
    """What is asked for next comes without anything of what was left behind."""
    if not (subject.engine.continuous and subject.serves):
        return
    stream = subject.engine.serve(iter(batch(6)), 2, subject.settings)
    assert next(stream).kind == "admitted"
    stream.close()
    requests = [Request(7, batch(1)[0].prompt_token_ids, OUTPUT_TOKENS)]
    events = run(subject, requests)
    assert {event.request for event in events} <= {None, 7}
    assert generated(events) == OUTPUT_TOKENS


def progress_and_counts_go_up(subject: Subject) -> None:
    before = subject.engine.progress()
    run(subject, subject.batch(2))
    most = most_tokens(subject)
    assert subject.engine.progress() >= before + 1 - (1 - OUTPUT_TOKENS) // most
    counts = subject.engine.counts()
    assert counts["peak_memory_bytes"] > 0
    assert all(math.isfinite(count) and count >= 0 for count in counts.values())


def it_says_how_a_person_launches_it(subject: Subject) -> None:
    assert subject.engine.launch_command().strip()
    assert subject.make().launch_command() == subject.engine.launch_command()


def it_says_what_it_is(subject: Subject) -> None:
    kind = type(subject.engine)
    for capability in (kind.streams, kind.continuous, kind.needs_gpu):
        assert isinstance(capability, bool)
    assert isinstance(kind.isolated(subject.settings), bool)


def it_closes_twice_loaded_or_not(subject: Subject) -> None:
    engine = subject.make()
    engine.close()
    engine.close()
    engine = subject.make()
    assert set(engine.load()) == set(subject.resolved)
    engine.close()
    engine.close()
    assert generated(run(subject, batch(1))) == OUTPUT_TOKENS


CONTRACT = (
    it_says_what_it_resolved_to,
    a_batch_gives_every_request_exactly_its_tokens,
    time_goes_forward,
    every_step_tells_how_many_ran,
    the_same_requests_give_the_same_events,
    a_batch_that_does_not_fit_leaves_it_working,
    continuous_batching_is_done_or_refused,
    who_stops_listening_cancels_what_runs,
    progress_and_counts_go_up,
    it_says_how_a_person_launches_it,
    it_says_what_it_is,
)
