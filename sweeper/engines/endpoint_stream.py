"""From the bytes of one streamed completion to the events of its request (pure).

The stream is that of OpenAI's completions: lines `data: {json}`, the last of them `[DONE]`. How
many tokens have come is what `usage.completion_tokens` of a chunk says (vLLM, SGLang and
TensorRT-LLM tell it with every chunk when asked for `continuous_usage_stats`). Where only the end
of a stream has it, a chunk counts as one token until then, and what it tells of beyond that came
with the last chunk. Where nothing tells it, chunks are tokens only if there are as many as were
asked for.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.engines import Event, Request

SAID = 300
"""Characters of a server's message that are kept."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """What a server takes: prompts as token ids, and usage with every chunk.

    `extra_tokens` are what it puts before a prompt of text (a beginning-of-sequence token).
    """

    token_ids: bool = True
    usage_always: bool = True
    extra_tokens: int = 0

    def described(self) -> dict[str, str]:
        """As a record keeps it."""
        return {
            "prompts": "token ids" if self.token_ids else "text",
            "token_counts": "usage of every chunk" if self.usage_always else "usage at the end",
        }


DIALECTS = tuple(
    Dialect(token_ids=ids, usage_always=always) for ids in (True, False) for always in (True, False)
)
"""In the order in which they are tried."""
_COMMON = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work number night "
    "point home water room mother area money story fact month lot right study book eye job word "
    "business issue side kind head house service friend father power hour game line end member law "
    "car city name team minute idea body back parent face level office door health person art war "
    "history party result change morning reason research girl guy moment air teacher force"
)
WORDS = tuple(_COMMON.split())
"""Common words, one token each in most vocabularies; whether they are is seen in the usage."""


def body(
    request: Request, model: str, dialect: Dialect, further: Mapping[str, Any]
) -> dict[str, Any]:
    """The JSON of one request: greedy, of forced length, streamed."""
    options = {"include_usage": True}
    if dialect.usage_always:
        options["continuous_usage_stats"] = True
    ids = list(request.prompt_token_ids)
    return {
        "temperature": 0.0,
        **further,
        "model": model,
        "prompt": ids if dialect.token_ids else text(ids, dialect.extra_tokens),
        "max_tokens": request.output_tokens,
        "min_tokens": request.output_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": options,
    }


def text(ids: list[int], extra_tokens: int = 0) -> str:
    """A text of as many words as there are ids, less what the server adds; ids choose them."""
    return " ".join(WORDS[number % len(WORDS)] for number in ids[extra_tokens:])


class Reply:
    """What has come of one request's stream so far."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._buffer = b""
        self._told = False
        self._reason: str | None = None
        self.tokens = 0
        self.chunks = 0
        self.prompt_tokens: int | None = None
        self.ended = False

    def take(self, piece: bytes, t_s: float) -> list[Event]:
        """The events of bytes that came at `t_s`."""
        lines = (self._buffer + piece).split(b"\n")
        self._buffer = lines.pop()
        events: list[Event] = []
        for line in lines:
            if line.startswith(b"data:") and not self.ended:
                events += self._message(line[5:].strip(), t_s)
        return events

    def close(self, t_s: float) -> list[Event]:
        """The stream has ended: so has the request, in whatever way."""
        if self._buffer:
            events = self.take(b"\n", t_s)
            return events + self.close(t_s)
        return [] if self.ended else self._settled(t_s)

    def fail(self, detail: str, t_s: float) -> list[Event]:
        """The request came to nothing, for reasons outside of the stream."""
        if self.ended:
            return []
        self.ended = True
        return [Event("failed", t_s, self._request.index, detail=detail[:SAID])]

    def _message(self, payload: bytes, t_s: float) -> Iterator[Event]:
        if payload == b"[DONE]":
            yield from self._settled(t_s)
            return
        try:
            data = json.loads(payload)
        except ValueError:
            data = None
        if not isinstance(data, dict) or "error" in data:
            yield from self.fail(f"the stream said {payload.decode(errors='replace')}", t_s)
            return
        usage, choices = data.get("usage") or {}, data.get("choices") or []
        self.prompt_tokens = usage.get("prompt_tokens", self.prompt_tokens)
        new = self._new_tokens(usage.get("completion_tokens"), choices)
        if new < 0:
            said = f"{self.chunks} chunks for {self.tokens + new} tokens of output"
            yield from self.fail(said, t_s)
            return
        yield from self._came(new, t_s, waited=bool(choices))
        if self._told and self._reason is not None and self.tokens == self._request.output_tokens:
            yield from self._settled(t_s)

    def _new_tokens(self, told: int | None, choices: list[Any]) -> int:
        """How many more there are than before, by what the chunk tells or by its being there."""
        wordless = False
        if choices:
            self._reason = choices[0].get("finish_reason") or self._reason
            wordless = choices[0].get("finish_reason") is not None and not choices[0].get("text")
            self.chunks += 1
        if told is not None:
            self._told = True
            return told - self.tokens
        return 1 if choices and not wordless else 0

    def _came(self, new: int, t_s: float, *, waited: bool) -> Iterator[Event]:
        if not new:
            return
        index, first = self._request.index, self.tokens == 0
        self.tokens += new
        if first:
            yield Event("first_token", t_s, index)
            new -= 1
        if new:
            running = int(waited and not first)
            yield Event("tokens", t_s, index, tokens=new, running=running)

    def _settled(self, t_s: float) -> list[Event]:
        """`finished` if all is as it was asked for, else why not."""
        asked, prompt = self._request.output_tokens, len(self._request.prompt_token_ids)
        if self._reason is None:
            return self.fail(f"the stream was cut after {self.tokens} of {asked} tokens", t_s)
        if self.tokens != asked:
            sure = "" if self._told else f" (no usage was told, there were {self.chunks} chunks)"
            said = f"{self.tokens} of {asked} tokens, ended by {self._reason}{sure}"
            return self.fail(said, t_s)
        if self.prompt_tokens not in (None, prompt):
            return self.fail(f"a prompt of {self.prompt_tokens} tokens, sent were {prompt}", t_s)
        self.ended = True
        return [Event("finished", t_s, self._request.index)]
