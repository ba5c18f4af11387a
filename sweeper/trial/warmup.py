"""When a point has been run long enough for its windows to count."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sweeper.spec import TEMPERATURE_S, WarmupSpec
from sweeper.trial.windows import spread

STEADY_SPREAD = 0.05
"""Two batches in a row whose times differ by less, relatively, end the warm-up."""
STEADY_C = 1.0
"""Degrees that a steady temperature moves within `TEMPERATURE_S`: NVML tells whole ones."""
FIRST_MOST_S = 30.0
"""How long a first visit waits at most for a steady temperature. A heat sink takes minutes to
reach it; what the temperature still does inside a window is judged there (`temperature_drift`)."""
LATER_MOST_S = 15.0
"""The same on later visits, where another batch size of the same engine ran before."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch of a warm-up: what it took, when it ended, and the devices' temperatures then."""

    duration_s: float
    ended_s: float
    temperature_c: Mapping[str, float] = field(default_factory=dict)


def settled(batches: Sequence[Batch], warmup: WarmupSpec, visited: bool) -> bool:
    """Whether these batches were enough: the rate is steady, and the temperature.

    On the first visit at least `min_batches`, then until two in a row take the same time, at most
    `max_batches`; on later visits one batch. A temperature that keeps moving is waited for no
    longer than `FIRST_MOST_S` and `LATER_MOST_S`; devices that tell none are not waited for.
    """
    durations_s = [batch.duration_s for batch in batches]
    if not batches or not _steady_rate(durations_s, warmup, visited):
        return False
    return steady_temperature(batches) or _ran_s(batches) >= (
        LATER_MOST_S if visited else FIRST_MOST_S
    )


def steady_temperature(batches: Sequence[Batch]) -> bool:
    """Whether no device's temperature moved by more than `STEADY_C` in the last `TEMPERATURE_S`.

    False while the batches do not go back that far.
    """
    last = batches[-1]
    if not last.temperature_c:
        return True
    if _ran_s(batches) < TEMPERATURE_S:
        return False
    recent = [batch for batch in batches if batch.ended_s >= last.ended_s - TEMPERATURE_S]
    # A batch longer than the look-back leaves one: the end of the one before says where it began.
    recent = recent if len(recent) > 1 else list(batches[-2:])
    for device in last.temperature_c:
        seen = [b.temperature_c[device] for b in recent if device in b.temperature_c]
        if max(seen) - min(seen) > STEADY_C:
            return False
    return True


def _steady_rate(durations_s: Sequence[float], warmup: WarmupSpec, visited: bool) -> bool:
    count = len(durations_s)
    if visited or count >= warmup.max_batches:
        return True
    return count >= warmup.min_batches and spread(durations_s[-2:]) <= STEADY_SPREAD


def _ran_s(batches: Sequence[Batch]) -> float:
    return batches[-1].ended_s - batches[0].ended_s + batches[0].duration_s
