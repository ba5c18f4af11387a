"""Requests that decode together: a token a step each, or what is accepted of a draft's proposals.

A token a step costs nothing per request; with a draft every step looks at each of them.
"""

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from sweeper.engines import Request

DraftPass = Callable[[int, float, float], None]
"""Does one forward pass of the draft model: new tokens, what these look back on summed over them,
cached tokens read."""


class Decoding(Protocol):
    """Requests whose first token has come. `context` sums what they cache.

    `width` is how many tokens of each a pass computes, `attended` what these look back on, summed.
    """

    width: int
    context: float

    @property
    def attended(self) -> float: ...

    def __len__(self) -> int: ...

    def propose(self, prompt_tokens: int, attended: float) -> None:
        """What a draft does before a pass, which also reads so much of prompts."""
        ...

    def advance(self) -> int:
        """A pass was done; the tokens that it gave."""
        ...

    def add(self, request: Request) -> None:
        """Its first token came with the last pass."""
        ...

    def ended(self) -> Iterator[int]:
        """Those whose last token came with the last pass; they leave."""
        ...


class TokenByToken:
    """A token a step for each request, kept by the step of their last.

    With `beams` as many texts of each go on, of which one is told of.
    """

    def __init__(self, beams: int = 1) -> None:
        self.width = beams
        self.context = 0.0
        self._done = 0
        self._heap: list[tuple[int, int, int]] = []

    @property
    def attended(self) -> float:
        return self.context

    def __len__(self) -> int:
        return len(self._heap)

    def propose(self, prompt_tokens: int, attended: float) -> None:
        """Nobody does."""

    def advance(self) -> int:
        self._done += 1
        running = len(self._heap)
        self.context += running * self.width
        return running

    def add(self, request: Request) -> None:
        length = len(request.prompt_token_ids)
        further = max(request.output_tokens - 1, 0)
        self.context += length * self.width
        heapq.heappush(self._heap, (self._done + further, request.index, length + further))

    def ended(self) -> Iterator[int]:
        while self._heap and self._heap[0][0] <= self._done:
            _, index, cached = heapq.heappop(self._heap)
            self.context -= cached * self.width
            yield index


@dataclass(slots=True)
class _Drafted:
    """One request: how many tokens it still wants and caches, and its own chances."""

    left: int
    cached: int
    chances: random.Random


class Speculative:
    """`tokens` proposed for each request and step, of which the first i are accepted with a ** i.

    A request's chances depend on the seed, its number and how many steps it has had, and on nothing
    else. What is accepted beyond its end is computed and dropped.
    """

    def __init__(
        self,
        tokens: int,
        acceptance: float,
        seed: int,
        draft_pass: DraftPass,
        counts: Counter[str],
    ) -> None:
        self.width = tokens + 1
        self.context = 0.0
        self._tokens = tokens
        self._acceptance = acceptance
        self._seed = seed
        self._draft_pass = draft_pass
        self._counts = counts
        self._running: dict[int, _Drafted] = {}

    @property
    def attended(self) -> float:
        proposed = self._tokens
        return self.width * self.context + len(self._running) * proposed * (proposed + 1) / 2

    def __len__(self) -> int:
        return len(self._running)

    def propose(self, prompt_tokens: int, attended: float) -> None:
        """A pass of the draft for each token proposed, the first of which reads prompts as well."""
        running = len(self._running)
        for place in range(self._tokens if running else 1):
            cached = self.context + place * running
            if place == 0:
                self._draft_pass(running + prompt_tokens, cached + attended, cached)
            else:
                self._draft_pass(running, cached, cached)

    def advance(self) -> int:
        generated, all_accepted = 0, 0
        for request in self._running.values():
            accepted = self._accepted(request.chances.random())
            all_accepted += accepted
            kept = min(accepted + 1, request.left)
            request.left -= kept
            request.cached += kept
            generated += kept
        self._counts["draft_tokens_proposed"] += self._tokens * len(self._running)
        self._counts["draft_tokens_accepted"] += all_accepted
        self.context += generated
        return generated

    def add(self, request: Request) -> None:
        length = len(request.prompt_token_ids)
        self.context += length
        self._running[request.index] = _Drafted(
            left=max(request.output_tokens - 1, 0),
            cached=length,
            chances=random.Random(f"{self._seed}/{request.index}"),
        )

    def ended(self) -> Iterator[int]:
        for index in [index for index, each in self._running.items() if not each.left]:
            self.context -= self._running.pop(index).cached
            yield index

    def _accepted(self, chance: float) -> int:
        """How many i of those proposed have chance < a ** i."""
        if self._acceptance in (0.0, 1.0) or chance == 0.0:
            return self._tokens if self._acceptance else 0
        return min(self._tokens, math.ceil(math.log(chance) / math.log(self._acceptance)) - 1)
