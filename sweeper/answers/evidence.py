"""What a window was judged by, in a receipt's words."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeper.results.reasons import REASONS, code_of


def device_lines(evidence: Mapping[str, Any]) -> Iterator[str]:
    """One line for every device of which something is known."""
    glances = [evidence.get(edge) or {} for edge in ("before", "after")]
    before, after = (glance.get("devices", {}) for glance in glances)
    span_s = glances[1].get("monotonic_s", 0.0) - glances[0].get("monotonic_s", 0.0)
    power = evidence.get("power", {})
    for device in dict.fromkeys((*before, *after, *power)):
        old, new = before.get(device, {}), after.get(device, {})
        parts = [
            *_moved("temperature_c", "°C", old, new),
            *_moved("sm_clock_mhz", "MHz", old, new),
            *_held_down(old, new, span_s),
            *_sampled(power.get(device)),
        ]
        if parts:
            yield f"{device}: {', '.join(parts)}"


def reason_lines(reasons: Sequence[str]) -> Iterator[str]:
    """Each reason, and below it what to do."""
    for reason in reasons:
        yield f"no energy: {reason}"
        known = REASONS.get(code_of(reason))
        if known is not None:
            yield f"  {known.remedy}"


def _moved(name: str, unit: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    if name in old and name in new:
        yield f"{old[name]:g} to {new[name]:g} {unit}"


def _held_down(old: Mapping[str, Any], new: Mapping[str, Any], span_s: float) -> Iterator[str]:
    before, after = old.get("violations_s", {}), new.get("violations_s", {})
    for name in after:
        held_s = after[name] - before.get(name, after[name])
        if held_s > 0 and span_s > 0:
            yield f"{name} {min(1.0, held_s / span_s):.0%} of the time"


def _sampled(power: Mapping[str, Any] | None) -> Iterator[str]:
    if power is not None:
        error = power["standard_error_j"]
        doubt = "" if error is None else f" ± {error:.1f}"
        yield f"{power['samples']} power samples give {power['energy_j']:.1f}{doubt} J"
