"""Metrics made again from counts, joules and samples, by their definitions in docs and records.

Percentiles are by linear interpolation between order statistics (R type 7); ratios of a record are
ratios of sums over its windows, those of energy over the windows that have energy.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.verify import beside

KINDS = ("ttft", "tpot", "itl", "latency")
PERCENTS = (50, 90, 99)
TAILS = frozenset(f"{kind}_p{percent}_s" for kind in KINDS for percent in PERCENTS)
SPREAD = "_sd_windows"
ENERGY = (
    "energy_j",
    "energy_per_output_token_j",
    "energy_per_token_j",
    "energy_per_request_j",
    "power_mean_w",
)
IDLE = ("bare_idle_w", "context_idle_w")
RATES = ("output_tokens_per_s", "requests_per_s", "goodput_rps", "duration_s", "gpu_seconds")
MEANS = frozenset(f"{kind}_mean_s" for kind in KINDS)
PHASES = (
    "energy_prefill_per_request_j",
    "energy_prefill_per_input_token_j",
    "energy_decode_per_output_token_j",
)
DRIFTS = {
    "energy_drift_ratio": "energy_per_output_token_j",
    "tpot_drift_ratio": "tpot_mean_s",
}
"""The drift of a launch, and the metric of its control that each is of."""
FOLLOWING = frozenset({*ENERGY, *RATES, *MEANS, *TAILS, *IDLE, *PHASES, *DRIFTS, *beside.METRICS})
"""What follows from windows; a deviation of each but the tails does too."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One window as it was made again.

    `joules` is `None` where it has no energy; `between_s` are the seconds between its readings;
    `good` are the requests that met all limits, where there are such.
    """

    index: int
    phase: str
    started_s: float
    ended_s: float
    between_s: float
    joules: float | None
    requests: int
    input_tokens: int
    output_tokens: int
    samples: Mapping[str, Sequence[Any]]
    readings: Sequence[Mapping[str, Any]] = ()
    good: int | None = None


def of_windows(windows: Sequence[Seen], gpus: int) -> dict[str, float]:
    """The metrics of windows taken together; of one window alone, its own."""
    metered = [each for each in windows if each.joules is not None]
    joules = math.fsum(each.joules or 0.0 for each in metered)
    lasted_s = math.fsum(each.ended_s - each.started_s for each in windows)
    tokens_in, tokens_out, requests = (
        sum(getattr(each, name) for each in metered)
        for name in ("input_tokens", "output_tokens", "requests")
    )
    found: dict[str, float] = {}
    between_s = math.fsum(each.between_s for each in metered)
    shares = (len(metered), tokens_out, tokens_in + tokens_out, requests, between_s)
    if metered:
        named = zip(ENERGY, shares, strict=True)
        found |= {name: joules / share for name, share in named if share > 0}
        found |= beside.metrics([(w.joules or 0.0, w.output_tokens, w.readings) for w in metered])
    if lasted_s > 0:
        found["output_tokens_per_s"] = sum(each.output_tokens for each in windows) / lasted_s
        found["requests_per_s"] = sum(each.requests for each in windows) / lasted_s
        good = [each.good for each in windows if each.good is not None]
        if len(good) == len(windows):
            found["goodput_rps"] = sum(good) / lasted_s
        found["duration_s"] = lasted_s / len(windows)
        if gpus:
            found["gpu_seconds"] = gpus * lasted_s / len(windows)
    for kind in KINDS:
        found |= latencies(kind, [each.samples.get(f"{kind}_s", ()) for each in windows])
    return found


def follows(name: str) -> bool:
    """Whether a metric, or a deviation of one, is made of windows alone."""
    return name.removesuffix(SPREAD) in FOLLOWING


def latencies(kind: str, samples: Iterable[Sequence[Any]]) -> dict[str, float]:
    """Mean and percentiles of the samples of all windows."""
    pairs = expanded(samples)
    count = sum(weight for _, weight in pairs)
    if not count:
        return {}
    found = {f"{kind}_mean_s": math.fsum(value * weight for value, weight in pairs) / count}
    for percent in PERCENTS:
        whole, part = divmod(percent * (count - 1), 100)
        below = _ranked(pairs, whole)
        above = _ranked(pairs, min(whole + 1, count - 1))
        found[f"{kind}_p{percent}_s"] = below + (above - below) * part / 100
    return found


def expanded(samples: Iterable[Sequence[Any]]) -> list[tuple[float, int]]:
    """Samples in order of size, each with how many times it was seen."""
    seen: dict[float, int] = {}
    for each in (sample for window in samples for sample in window):
        value, weight = each if isinstance(each, list | tuple) else (each, 1)
        seen[value] = seen.get(value, 0) + weight
    return sorted((value, weight) for value, weight in seen.items() if weight)


def phases(windows: Sequence[Seen]) -> dict[str, float]:
    """Prefill parted from decoding, by windows of either kind, and the spread of each over windows.

    Prefill is what windows of prefill alone take per request; decoding is the rest of a request,
    per token after the first.
    """
    whole, prompts = (
        [each for each in windows if each.phase == phase and each.joules and each.requests]
        for phase in ("all", "prefill")
    )
    if not prompts:
        return {}
    prefill_j, prefill_sd = _per_request(prompts)
    requests = sum(each.requests for each in prompts)
    prompt = sum(each.input_tokens for each in prompts) / requests
    parts = [
        ("energy_prefill_per_request_j", prefill_j, prefill_sd, 1.0),
        ("energy_prefill_per_input_token_j", prefill_j, prefill_sd, prompt),
    ]
    if whole:
        request_j, sd = _per_request(whole)
        both = None if sd is None or prefill_sd is None else math.hypot(sd, prefill_sd)
        further = sum(each.output_tokens for each in whole) / sum(w.requests for w in whole) - 1
        parts.append(("energy_decode_per_output_token_j", request_j - prefill_j, both, further))
    found = {}
    for name, joules, sd, share in parts:
        if joules > 0 and share > 0:
            found[name] = joules / share
            if sd is not None:
                found[name + SPREAD] = sd / share
    return found


def _per_request(windows: Sequence[Seen]) -> tuple[float, float | None]:
    each = [(window.joules or 0.0) / window.requests for window in windows]
    total = math.fsum(window.joules or 0.0 for window in windows)
    mean = total / sum(window.requests for window in windows)
    return mean, deviation(each) if len(each) > 1 else None


def too_few(windows: Sequence[Seen]) -> list[str]:
    """The percentiles beyond which fewer than five samples lie: n (100 - percent) < 500."""
    found = []
    for kind in KINDS:
        pairs = expanded(each.samples.get(f"{kind}_s", ()) for each in windows)
        count = sum(weight for _, weight in pairs)
        if count:
            found += [f"{kind}_p{p}_s" for p in PERCENTS if count * (100 - p) < 500]
    return found


def spreads(windows: Sequence[Seen], gpus: int) -> dict[str, float]:
    """Sample standard deviations over windows, of everything that is no percentile."""
    each = [of_windows([window], gpus) for window in windows]
    found = {}
    for name in sorted({name for metrics in each for name in metrics} - TAILS):
        values = [metrics[name] for metrics in each if name in metrics]
        if len(values) >= 2:
            found[name + SPREAD] = deviation(values)
    return found


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation of two values or more."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _ranked(pairs: Sequence[tuple[float, int]], rank: int) -> float:
    for value, weight in pairs:
        rank -= weight
        if rank < 0:
            return value
    raise IndexError(rank)
