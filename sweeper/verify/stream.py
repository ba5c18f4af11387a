"""The events of a window read back, and what lies between its edges.

The format is described in `trial/events.py`; nothing of it is used here.
"""

import json
import struct
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

ADMITTED, FIRST, TOKENS, DONE, FAILED, CHUNK = "aftdxc"
Weighted = tuple[float, int]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Every event of a window in order: its kind, time, request (-1: none), tokens, running.

    `lengths` are the tokens in and out of each request that was sent.
    """

    events: Sequence[tuple[str, float, int, int, int]]
    lengths: Mapping[int, tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What was done between two edges, and the times of the requests that ended there.

    `asked_tokens` are those of all requests that finished in the stream, `generated_tokens` all
    that came in it.
    """

    requests: int
    failed: int
    input_tokens: int
    output_tokens: int
    samples: Mapping[str, Sequence[Any]]
    asked_tokens: int
    generated_tokens: int


def read(packed_lines: bytes) -> dict[int, Stream]:
    """The streams of an attachment's lines, by the number of their window."""
    found = {}
    for line in packed_lines.splitlines():
        columns = json.loads(line)
        found[int(columns["index"])] = _stream(columns)
    return found


def _stream(columns: Mapping[str, Any]) -> Stream:
    kinds = columns["kind"]
    bits = list(accumulate(columns["t"]))
    times = struct.unpack(f"<{len(bits)}d", struct.pack(f"<{len(bits)}q", *bits))
    named = accumulate(columns["request"])
    steps = zip(columns["tokens"], columns["running"], strict=True)
    events = []
    for kind, t_s in zip(kinds, times, strict=True):
        if kind in (TOKENS, CHUNK):
            events.append((kind, t_s, next(named) if kind == CHUNK else -1, *next(steps)))
        else:
            events.append((kind, t_s, next(named), 0, 0))
    if next(named, None) is not None or next(steps, None) is not None:
        raise ValueError("an events line has columns of different lengths")
    sent = columns["requests"]
    lengths = zip(sent["input_tokens"], sent["output_tokens"], strict=True)
    numbers = accumulate(sent["index"])
    return Stream(events=events, lengths=dict(zip(numbers, lengths, strict=True)))


def work(stream: Stream, after_s: float, until_s: float) -> Work:
    """What happened in (after_s, until_s]; `after_s` is minus infinity for whole work."""
    when: dict[str, dict[int, float]] = {kind: {} for kind in (ADMITTED, FIRST, DONE, FAILED)}
    for kind, t_s, request, _, _ in stream.events:
        if kind not in (TOKENS, CHUNK):
            when[kind][request] = t_s
    started = {r for r, t_s in when[FIRST].items() if after_s < t_s <= until_s}
    ended = [r for r in when[ADMITTED] if after_s < when[DONE].get(r, after_s) <= until_s]
    ttft, tpot, latency = [], [], []
    for request in ended:
        sent_s, done_s = when[ADMITTED][request], when[DONE][request]
        first_s = when[FIRST].get(request)
        latency.append(done_s - sent_s)
        if first_s is not None:
            ttft.append(first_s - sent_s)
            further = stream.lengths[request][1] - 1
            if further > 0:
                tpot.append((done_s - first_s) / further)
    decoded = sum(
        n for k, t_s, _, n, _ in stream.events if k in (TOKENS, CHUNK) and after_s < t_s <= until_s
    )
    gaps = sorted(_gaps(stream, after_s, until_s).items())
    times = {"ttft_s": ttft, "tpot_s": tpot, "latency_s": latency}
    samples: dict[str, Sequence[Any]] = {
        name: [round(each, 6) for each in found] for name, found in times.items() if found
    }
    if gaps:
        samples["itl_s"] = gaps
    return Work(
        requests=len(ended),
        failed=len(when[FAILED]),
        input_tokens=sum(stream.lengths[request][0] for request in started),
        output_tokens=decoded + len(started),
        samples=samples,
        asked_tokens=sum(stream.lengths[request][1] for request in when[DONE]),
        generated_tokens=len(when[FIRST]) + sum(tokens for _, _, _, tokens, _ in stream.events),
    )


def good(stream: Stream, limits: Mapping[str, float], after_s: float, until_s: float) -> int:
    """Requests that ended in (after_s, until_s] with no time above its limit.

    A single token has no time per further token, which then exceeds nothing.
    """
    at = {(kind, request): t_s for kind, t_s, request, _, _ in stream.events if request >= 0}
    count = 0
    for (kind, request), done_s in at.items():
        if kind != DONE or not after_s < done_s <= until_s:
            continue
        sent_s, first_s = at[ADMITTED, request], at.get((FIRST, request))
        times = {"latency_s": done_s - sent_s}
        if first_s is not None:
            further = stream.lengths[request][1] - 1
            times["ttft_s"] = first_s - sent_s
            times["tpot_s"] = (done_s - first_s) / further if further > 0 else 0.0
        count += all(times.get(name, float("inf")) <= most for name, most in limits.items())
    return count


def _gaps(stream: Stream, after_s: float, until_s: float) -> Counter[float]:
    """Token gaps to 10 µs and how many tokens waited for each.

    A step is waited for since the last step, or since the first token of a request that found
    nobody running; of its tokens one a request was waited for, and the others came with it. A chunk
    is waited for since the last token of its own request.
    """
    found: Counter[float] = Counter()
    decoding: set[int] = set()
    last_s: float | None = None
    own_s: dict[int, float] = {}
    for kind, t_s, request, tokens, running in stream.events:
        if kind == FIRST:
            last_s = last_s if decoding else t_s
            decoding.add(request)
            own_s[request] = t_s
        elif kind in (DONE, FAILED):
            decoding.discard(request)
        elif kind == TOKENS:
            if last_s is not None and after_s < t_s <= until_s:
                waited = min(tokens, running)
                found[round(t_s - last_s, 5)] += waited
                found[0.0] += tokens - waited
            last_s = t_s
        elif kind == CHUNK:
            if request in own_s and after_s < t_s <= until_s:
                waited = min(tokens, running)
                found[round(t_s - own_s[request], 5)] += waited
                found[0.0] += tokens - waited
            own_s[request] = t_s
    return +found


def merged(streams: Iterable[Mapping[int, Stream]]) -> dict[int, Stream]:
    """The streams of several attachments of one record."""
    found: dict[int, Stream] = {}
    for each in streams:
        found.update(each)
    return found
