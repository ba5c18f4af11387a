"""What is reported of a window, a record and a result: names, units, definitions (pure).

Every name carries its SI unit and means the same for every engine. Latencies are per request, as
its client sees them; energy is of the launch's GPUs (or of what the meter's scope says), gross.
"""

import math
from collections.abc import Mapping, Sequence

LATENCIES: Mapping[str, str] = {
    "ttft": "time to first token: from sending a request to its first token",
    "tpot": "time per output token after the first: (finish - first token) / (tokens - 1)",
    "itl": "inter-token latency: between consecutive tokens of a request",
    "latency": "end to end: from sending a request to its last token",
}
STATISTICS = ("mean", "p50", "p90", "p99")

_SCALARS: Mapping[str, str] = {
    "energy_j": "joules of one window, mean over windows",
    "energy_per_output_token_j": "joules per generated token",
    "energy_per_token_j": "joules per token, input and output",
    "energy_per_request_j": "joules per request",
    "power_mean_w": "joules over seconds of the windows",
    "output_tokens_per_s": "generated tokens over seconds of the windows",
    "requests_per_s": "finished requests over seconds of the windows",
    "gpu_seconds": "GPUs of the launch times seconds of one window, mean over windows",
    "duration_s": "seconds of one window, mean over windows",
    "context_idle_w": "power with the engine loaded and nothing running",
    "bare_idle_w": "power before the engine was loaded",
    "peak_memory_bytes": "most memory the engine held on one device",
}
METRICS: Mapping[str, str] = {
    **_SCALARS,
    **{
        f"{name}_{statistic}_s": f"{statistic} of {meaning}"
        for name, meaning in LATENCIES.items()
        for statistic in STATISTICS
    },
}
"""Every metric that a study may name, and what it means."""

MIN_TAIL = 5
"""Samples that must lie beyond a percentile for it to be more than its few largest samples."""


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
