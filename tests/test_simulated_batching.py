from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.engines import Request
from sweeper.engines.simulated_batching import continuous, static
from sweeper.engines.simulated_decoding import TokenByToken
from tests.simulated import check_stream


class Steps:
    """A step of 1 s, noted."""

    def __init__(self) -> None:
        self.done: list[tuple[int, int, float, float]] = []

    def __call__(self, requests: int, tokens: int, attended: float, cached: float) -> float:
        self.done.append((requests, tokens, attended, cached))
        return float(len(self.done))

    def now(self) -> float:
        return float(len(self.done))


LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=30)


def of_lengths(lengths: Sequence[tuple[int, int]]) -> list[Request]:
    return [Request(place, [0] * i, o) for place, (i, o) in enumerate(lengths)]


@given(lengths=LENGTHS)
def test_a_static_batch_gives_every_request_its_tokens(lengths: list[tuple[int, int]]) -> None:
    batch, step = of_lengths(lengths), Steps()
    events = list(static(batch, step, 0.0, TokenByToken()))
    check_stream(events, batch, len(batch))
    assert len(step.done) == max(request.output_tokens for request in batch)
    assert sum(event.kind == "tokens" for event in events) == len(step.done) - 1


@given(lengths=LENGTHS, in_flight=st.integers(1, 9), budget=st.integers(1, 60))
def test_continuous_batching_gives_every_request_its_tokens(
    lengths: list[tuple[int, int]], in_flight: int, budget: int
) -> None:
    queue, step = of_lengths(lengths), Steps()
    events = list(continuous(iter(queue), in_flight, budget, step, step.now, TokenByToken()))
    check_stream(events, queue, in_flight)
    assert all(tokens <= max(budget, in_flight + 1) for _, tokens, _, _ in step.done)
    worked = sum(tokens for _, tokens, _, _ in step.done)
    assert worked == sum(i + o - 1 for i, o in lengths)
    order = [event.request for event in events if event.kind == "first_token"]
    assert order == sorted(order, key=int)


@given(lengths=LENGTHS, in_flight=st.integers(1, 9), budget=st.integers(1, 60))
def test_what_a_step_looks_back_on_is_what_each_request_has_behind_it(
    lengths: list[tuple[int, int]], in_flight: int, budget: int
) -> None:
    queue, step = of_lengths(lengths), Steps()
    list(continuous(iter(queue), in_flight, budget, step, step.now, TokenByToken()))
    prefills = sum(i * i / 2 for i, _ in lengths)
    decodes = sum(sum(i + done for done in range(o - 1)) for i, o in lengths)
    assert sum(cached for *_, cached in step.done) == pytest.approx(decodes)
    assert sum(attended for *_, attended, _ in step.done) == pytest.approx(prefills + decodes)


@given(lengths=LENGTHS, in_flight=st.integers(1, 9), budget=st.integers(40, 99))
def test_a_prompt_that_is_not_chunked_waits_until_all_of_it_fits(
    lengths: list[tuple[int, int]], in_flight: int, budget: int
) -> None:
    queue, step, decoding = of_lengths(lengths), Steps(), TokenByToken()
    events = list(
        continuous(iter(queue), in_flight, budget, step, step.now, decoding, chunked=False)
    )
    check_stream(events, queue, in_flight)
    assert all(tokens <= budget for _, tokens, _, _ in step.done)
    # Whole prompts only: a pass has new tokens of no other requests than those it counts.
    prompts = {request.index: len(request.prompt_token_ids) for request in queue}
    began: dict[float, int] = {}
    for event in events:
        if event.kind == "first_token" and event.request is not None:
            began[event.t_s] = began.get(event.t_s, 0) + prompts[event.request]
    ran = {event.t_s: event.running for event in events if event.kind == "tokens"}
    passes = [(float(place), done[1]) for place, done in enumerate(step.done, start=1)]
    assert [began.get(t_s, 0) + ran.get(t_s, 0) for t_s, _ in passes] == [n for _, n in passes]
