"""Beam search over vLLM, as its own front ends do it, with a moment for every round (pure).

vLLM searches outside of its engine (`vllm/entrypoints/generate/beam_search`): in every round each
beam is a request of one token with its likeliest followers, the best of all are the beams of the
next round, and each of those is a new request that starts from its prompt. Its functions return
when all is done; here the same rounds are driven one by one, so that each can be timed. Without
`engine.prefix_caching` every round computes its beams from their first token on, as there.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sweeper.engines import Event, Request
from sweeper.engines.vllm_events import Ask, Output


@dataclass(frozen=True, slots=True)
class Beam:
    """What one beam has generated, and the logarithm of its probability."""

    token_ids: tuple[int, ...] = ()
    logprob: float = 0.0


@dataclass(slots=True)
class Search:
    """One request that is searched: the beams that are with vLLM, and what followed them so far."""

    request: Request
    waiting: dict[str, Beam] = field(default_factory=dict)
    found: list[Beam] = field(default_factory=list)
    rounds: int = 0


def followers(beam: Beam, logprobs: Mapping[int, float]) -> list[Beam]:
    """A beam with each of the tokens that may follow it."""
    return [
        Beam((*beam.token_ids, token), beam.logprob + logprob)
        for token, logprob in logprobs.items()
    ]


def best(beams: Iterable[Beam], width: int) -> list[Beam]:
    """The likeliest; all have one length, so a penalty of it would not change their order."""
    return sorted(beams, key=lambda beam: -beam.logprob)[:width]


class Searching:
    """Requests that are searched by `width` beams each, under the names of their beams.

    A token of a request is a round of it: it came when the last of its beams had one.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._of: dict[str, Search] = {}
        self._searches: dict[int, Search] = {}
        self._named = 0
        self._asks: list[Ask] = []
        self.generated_tokens = 0
        """Tokens that vLLM generated for all beams so far."""

    def __len__(self) -> int:
        return len(self._searches)

    @property
    def names(self) -> list[str]:
        """Of beams that are with vLLM."""
        return list(self._of)

    def begin(self, request: Request) -> list[Ask]:
        """What to hand over first: the prompt, once."""
        search = Search(request)
        self._searches[request.index] = search
        return [self._ask(search, Beam())]

    def follow(self) -> list[Ask]:
        """What to hand over since the last step."""
        asks, self._asks = self._asks, []
        return asks

    def clear(self) -> None:
        """They are no longer with vLLM."""
        self._of.clear()
        self._searches.clear()
        self._asks.clear()

    def events(self, outputs: Iterable[Output], t_s: float) -> Iterator[Event]:
        """The events of a step that ended at `t_s`: which requests it brought to a next round."""
        known = [output for output in outputs if output.name in self._of]
        ended, failed = [], []
        for output in known:
            search = self._of.pop(output.name)
            self.generated_tokens += output.tokens
            if output.reason != "length" or output.logprobs is None:
                failed.append((search, output.reason))
                continue
            search.found += followers(search.waiting.pop(output.name), output.logprobs)
            if not search.waiting:
                search.rounds += 1
                ended.append(search)
        further = [search for search in ended if search.rounds > 1]
        if further:
            yield Event("tokens", t_s, tokens=len(further), running=len(further))
        for search in ended:
            if search.rounds == 1:
                yield Event("first_token", t_s, search.request.index)
        for search in ended:
            if search.rounds == search.request.output_tokens:
                del self._searches[search.request.index]
                yield Event("finished", t_s, search.request.index)
            else:
                beams, search.found = best(search.found, self._width), []
                self._asks += [self._ask(search, beam) for beam in beams]
        for search, reason in failed:
            if self._searches.pop(search.request.index, None) is not None:
                # Its other beams end by themselves, and nobody asks for them.
                for name in search.waiting:
                    self._of.pop(name, None)
                yield Event("failed", t_s, search.request.index, detail=f"ended by {reason}")

    def _ask(self, search: Search, beam: Beam) -> Ask:
        self._named += 1
        name = f"beam-{self._named}"
        self._of[name] = search
        search.waiting[name] = beam
        token_ids: Sequence[int] = (*search.request.prompt_token_ids, *beam.token_ids)
        return Ask(name, search.request, token_ids)
