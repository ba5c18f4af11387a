"""Quantities as people read them: units of metrics, SI prefixes, significant digits (pure)."""

import math
from collections.abc import Sequence

from sweeper.answers.results import CI_HIGH, CI_LOW, Provenance
from sweeper.results.components import COMPONENTS
from sweeper.results.metrics import LATENCIES, SD_WINDOWS

_UNITS = {
    "energy_j": "J",
    "energy_per_output_token_j": "J/token",
    "energy_per_token_j": "J/token",
    "energy_per_request_j": "J/request",
    **{f"{name}_energy_j": "J" for name in COMPONENTS},
    **{f"{name}_energy_per_output_token_j": "J/token" for name in COMPONENTS},
    "power_mean_w": "W",
    "output_tokens_per_s": "tokens/s",
    "requests_per_s": "requests/s",
    "goodput_rps": "requests/s",
    "gpu_seconds": "GPU s",
    "duration_s": "s",
    "context_idle_w": "W",
    "bare_idle_w": "W",
    "peak_memory_bytes": "B",
}
_LABELS = {
    "energy_per_output_token_j": "energy per output token",
    "energy_per_token_j": "energy per token",
    "energy_per_request_j": "energy per request",
    "energy_j": "energy per window",
    "cpu_energy_per_output_token_j": "CPU per output token",
    "dram_energy_per_output_token_j": "DRAM per output token",
    "idle_gpu_energy_per_output_token_j": "idle GPUs per output token",
    "beside_energy_share": "share beside the GPUs",
    "power_mean_w": "power",
    "output_tokens_per_s": "output tokens",
    "requests_per_s": "requests",
    "goodput_rps": "goodput",
}
_PREFIXES = {-9: "n", -6: "µ", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}

CAVEAT: dict[Provenance, str] = {
    "measured": "",
    "estimate": "estimate, not measured",
    "simulation": "simulation, not measured",
}
"""What is said beside every number that no instrument gave."""


def unit(metric: str) -> str:
    """The SI unit of a metric, without a prefix."""
    base = metric.removesuffix(SD_WINDOWS).removesuffix(CI_LOW).removesuffix(CI_HIGH)
    return _UNITS.get(base, "s" if base.endswith("_s") else "")


def label(metric: str) -> str:
    """A short name for a column or an axis."""
    name, _, statistic = metric.removesuffix("_s").rpartition("_")
    if name in LATENCIES:
        return f"{name.upper() if name != 'latency' else name} {statistic}"
    return _LABELS.get(metric, metric)


def exponent(values: Sequence[float], metric: str) -> int:
    """The power of ten, a multiple of 3, in which the smallest of positive values reads well.

    Seconds stay seconds above 1, and rates stay whole.
    """
    positive = [abs(value) for value in values if value]
    if not positive or not unit(metric):
        return 0
    power = 3 * math.floor(math.log10(min(positive)) / 3)
    most = 0 if unit(metric) in {"s", "GPU s"} or unit(metric).endswith("/s") else 12
    least = 0 if unit(metric).endswith("/s") else -9
    return min(max(power, least), most)


def prefixed(metric: str, power: int) -> str:
    """The unit with the prefix of a power of ten."""
    return _PREFIXES[power] + unit(metric)


def bracketed(metric: str, power: int) -> str:
    """The unit as a heading has it; nothing for a share, which has none."""
    return f"[{prefixed(metric, power)}]" if unit(metric) else ""


def digits(value: float, power: int = 0, significant: int = 3) -> str:
    """A value over a power of ten, with so many significant digits, never in exponents."""
    scaled = value / 10.0**power
    if scaled == 0 or not math.isfinite(scaled):
        return f"{scaled:g}"
    magnitude = int(f"{scaled:.{significant - 1}e}".partition("e")[2])
    places = max(0, significant - 1 - magnitude)
    return f"{scaled:,.{min(places, 12)}f}"


def quantity(value: float, metric: str) -> str:
    """A value with its unit, such as `41.2 mJ/token`."""
    power = exponent([value], metric)
    return f"{digits(value, power)} {prefixed(metric, power)}".rstrip()
