"""From events and two readings to a window: what was done, in what time, for how many joules.

Pure: the protocol says where the edges are, this says what lies between them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sweeper.engines import Request
from sweeper.meters import Reading
from sweeper.results.metrics import window_metrics
from sweeper.results.reasons import ordered
from sweeper.results.record import Window
from sweeper.trial.evidence import Evidence
from sweeper.trial.latency import Timeline, good_requests, samples
from sweeper.trial.validity import (
    Work,
    balance,
    energy_j,
    evidence_reasons,
    glance_reasons,
    reading_reasons,
    work_reasons,
)


@dataclass(frozen=True, kw_only=True)
class Edges:
    """The two readings of a window, or why there is none, and the seconds its work took.

    In a `steady` window the work edges are the readings' own times; in a `whole` window they are
    the first submission and the last token, which lie inside the readings. `evidence` is what else
    was seen of them.
    """

    started_s: float
    ended_s: float
    opening: Reading | None
    closing: Reading | None
    reason: str | None = None
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def metered_s(self) -> float | None:
        """Seconds between the readings, where there are two."""
        if self.opening is None or self.closing is None:
            return None
        return self.closing.t_s - self.opening.t_s


@dataclass(frozen=True, kw_only=True)
class Taken:
    """A window, and the events that it was made from, packed (`trial/events.py`)."""

    window: Window
    events: bytes


def window(
    *,
    index: int,
    convention: str,
    edges: Edges,
    timeline: Timeline,
    requests: Mapping[int, Request],
    min_window_s: float,
    gpus: int,
    streams: bool,
    goodput: Mapping[str, float] | None = None,
) -> Window:
    """The window between `edges`: its tokens, samples, energy and metrics.

    `goodput` are the limits that a request must meet to be a good one.
    """
    start_s, end_s = edges.started_s, edges.ended_s
    if convention == "whole":
        # Edges of whole batches belong to the window on both sides.
        start_s = float("-inf")
    done = _within(timeline, start_s, end_s)
    input_tokens, output_tokens = _tokens(timeline, requests, start_s, end_s)
    ratio = balance(input_tokens, output_tokens, requests) if convention == "steady" else None
    lengths = {number: request.output_tokens for number, request in requests.items()}
    good = good_requests(timeline, lengths, goodput, start_s, end_s, streams=streams)
    work = replace(_work(timeline, requests, ratio), good=good)
    reasons = ordered([*_energy_reasons(edges, min_window_s), *work_reasons(work)])
    energy = None
    if edges.opening is not None and edges.closing is not None and not reasons:
        energy = energy_j(edges.opening, edges.closing)
    kept = samples(timeline, lengths, start_s, end_s, streams=streams).plain()
    readings = [as_kept(each) for each in (edges.opening, edges.closing) if each is not None]
    return Window(
        index=index,
        convention=convention,
        started_s=edges.started_s,
        ended_s=edges.ended_s,
        requests=done,
        requests_failed=work.failed,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        energy_j=energy,
        reasons=reasons,
        readings=readings,
        samples=kept,
        metrics=window_metrics(
            duration_s=edges.ended_s - edges.started_s,
            energy_j=energy,
            requests=done,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            samples=kept,
            gpus=gpus,
            metered_s=edges.metered_s,
            readings=readings,
            good=good,
        ),
        evidence={**edges.evidence.plain(), "work": work.plain()},
    )


def _energy_reasons(edges: Edges, min_window_s: float) -> Iterator[str]:
    """Everything that speaks against the joules between two edges."""
    if edges.reason is not None:
        yield edges.reason
    evidence, opening, closing = edges.evidence, edges.opening, edges.closing
    if opening is not None and closing is not None:
        devices = set(evidence.known.devices)
        yield from reading_reasons(opening, closing, min_window_s, devices)
        yield from evidence_reasons(opening, closing, evidence)
    yield from glance_reasons(evidence)


def _work(
    timeline: Timeline,
    requests: Mapping[int, Request],
    ratio: tuple[float | None, float] | None,
) -> Work:
    times = timeline.requests
    finished = [index for index, each in times.items() if each.finished_s is not None]
    first_tokens = sum(each.first_token_s is not None for each in times.values())
    return Work(
        failed=sum(each.failed is not None for each in times.values()),
        asked_tokens=sum(requests[index].output_tokens for index in finished),
        generated_tokens=first_tokens + sum(tokens for _, tokens, _ in timeline.steps),
        balance=ratio,
    )


def _within(timeline: Timeline, start_s: float, end_s: float) -> int:
    return sum(
        times.finished_s is not None and start_s < times.finished_s <= end_s
        for times in timeline.requests.values()
    )


def _tokens(
    timeline: Timeline, requests: Mapping[int, Request], start_s: float, end_s: float
) -> tuple[int, int]:
    """Prompt tokens whose first token came inside, and tokens generated inside."""
    first = [
        index
        for index, times in timeline.requests.items()
        if times.first_token_s is not None and start_s < times.first_token_s <= end_s
    ]
    generated = sum(tokens for t_s, tokens, _ in timeline.steps if start_s < t_s <= end_s)
    prompt = sum(len(requests[index].prompt_token_ids) for index in first)
    return prompt, generated + len(first)


def as_kept(reading: Reading) -> dict[str, object]:
    """A reading as the journal keeps it."""
    whole: dict[str, object] = {"t_s": reading.t_s, "energy_j": dict(reading.energy_j)}
    return whole | ({"components": dict(reading.components)} if reading.components else {})


def spread(durations_s: Sequence[float]) -> float:
    """Largest over smallest of some durations, less one; infinite for fewer than two."""
    if len(durations_s) < 2 or min(durations_s) <= 0:
        return float("inf")
    return max(durations_s) / min(durations_s) - 1.0
