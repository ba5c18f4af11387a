"""Requests of one length: random tokens, so that no two prompts share a prefix."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np

from sweeper.engines import Request
from sweeper.spec import WorkloadSpec


class Prompt(Sequence[int]):
    """Random token ids, drawn when somebody looks at them: a simulation only asks how many."""

    def __init__(self, seed: Sequence[int], vocabulary: int, length: int) -> None:
        self._seed = seed
        self._vocabulary = vocabulary
        self._length = length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        return iter(self._tokens())

    @overload
    def __getitem__(self, place: int) -> int: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[int]: ...
    def __getitem__(self, place: int | slice) -> int | Sequence[int]:
        return self._tokens()[place]

    def _tokens(self) -> list[int]:
        drawn = np.random.default_rng(self._seed).integers(self._vocabulary, size=self._length)
        tokens: list[int] = drawn.tolist()
        return tokens


class FixedWorkload:
    """`input_tokens` in, `output_tokens` out, every prompt drawn afresh."""

    def __init__(self, spec: WorkloadSpec, vocabulary: int, seed: int) -> None:
        self._spec = spec
        self._vocabulary = vocabulary
        self._seed = seed
        self._count = 0

    def batch(self, size: int) -> Sequence[Request]:
        """The next `size` requests."""
        return [self._request(self._spec.output_tokens) for _ in range(size)]

    def stream(self, in_flight: int) -> Iterator[Request]:
        """Requests without end.

        The first `in_flight` end at evenly spread moments, as requests in a steady state do:
        started together at full length, they would prefill together ever after.
        """
        output = self._spec.output_tokens
        for slot in range(in_flight):
            yield self._request(max(1, -(-output * (slot + 1) // in_flight)))
        while True:
            yield self._request(output)

    def _request(self, output_tokens: int) -> Request:
        self._count += 1
        prompt = Prompt(
            (self._spec.seed, self._seed, self._count), self._vocabulary, self._spec.input_tokens
        )
        return Request(self._count, prompt, output_tokens)
