"""From what a step of vLLM gave to the events of an engine (pure)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from sweeper.engines import Event, Request


@dataclass(frozen=True, slots=True)
class Ask:
    """What to hand over to vLLM: a name, and the tokens that it starts from."""

    name: str
    request: Request
    token_ids: Sequence[int]


@dataclass(frozen=True, slots=True)
class Output:
    """What one step gave of one request: how many tokens, and how it ended if it did.

    `logprobs` are of its likeliest tokens, where they were asked for.
    """

    name: str
    tokens: int
    finished: bool = False
    reason: str | None = None
    logprobs: Mapping[int, float] | None = None


class Book(Protocol):
    """Requests that are with vLLM, and what its steps mean for them."""

    generated_tokens: int

    def __len__(self) -> int: ...

    @property
    def names(self) -> list[str]:
        """Of those that are with vLLM."""
        ...

    def begin(self, request: Request) -> list[Ask]:
        """What to hand over for a request."""
        ...

    def events(self, outputs: Iterable[Output], t_s: float) -> Iterator[Event]:
        """The events of a step that ended at `t_s`."""
        ...

    def follow(self) -> list[Ask]:
        """What to hand over since the last step."""
        ...

    def clear(self) -> None:
        """They are no longer with vLLM."""
        ...


class Running:
    """Requests that are with vLLM once each, by the names they have there."""

    def __init__(self) -> None:
        self._requests: dict[str, Request] = {}
        self._started: set[str] = set()
        self._named = 0
        self.generated_tokens = 0
        """Tokens of all steps so far."""

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def names(self) -> list[str]:
        """Of those that have not ended."""
        return list(self._requests)

    def begin(self, request: Request) -> list[Ask]:
        """The request itself, under a name that no other one of this engine has."""
        self._named += 1
        name = f"{self._named}"
        self._requests[name] = request
        return [Ask(name, request, request.prompt_token_ids)]

    def follow(self) -> list[Ask]:
        """Nothing: a request is handed over once."""
        return []

    def clear(self) -> None:
        """They are no longer with vLLM."""
        self._requests.clear()
        self._started.clear()

    def events(self, outputs: Iterable[Output], t_s: float) -> Iterator[Event]:
        """The events of a step that ended at `t_s`: who decoded, who began, who ended.

        What is told of requests that were cancelled meanwhile is left out.
        """
        known = [output for output in outputs if output.name in self._requests]
        decoded = {output.name: output.tokens for output in known if output.tokens}
        began = [name for name in decoded if name not in self._started]
        self.generated_tokens += sum(decoded.values())
        # A first token is told of by an event of its own; what came with it was not waited for.
        beside = sum(decoded.pop(name) - 1 for name in began)
        if decoded:
            yield Event("tokens", t_s, tokens=sum(decoded.values()), running=len(decoded))
        for name in began:
            self._started.add(name)
            yield Event("first_token", t_s, self._requests[name].index)
        if beside:
            yield Event("tokens", t_s, tokens=beside)
        for output in known:
            if output.finished:
                request = self._requests.pop(output.name)
                self._started.discard(output.name)
                if output.reason == "length":
                    yield Event("finished", t_s, request.index)
                else:
                    yield Event("failed", t_s, request.index, detail=f"ended by {output.reason}")
