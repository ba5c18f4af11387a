from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.engines import Request
from sweeper.engines.simulated_batching import continuous, static
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
    events = list(static(batch, step, 0.0))
    check_stream(events, batch, len(batch))
    assert len(step.done) == max(request.output_tokens for request in batch)
    assert sum(event.kind == "tokens" for event in events) == len(step.done) - 1


@given(lengths=LENGTHS, in_flight=st.integers(1, 9), budget=st.integers(1, 60))
def test_continuous_batching_gives_every_request_its_tokens(
    lengths: list[tuple[int, int]], in_flight: int, budget: int
) -> None:
    queue, step = of_lengths(lengths), Steps()
    events = list(continuous(iter(queue), in_flight, budget, step, step.now))
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
    list(continuous(iter(queue), in_flight, budget, step, step.now))
    prefills = sum(i * i / 2 for i, _ in lengths)
    decodes = sum(sum(i + done for done in range(o - 1)) for i, o in lengths)
    assert sum(cached for *_, cached in step.done) == pytest.approx(decodes)
    assert sum(attended for *_, attended, _ in step.done) == pytest.approx(prefills + decodes)
