"""What every engine must do, whatever it runs: one suite, run over each by test_engines.py."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
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
        assert subject.resolved[name] == getattr(asked, name)


def a_batch_gives_every_request_exactly_its_tokens(subject: Subject) -> None:
    for requests in (batch(1), batch(3), batch(4, output_tokens=(1, OUTPUT_TOKENS, 2))):
        events = run(subject, requests)
        indices = {request.index for request in requests}
        assert generated(events) == sum(request.output_tokens for request in requests)
        for kind in ("admitted", "first_token", "finished"):
            named = [event.request for event in events if event.kind == kind]
            assert sorted(named) == sorted(indices)
        assert not moments(events, "failed")


def time_goes_forward(subject: Subject) -> None:
    events = run(subject, batch(3))
    assert all(before.t_s <= after.t_s for before, after in pairwise(events))
    admitted, first, finished = (
        moments(events, kind) for kind in ("admitted", "first_token", "finished")
    )
    assert len(set(admitted.values())) == 1
    for index, sent_s in admitted.items():
        assert sent_s < first[index] < finished[index]


def every_step_tells_how_many_ran(subject: Subject) -> None:
    """A token for each that runs; where a draft proposes, up to as many as are verified."""
    steps = [event for event in run(subject, batch(3)) if event.kind == "tokens"]
    most, further = most_tokens(subject), OUTPUT_TOKENS - 1
    assert {step.request for step in steps} == {None}
    assert sum(step.tokens for step in steps) == 3 * further
    if streams_apart(subject):
        # Tokens that came in one burst with a first one are a step without anybody waiting.
        assert all(0 <= step.running <= 3 for step in steps)
        return
    assert -(-further // most) <= len(steps) <= further
    assert steps[0].running == 3
    assert all(before.running >= after.running for before, after in pairwise(steps))
    assert all(step.running <= step.tokens <= step.running * most for step in steps)


def the_same_requests_give_the_same_events(subject: Subject) -> None:
    told = []
    for _ in range(2):
        events = run(subject, batch(3))
        if streams_apart(subject):
            assert generated(events) == 3 * OUTPUT_TOKENS
            events = [event for event in events if event.kind != "tokens"]
        told.append([(event.kind, event.request, event.tokens) for event in events])
    assert told[0] == told[1]


def a_batch_that_does_not_fit_leaves_it_working(subject: Subject) -> None:
    with pytest.raises(Infeasible):
        run(subject, subject.absurd)
    assert generated(run(subject, batch(2))) == 2 * OUTPUT_TOKENS


def continuous_batching_is_done_or_refused(subject: Subject) -> None:
    requests = batch(6)
    if not subject.engine.continuous:
        with pytest.raises(Infeasible, match="static"):
            next(subject.engine.serve(iter(requests), 2, subject.settings))
        return
    events = list(subject.engine.serve(iter(requests), 2, subject.settings))
    assert generated(events) == 6 * OUTPUT_TOKENS
    assert max(event.running for event in events if event.kind == "tokens") <= 2


def progress_and_counts_go_up(subject: Subject) -> None:
    before = subject.engine.progress()
    run(subject, batch(2))
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
    progress_and_counts_go_up,
    it_says_how_a_person_launches_it,
    it_says_what_it_is,
)
