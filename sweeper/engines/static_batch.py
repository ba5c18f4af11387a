"""A static batch: its prompts in one rectangle, when its tokens came, the events that follow."""

from collections.abc import Iterator, Sequence
from typing import Any

from sweeper.engines import Clock, Event, Request


class TokenTimes:
    """A streamer for transformers' `generate` that keeps the moment of every decoding step.

    `generate` hands it the prompt first, then each step's tokens copied to host memory. That copy
    ends when the device has computed them, so the moments are real without a synchronisation of
    our own. A step of speculation gives several tokens of its one request, at one moment.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._prompt_seen = False
        self.steps = 0
        """Steps of all batches so far; another thread may read it."""
        self.times_s: list[float] = []
        """Moments of the current batch's tokens."""
        self.rows = 0
        """Sequences that the last step gave tokens of."""

    def begin(self) -> None:
        """A new batch starts."""
        self._prompt_seen = False
        self.times_s = []

    def put(self, value: Any) -> None:
        """Called by `generate`."""
        if self._prompt_seen:
            tokens = value.shape[1] if getattr(value, "ndim", 1) > 1 else 1
            self.times_s += [self._clock.now()] * tokens
            self.steps += 1
            self.rows = len(value)
        self._prompt_seen = True

    def end(self) -> None:
        """Called by `generate`."""

    def all_at_once(self, tokens: int) -> None:
        """Tokens that stand only now that the batch has ended."""
        self.times_s = [self._clock.now()] * tokens


def left_padded(requests: Sequence[Request]) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts of one length, padded on the left with token 0, and the mask that hides padding."""
    longest = max(len(request.prompt_token_ids) for request in requests)
    gaps = [longest - len(request.prompt_token_ids) for request in requests]
    prompts = [
        [0] * gap + list(request.prompt_token_ids)
        for gap, request in zip(gaps, requests, strict=True)
    ]
    return prompts, [[0] * gap + [1] * (longest - gap) for gap in gaps]


def batch_positions(requests: Sequence[Request]) -> int:
    """Positions that every row of the batch takes: the longest prompt, the longest output."""
    return max(len(request.prompt_token_ids) for request in requests) + max(
        request.output_tokens for request in requests
    )


def batch_events(
    requests: Sequence[Request], submitted_s: float, times_s: Sequence[float]
) -> Iterator[Event]:
    """The events of one static batch, in the order of time.

    A request that wants fewer tokens than the longest one waits for the batch: its result comes
    with the last token, but what is computed for it meanwhile is not counted as generated.
    """
    for request in requests:
        yield Event("admitted", submitted_s, request.index)
    for request in requests:
        yield Event("first_token", times_s[0], request.index)
    for step, t_s in enumerate(times_s[1:], start=2):
        wanted = sum(request.output_tokens >= step for request in requests)
        yield Event("tokens", t_s, tokens=wanted, running=len(requests))
    for request in requests:
        yield Event("finished", times_s[-1], request.index)
