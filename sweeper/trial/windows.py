"""From events and two readings to a window: what was done, in what time, for how many joules.

Pure: the protocol says where the edges are, this says what lies between them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeper.engines import Request
from sweeper.meters import Reading
from sweeper.results.metrics import window_metrics
from sweeper.results.reasons import ordered
from sweeper.results.record import Window
from sweeper.trial.latency import Timeline, samples

BALANCE = 0.02
"""How far a steady window's input to output ratio may be from the workload's, relatively."""


@dataclass(frozen=True, kw_only=True)
class Edges:
    """The two readings of a window, or why there is none, and the seconds its work took.

    In a `steady` window the work edges are the readings' own times; in a `whole` window they are
    the first submission and the last token, which lie inside the readings.
    """

    started_s: float
    ended_s: float
    opening: Reading | None
    closing: Reading | None
    reason: str | None = None

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


def energy_j(
    opening: Reading, closing: Reading, min_window_s: float
) -> tuple[float | None, str | None]:
    """Joules of all devices between two readings, or `None` and a reason code with a detail.

    `window_too_short`: less than `min_window_s` apart. `counter_reset`: a counter went down.
    `zero_energy`: a counter did not move. `wrong_gpu_count`: the readings name other devices.
    """
    span_s = closing.t_s - opening.t_s
    if span_s < min_window_s:
        return None, f"window_too_short: {span_s:.3f} s between readings, {min_window_s:g} needed"
    if set(opening.energy_j) != set(closing.energy_j):
        differing = sorted(set(opening.energy_j) ^ set(closing.energy_j))
        return None, f"wrong_gpu_count: {', '.join(differing)}"
    total = 0.0
    for device, before in opening.energy_j.items():
        spent = closing.energy_j[device] - before
        if spent < 0:
            return None, f"counter_reset: {device} went down by {-spent:.3f} J"
        if spent == 0:
            return None, f"zero_energy: {device} did not move in {span_s:.1f} s"
        total += spent
    return total, None


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
) -> Window:
    """The window between `edges`: its tokens, samples, energy and metrics."""
    start_s, end_s = edges.started_s, edges.ended_s
    energy = None
    reasons = [edges.reason] if edges.reason is not None else []
    if edges.opening is not None and edges.closing is not None:
        energy, reason = energy_j(edges.opening, edges.closing, min_window_s)
        reasons += [reason] if reason is not None else []
    if convention == "whole":
        # Edges of whole batches belong to the window on both sides.
        start_s = float("-inf")
    done = _within(timeline, start_s, end_s)
    input_tokens, output_tokens = _tokens(timeline, requests, start_s, end_s)
    failed = sum(times.failed is not None for times in timeline.requests.values())
    if failed:
        reasons.append(f"requests_failed: {failed}")
    if convention == "steady":
        reason = unbalanced(input_tokens, output_tokens, requests)
        reasons += [reason] if reason is not None else []
    energy = None if reasons else energy
    kept = samples(
        timeline,
        {number: request.output_tokens for number, request in requests.items()},
        start_s,
        end_s,
        streams=streams,
    ).plain()
    return Window(
        index=index,
        convention=convention,
        started_s=edges.started_s,
        ended_s=edges.ended_s,
        requests=done,
        requests_failed=failed,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        energy_j=energy,
        reasons=ordered(reasons),
        readings=[as_kept(each) for each in (edges.opening, edges.closing) if each is not None],
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
        ),
    )


def unbalanced(
    input_tokens: int, output_tokens: int, requests: Mapping[int, Request]
) -> str | None:
    """Why a steady window does not stand for its workload, or `None`.

    The ratio of tokens in to tokens out inside must be the workload's within `BALANCE`: a window
    that saw more prefills than completions charges them to the wrong tokens.
    """
    if not output_tokens:
        return "unbalanced: no token was generated inside the window"
    longest = max(request.output_tokens for request in requests.values())
    full = [each for each in requests.values() if each.output_tokens == longest]
    expected = len(full[0].prompt_token_ids) / longest
    seen = input_tokens / output_tokens
    if abs(seen - expected) <= BALANCE * expected:
        return None
    return f"unbalanced: {seen:.3f} tokens in per token out, the workload has {expected:.3f}"


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
    return {"t_s": reading.t_s, "energy_j": dict(reading.energy_j)}


def spread(durations_s: Sequence[float]) -> float:
    """Largest over smallest of some durations, less one; infinite for fewer than two."""
    if len(durations_s) < 2 or min(durations_s) <= 0:
        return float("inf")
    return max(durations_s) / min(durations_s) - 1.0
