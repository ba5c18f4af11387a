"""What a node spends beside the GPUs of a launch, from the readings of its windows (pure).

A reading may carry `components`: by name what was read of each right after the launch's GPUs,
`{"t_s", "energy_j": {device: joules}}`, or `{"reason": "code: detail"}` where that failed. They are
told apart from the launch's own joules and from each other, and are never added to `energy_j`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

COMPONENTS: Mapping[str, str] = {
    "cpu": "the node's processors",
    "dram": "the node's memory",
    "idle_gpu": "the GPUs that the lease holds and the launch does not use",
}
"""The components by name, and what they are."""
SAME_SPAN = 0.05
"""A component is read just after the GPUs, at either edge. Its joules are referred to the seconds
between their readings; where its own seconds are another number than that by more, relatively, it
was not read beside them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """Of one window: joules of each component that is known, and why each other one is not.

    `counted` are the components that have a device at all: of none, the joules are none.
    """

    joules: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    counted: frozenset[str] = frozenset()

    @property
    def complete(self) -> bool:
        """Whether every component is known, so that a share of all of it can be told."""
        return self.joules.keys() == COMPONENTS.keys()


def beside(readings: Sequence[Mapping[str, Any]]) -> Beside:
    """What the components spent between the two readings of a window."""
    if len(readings) < 2:
        return Beside()
    first, last = readings[0].get("components", {}), readings[-1].get("components", {})
    span_s = float(readings[-1]["t_s"] - readings[0]["t_s"])
    found = {
        name: _spent(first[name], last[name], span_s)
        for name in COMPONENTS
        if name in first and name in last
    }
    return Beside(
        joules={name: each for name, each in found.items() if isinstance(each, float)},
        reasons={name: each for name, each in found.items() if isinstance(each, str)},
        counted=frozenset(name for name in found if first[name].get("energy_j")),
    )


def _spent(first: Mapping[str, Any], last: Mapping[str, Any], span_s: float) -> float | str:
    for each in (first, last):
        if "reason" in each:
            return str(each["reason"])
    before, after = first["energy_j"], last["energy_j"]
    if set(before) != set(after):
        return f"wrong_gpu_count: {', '.join(sorted(set(before) ^ set(after)))}"
    if not before:
        return 0.0
    own_s = last["t_s"] - first["t_s"]
    if own_s <= 0 or abs(own_s - span_s) > SAME_SPAN * span_s:
        return f"not_bracketed: {own_s:.3f} s beside a window of {span_s:.3f} s"
    total_j = 0.0
    for device, joules in before.items():
        spent_j = after[device] - joules
        if spent_j <= 0:
            code = "counter_reset" if spent_j else "zero_energy"
            return f"{code}: {device} went on by {spent_j:.3f} J in {own_s:.1f} s"
        total_j += spent_j
    return float(total_j * span_s / own_s)
