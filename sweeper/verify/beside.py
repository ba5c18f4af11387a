"""What a node spent beside the GPUs of a launch, made again from the readings of windows.

A reading carries what was read of each component after the GPUs, at a moment of its own. What a
component spent between two of those moments is stretched to the seconds between the GPUs' readings;
where the two differ by more than a twentieth it was not read beside them, and counts as unknown.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

NAMES = ("cpu", "dram", "idle_gpu")
SHARE = "beside_energy_share"
METRICS = frozenset(
    {
        SHARE,
        *(f"{name}{end}" for name in NAMES for end in ("_energy_j", "_energy_per_output_token_j")),
    }
)
Window = tuple[float, int, Sequence[Mapping[str, Any]]]
"""Joules of its GPUs, tokens generated in it, its readings."""


def metrics(windows: Sequence[Window]) -> dict[str, float]:
    """Of windows that have energy: each component where it is known, the share where all are."""
    spent = [{name: _spent(name, readings) for name in NAMES} for _, _, readings in windows]
    found: dict[str, float] = {}
    for name in NAMES:
        known = [place for place, each in enumerate(spent) if each[name] is not None]
        if known and any(_has(name, readings) for _, _, readings in windows):
            joules = math.fsum(spent[place][name] or 0.0 for place in known)
            tokens = sum(windows[place][1] for place in known)
            found[f"{name}_energy_j"] = joules / len(known)
            if tokens:
                found[f"{name}_energy_per_output_token_j"] = joules / tokens
    whole = [place for place, each in enumerate(spent) if None not in each.values()]
    beside = math.fsum(joules or 0.0 for place in whole for joules in spent[place].values())
    if beside > 0:
        found[SHARE] = beside / (beside + math.fsum(windows[place][0] for place in whole))
    return found


def _has(name: str, readings: Sequence[Mapping[str, Any]]) -> bool:
    """Whether there is a device of that component, and both readings tell of it."""
    if len(readings) < 2:
        return False
    first, last = (
        reading.get("components", {}).get(name) for reading in (readings[0], readings[-1])
    )
    return bool(first and last and first.get("energy_j"))


def _spent(name: str, readings: Sequence[Mapping[str, Any]]) -> float | None:
    if len(readings) < 2:
        return None
    first, last = (
        reading.get("components", {}).get(name) for reading in (readings[0], readings[-1])
    )
    if first is None or last is None or "reason" in first or "reason" in last:
        return None
    before, after = first["energy_j"], last["energy_j"]
    if before.keys() != after.keys():
        return None
    if not before:
        return 0.0
    between_s = readings[-1]["t_s"] - readings[0]["t_s"]
    own_s = last["t_s"] - first["t_s"]
    moved = [after[device] - before[device] for device in before]
    if own_s <= 0 or abs(own_s - between_s) > between_s / 20 or min(moved) <= 0:
        return None
    return float(math.fsum(moved) * between_s / own_s)
