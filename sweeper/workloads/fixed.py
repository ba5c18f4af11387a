"""Requests of one length: random tokens, so that no two prompts share a prefix."""

from collections.abc import Iterator, Sequence

import numpy as np

from sweeper.engines import Request
from sweeper.spec import WorkloadSpec


class FixedWorkload:
    """`input_tokens` in, `output_tokens` out, every prompt drawn afresh."""

    def __init__(self, spec: WorkloadSpec, vocabulary: int, seed: int) -> None:
        self._spec = spec
        self._vocabulary = vocabulary
        self._random = np.random.default_rng([spec.seed, seed])
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
        tokens = self._random.integers(self._vocabulary, size=self._spec.input_tokens)
        self._count += 1
        return Request(self._count, tokens.tolist(), output_tokens)
