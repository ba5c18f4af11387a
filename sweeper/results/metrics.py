"""What is reported of a window, a record and a result: names, units, definitions (pure).

Every name carries its SI unit and means the same for every engine. Latencies are per request, as
its client sees them; energy is of the launch's GPUs (or of what the meter's scope says), gross.
What the node spends beside them has names of its own, and is in none of the others.
"""

import math
import statistics
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from sweeper.results.components import COMPONENTS, beside
from sweeper.results.phases import PHASE_METRICS, phase_metrics
from sweeper.results.record import Window

LATENCIES: Mapping[str, str] = {
    "ttft": "time to first token: from sending a request to its first token",
    "tpot": "time per output token after the first: (finish - first token) / (tokens - 1)",
    "itl": "inter-token latency: between consecutive tokens of a request",
    "latency": "end to end: from sending a request to its last token",
}
PERCENTILES = (50, 90, 99)
STATISTICS = ("mean", *(f"p{percent}" for percent in PERCENTILES))

_SCALARS: Mapping[str, str] = {
    "energy_j": "joules of one window, mean over windows",
    "energy_per_output_token_j": "joules per generated token",
    "energy_per_token_j": "joules per token, input and output",
    "energy_per_request_j": "joules per request",
    "power_mean_w": "joules over the seconds between the readings",
    "output_tokens_per_s": "generated tokens over seconds of the windows",
    "requests_per_s": "finished requests over seconds of the windows",
    "goodput_rps": (
        "finished requests that meet all limits of measure.goodput over seconds of the windows"
    ),
    "gpu_seconds": "GPUs of the launch times seconds of one window, mean over windows",
    "duration_s": "seconds of one window, mean over windows",
    "context_idle_w": "power with the engine loaded and nothing running",
    "bare_idle_w": "power before the engine was loaded",
    "peak_memory_bytes": "most memory the engine held on one device",
    "quality_score": "what the study's scorer printed of the configuration",
    "energy_drift_ratio": "joules per generated token in the launch's last window over its first",
    "tpot_drift_ratio": "mean TPOT in the launch's last window over its first",
    **PHASE_METRICS,
}
_COMPONENTS: Mapping[str, str] = {
    **{f"{name}_energy_j": f"joules of {what}, as energy_j" for name, what in COMPONENTS.items()},
    **{
        f"{name}_energy_per_output_token_j": f"joules of {what} per generated token"
        for name, what in COMPONENTS.items()
    },
    "beside_energy_share": (
        "joules of the node's processors, memory and idle GPUs over those and the launch's GPUs'"
    ),
}
METRICS: Mapping[str, str] = {
    **_SCALARS,
    **_COMPONENTS,
    **{
        f"{name}_{statistic}_s": f"{statistic} of {meaning}"
        for name, meaning in LATENCIES.items()
        for statistic in STATISTICS
    },
}
"""Every metric that a study may name, and what it means."""

QUALITY_SCORE = "quality_score"
"""The one metric that is of a configuration, whatever its batch size and traffic."""
COUNTS: Mapping[str, str] = {
    "generated_tokens": "tokens that the engine generated since it was loaded",
    "preemptions": "requests that lost their KV cache and were computed again, since load",
    "kv_cache_bytes": "bytes of the KV cache, over all devices of the launch",
    "kv_cache_tokens": "tokens that the KV cache holds",
    "kv_cache_used_peak": "largest share of the KV cache in use, since load",
    "draft_tokens_proposed": "tokens that a draft proposed, since load",
    "draft_tokens_accepted": "proposed tokens that the model accepted, since load",
    "prefix_tokens_looked_up": "prompt tokens that were looked for in the KV cache, since load",
    "prefix_tokens_found": "prompt tokens that were found there and not computed, since load",
    "steps_in_full_graphs": "scheduler steps replayed as one CUDA graph, since load",
    "steps_in_piecewise_graphs": "scheduler steps of which pieces were CUDA graphs, since load",
    "steps_without_graphs": "scheduler steps launched kernel by kernel, since load",
    "graph_padding_tokens": "tokens computed only to fill a CUDA graph's size, since load",
    "expert_choices": "routings of a token to an expert, over layers, since load",
    "experts_idle_share": "share of experts that no token was routed to, over layers",
    "expert_load_max_ratio": "tokens of the busiest expert over its layer's mean, mean over layers",
    "experts_below_half_share": "share of experts with less than half of their layer's mean",
    "experts_half_to_even_share": "share of experts with at least half of it and less than it",
    "experts_even_to_double_share": "share of experts with at least it and less than twice it",
    "experts_above_double_share": "share of experts with at least twice their layer's mean",
    "scheduler_steps": "scheduler steps of the point, its warm-up among them",
    "running_requests_mean": "requests that ran in a scheduler step of the point, mean over steps",
    "running_requests_max": "most requests that ran in one scheduler step of the point",
}
"""What only an engine counts; `peak_memory_bytes` is of it too. Not made again by verify."""

ENERGY_METRICS: frozenset[str] = frozenset(
    name
    for name in METRICS
    if name.startswith("energy_") or name.endswith("_w") or name in _COMPONENTS
)
"""The metrics that only a meter can give."""
SD_WINDOWS = "_sd_windows"
"""Ends the name of a sample standard deviation over the windows of one launch."""

DRIFTS: Mapping[str, str] = {
    "energy_drift_ratio": "energy_per_output_token_j",
    "tpot_drift_ratio": "tpot_mean_s",
}
"""What the drift of a launch is told in, and of which metric of its control."""
GOODPUT = ("ttft_s", "tpot_s", "latency_s")
"""Times of a request that `measure.goodput` may limit."""
MIN_TAIL = 5
"""Samples that must lie beyond a percentile for it to be more than its few largest samples."""


@dataclass(frozen=True, slots=True)
class _Totals:
    """Sums over windows, and how many windows they are of."""

    windows: int
    duration_s: float
    requests: int
    input_tokens: int
    output_tokens: int


def record_metrics(
    windows: Sequence[Window], gpus: int
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Every metric of one launch's windows of a point, and the undersampled percentiles among them.

    Ratios are ratios of sums, those of energy over the windows that have energy; latencies are of
    the pooled samples. Windows of prefill alone only serve the split of the phases. What is not
    known is absent.
    """
    split, split_spread = phase_metrics(windows)
    windows = [window for window in windows if window.phase == "all"]
    metered = [window for window in windows if window.energy_j is not None]
    samples: dict[str, list[Any]] = {}
    for window in windows:
        for name, values in window.samples.items():
            samples.setdefault(name, []).extend(values)
    metrics = {
        **_energy(
            _totals(metered),
            math.fsum(window.energy_j or 0.0 for window in metered),
            math.fsum(window.metered_s for window in metered),
        ),
        **_beside(metered),
        **_rates(_totals(windows), gpus),
        **_goodput([_good(window.evidence) for window in windows], windows),
        **_latencies(samples),
        **_deviations(windows),
        **split,
        **{name + SD_WINDOWS: value for name, value in split_spread.items()},
    }
    return metrics, undersampled_names(samples)


def window_metrics(
    *,
    duration_s: float,
    energy_j: float | None,
    requests: int,
    input_tokens: int,
    output_tokens: int,
    samples: Mapping[str, Sequence[Any]],
    gpus: int,
    metered_s: float | None = None,
    readings: Sequence[Mapping[str, Any]] = (),
    good: int | None = None,
) -> dict[str, float]:
    """The metrics of one window; what is not known is absent.

    `metered_s` is the time between the `readings`, where it is not that of the work; `good` are the
    requests that met all limits of the goodput.
    """
    totals = _Totals(1, duration_s, requests, input_tokens, output_tokens)
    energy = {}
    if energy_j is not None:
        energy = {
            **_energy(totals, energy_j, metered_s or duration_s),
            **_of_components([(energy_j, output_tokens, readings)]),
        }
    goodput = {} if good is None or duration_s <= 0 else {"goodput_rps": good / duration_s}
    return {**energy, **_rates(totals, gpus), **goodput, **_latencies(samples)}


def drift(windows: Sequence[Window]) -> dict[str, float]:
    """The last of a control's windows over the first that has the number, of the whole work.

    By joules per generated token and by mean TPOT; absent where the last window lacks the number,
    or no other has it.
    """
    whole = [window for window in windows if window.phase == "all"]
    found = {}
    for name, metric in DRIFTS.items():
        first = next((each for each in whole[:-1] if each.metrics.get(metric, 0.0) > 0), None)
        if first is not None and (after := whole[-1].metrics.get(metric)):
            found[name] = after / first.metrics[metric]
    return found


def undersampled_names(samples: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """The percentiles that `samples` give but have too few of beyond them."""
    return tuple(
        f"{name}_p{percent}_s"
        for name in LATENCIES
        if (count := sum(weight for _, weight in _weighted(samples.get(f"{name}_s", ()))))
        for percent in PERCENTILES
        if undersampled(count, percent)
    )


def is_energy(metric: str) -> bool:
    """Whether a metric, or the deviation of one, needs a meter."""
    return metric.removesuffix(SD_WINDOWS) in ENERGY_METRICS


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is wanted: rates are; times, joules, watts and bytes are not."""
    return metric.endswith(("_per_s", "_rps")) or metric == QUALITY_SCORE


def percentile(samples: Sequence[float], q: float) -> float:
    """The `q`-quantile (0..1) by linear interpolation between order statistics (R type 7)."""
    ordered = sorted(samples)
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def undersampled(count: int, percent: int) -> bool:
    """Whether a percentile of `count` samples has fewer than `MIN_TAIL` of them beyond it.

    In whole numbers: n (1 - q) < 5 must not depend on how 0.99 is rounded.
    """
    return count * (100 - percent) < MIN_TAIL * 100


def weighted_percentile(pairs: Sequence[tuple[float, int]], q: float) -> float:
    """`percentile` of samples of which each pair stands for `weight` equal ones."""
    return _quantiles(pairs, (q,))[0]


def _quantiles(pairs: Sequence[tuple[float, int]], each: Sequence[float]) -> list[float]:
    ordered = sorted(pairs)
    ends = list(accumulate(weight for _, weight in ordered))
    return [_quantile(ordered, ends, q) for q in each]


def _quantile(ordered: Sequence[tuple[float, int]], ends: Sequence[int], q: float) -> float:
    place = q * (ends[-1] - 1)
    low = _at(ordered, ends, math.floor(place))
    high = _at(ordered, ends, math.ceil(place))
    return low + (high - low) * (place - math.floor(place))


def _at(ordered: Sequence[tuple[float, int]], ends: Sequence[int], rank: int) -> float:
    return ordered[bisect_right(ends, rank)][0]


def _totals(windows: Sequence[Window]) -> _Totals:
    return _Totals(
        len(windows),
        math.fsum(window.duration_s for window in windows),
        sum(window.requests for window in windows),
        sum(window.input_tokens for window in windows),
        sum(window.output_tokens for window in windows),
    )


def _energy(totals: _Totals, energy_j: float, metered_s: float) -> dict[str, float]:
    denominators = {
        "energy_j": totals.windows,
        "energy_per_output_token_j": totals.output_tokens,
        "energy_per_token_j": totals.input_tokens + totals.output_tokens,
        "energy_per_request_j": totals.requests,
        "power_mean_w": metered_s,
    }
    return {name: energy_j / below for name, below in denominators.items() if below > 0}


def _beside(metered: Sequence[Window]) -> dict[str, float]:
    return _of_components(
        [(each.energy_j or 0.0, each.output_tokens, each.readings) for each in metered]
    )


_Metered = tuple[float, int, Sequence[Mapping[str, Any]]]
"""Joules of a window's GPUs, the tokens it generated, its readings."""


def _of_components(metered: Sequence[_Metered]) -> dict[str, float]:
    """Each component over the windows that know it; the share over those that know all of them."""
    known = [(joules, tokens, beside(readings)) for joules, tokens, readings in metered]
    found: dict[str, float] = {}
    for name in COMPONENTS:
        of = [(each.joules[name], tokens) for _, tokens, each in known if name in each.joules]
        if not of or not any(name in each.counted for _, _, each in known):
            continue
        spent_j, generated = math.fsum(j for j, _ in of), sum(tokens for _, tokens in of)
        found[f"{name}_energy_j"] = spent_j / len(of)
        if generated:
            found[f"{name}_energy_per_output_token_j"] = spent_j / generated
    whole = [
        (joules, math.fsum(each.joules.values())) for joules, _, each in known if each.complete
    ]
    other_j = math.fsum(other for _, other in whole)
    if whole and other_j > 0:
        found["beside_energy_share"] = other_j / (other_j + math.fsum(own for own, _ in whole))
    return found


def _rates(totals: _Totals, gpus: int) -> dict[str, float]:
    if totals.duration_s <= 0:
        return {}
    mean_s = totals.duration_s / totals.windows
    return {
        "output_tokens_per_s": totals.output_tokens / totals.duration_s,
        "requests_per_s": totals.requests / totals.duration_s,
        "duration_s": mean_s,
        **({"gpu_seconds": gpus * mean_s} if gpus else {}),
    }


def _good(evidence: Mapping[str, Any]) -> int | None:
    found: int | None = evidence.get("work", {}).get("good")
    return found


def _goodput(good: Sequence[int | None], windows: Sequence[Window]) -> dict[str, float]:
    """Of windows that all know it."""
    known = [count for count in good if count is not None]
    seconds = math.fsum(window.duration_s for window in windows)
    if not known or len(known) < len(windows) or seconds <= 0:
        return {}
    return {"goodput_rps": sum(known) / seconds}


def _latencies(samples: Mapping[str, Sequence[Any]]) -> dict[str, float]:
    found = {}
    for name in LATENCIES:
        pairs = _weighted(samples.get(f"{name}_s", ()))
        count = sum(weight for _, weight in pairs)
        if not count:
            continue
        found[f"{name}_mean_s"] = math.fsum(value * weight for value, weight in pairs) / count
        quantiles = _quantiles(pairs, [percent / 100 for percent in PERCENTILES])
        for percent, quantile in zip(PERCENTILES, quantiles, strict=True):
            found[f"{name}_p{percent}_s"] = quantile
    return found


def _weighted(samples: Sequence[Any]) -> list[tuple[float, int]]:
    """Samples as (seconds, weight), whether they came as numbers or as pairs."""
    pairs = ((each, 1) if isinstance(each, int | float) else tuple(each) for each in samples)
    return [(value, weight) for value, weight in pairs if weight]


def _deviations(windows: Sequence[Window]) -> dict[str, float]:
    """Sample standard deviations over windows, of everything that is not a percentile."""
    tails = {f"{name}_p{percent}_s" for name in LATENCIES for percent in PERCENTILES}
    found = {}
    for name in METRICS:
        values = [window.metrics[name] for window in windows if name in window.metrics]
        if name not in tails and len(values) >= 2:
            found[name + SD_WINDOWS] = statistics.stdev(values)
    return found
