"""From one stream of events to the times of requests: the one code that makes every latency.

Definitions, for a request with n output tokens: TTFT is first token - sent; TPOT is
(last token - first token) / (n - 1), absent for n = 1; latency is last token - sent. In a closed
loop a request is sent when it is admitted. ITL is the gap between consecutive tokens of a request;
as running requests step together, a gap counts once per request that waited it out. Tokens that one
step gave to one request (speculation) have no gap between them, and count as zero seconds; so do
those that one chunk of a stream brings, as nobody saw them apart.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sweeper.engines import Event
from sweeper.trial.events import EventLog


@dataclass(slots=True)
class RequestTimes:
    """When one request was sent, gave its first token, and ended; `None` until it has."""

    sent_s: float
    first_token_s: float | None = None
    finished_s: float | None = None
    failed: str | None = None


@dataclass(slots=True)
class Timeline:
    """What a stream of events amounts to.

    `steps` are the decoding steps as (t_s, tokens, gap_s): the gap since the step or first token
    before it; of tokens that name their request, since its own last ones. Where a step gave more
    than a token a request, the others follow with no gap. `log` keeps the events themselves.
    """

    requests: dict[int, RequestTimes] = field(default_factory=dict)
    steps: list[tuple[float, int, float]] = field(default_factory=list)
    log: EventLog = field(default_factory=EventLog)
    _last_token_s: float | None = None
    _last_of: dict[int, float] = field(default_factory=dict)
    _running: int = 0

    def add(self, event: Event) -> None:
        """Take one event, in the order of time."""
        self.log.add(event)
        if event.kind == "tokens":
            if event.request is None:
                last_s, self._last_token_s = self._last_token_s, event.t_s
            else:
                last_s = self._last_of.get(event.request)
                self._last_of[event.request] = event.t_s
            if last_s is not None:
                waited = min(event.tokens, event.running)
                if waited:
                    self.steps.append((event.t_s, waited, event.t_s - last_s))
                if event.tokens > waited:
                    self.steps.append((event.t_s, event.tokens - waited, 0.0))
            return
        if event.request is None:
            return
        if event.kind == "admitted":
            self.requests[event.request] = RequestTimes(event.t_s)
            return
        times = self.requests[event.request]
        if event.kind == "first_token":
            times.first_token_s = event.t_s
            self._last_of[event.request] = event.t_s
            if not self._running:
                # Nobody waited since the last token: a batch before this one had ended.
                self._last_token_s = event.t_s
            self._running += 1
            return
        self._running -= times.first_token_s is not None
        self._last_of.pop(event.request, None)
        if event.kind == "finished":
            times.finished_s = event.t_s
        else:
            times.failed = event.detail or "failed"


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Times of the requests that finished between two edges, and the token gaps between them."""

    ttft_s: tuple[float, ...]
    tpot_s: tuple[float, ...]
    latency_s: tuple[float, ...]
    itl_s: tuple[tuple[float, int], ...]

    def plain(self) -> dict[str, list[float] | list[tuple[float, int]]]:
        """As a window keeps them, to a microsecond; what was not seen is absent."""
        kept: dict[str, list[float] | list[tuple[float, int]]] = {}
        for name in ("ttft_s", "tpot_s", "latency_s"):
            times: tuple[float, ...] = getattr(self, name)
            if times:
                kept[name] = [round(seconds, 6) for seconds in times]
        if self.itl_s:
            kept["itl_s"] = merged_gaps(self.itl_s)
        return kept


def samples(
    timeline: Timeline,
    output_tokens: Mapping[int, int],
    start_s: float,
    end_s: float,
    *,
    streams: bool,
) -> Samples:
    """Samples of requests that finished in (start_s, end_s].

    `output_tokens` says how many tokens each request has. Without `streams` only latencies are
    known.
    """
    ttft, tpot, latency = [], [], []
    for index, times in timeline.requests.items():
        if times.finished_s is None or not start_s < times.finished_s <= end_s:
            continue
        latency.append(times.finished_s - times.sent_s)
        if streams and times.first_token_s is not None:
            ttft.append(times.first_token_s - times.sent_s)
            if output_tokens[index] > 1:
                decode_s = times.finished_s - times.first_token_s
                tpot.append(decode_s / (output_tokens[index] - 1))
    gaps = (
        tuple((gap, tokens) for t_s, tokens, gap in timeline.steps if start_s < t_s <= end_s)
        if streams
        else ()
    )
    return Samples(ttft_s=tuple(ttft), tpot_s=tuple(tpot), latency_s=tuple(latency), itl_s=gaps)


def good_requests(
    timeline: Timeline,
    output_tokens: Mapping[int, int],
    limits: Mapping[str, float] | None,
    start_s: float,
    end_s: float,
    *,
    streams: bool,
) -> int | None:
    """How many requests that finished in (start_s, end_s] met every one of `limits`.

    A request of one token has no TPOT and exceeds none, as in vLLM's benchmark. `None` without
    limits, and where they are of times that are not known.
    """
    if limits is None or (not streams and limits.keys() - {"latency_s"}):
        return None
    good = 0
    for index, times in timeline.requests.items():
        if times.finished_s is None or not start_s < times.finished_s <= end_s:
            continue
        seen = {"latency_s": times.finished_s - times.sent_s}
        if times.first_token_s is not None:
            seen["ttft_s"] = times.first_token_s - times.sent_s
            further = output_tokens[index] - 1
            decode_s = times.finished_s - times.first_token_s
            seen["tpot_s"] = decode_s / further if further else 0.0
        good += all(name in seen and seen[name] <= most for name, most in limits.items())
    return good


def merged_gaps(gaps: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
    """Gaps rounded to 10 µs with their weights added up: a window has thousands, few differ."""
    weights: dict[float, int] = {}
    for gap, weight in gaps:
        rounded = round(gap, 5)
        weights[rounded] = weights.get(rounded, 0) + weight
    return sorted(weights.items())
