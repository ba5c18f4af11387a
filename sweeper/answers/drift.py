"""How far the controls of launches drifted, GPU by GPU (pure)."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sweeper.results.metrics import DRIFTS, is_energy
from sweeper.results.record import Record


@dataclass(frozen=True, kw_only=True)
class Drift:
    """One ratio over a GPU's controls: how many told it, their median, and the furthest from 1.

    A ratio is the last window of a launch over its first, of the same point.
    """

    controls: int
    median: float
    extreme: float


@dataclass(frozen=True, kw_only=True)
class GpuDrift:
    """What the launches on one GPU tell; a ratio that none of them tells is absent.

    The joules of a launch on several GPUs are of all of them together, and tell of each.
    """

    gpu: str
    name: str | None
    host: str | None
    ratios: Mapping[str, Drift]


def drifts(records: Iterable[Record]) -> tuple[GpuDrift, ...]:
    """Every GPU on which a control was measured, by host and UUID."""
    told: dict[tuple[str, str], dict[str, list[float]]] = {}
    names: dict[tuple[str, str], str | None] = {}
    for record in records:
        known = {
            name: record.metrics[name]
            for name in DRIFTS
            if name in record.metrics and not (record.status != "ok" and is_energy(name))
        }
        devices = record.environment.get("devices") or {}
        for gpu in devices.get("gpus") or () if known else ():
            place = (str(record.environment.get("host") or ""), str(gpu.get("uuid")))
            names[place] = gpu.get("name")
            for name, ratio in known.items():
                told.setdefault(place, {}).setdefault(name, []).append(ratio)
    return tuple(
        GpuDrift(
            gpu=place[1],
            name=names[place],
            host=place[0] or None,
            ratios={name: _of(ratios) for name, ratios in told[place].items()},
        )
        for place in sorted(told)
    )


def drift_object(found: GpuDrift) -> dict[str, object]:
    """A GPU's drift as plain data."""
    ratios = {
        name: {"controls": each.controls, "median": each.median, "extreme": each.extreme}
        for name, each in found.ratios.items()
    }
    return {"gpu": found.gpu, "name": found.name, "host": found.host, **ratios}


def _of(ratios: list[float]) -> Drift:
    return Drift(
        controls=len(ratios),
        median=statistics.median(ratios),
        extreme=max(ratios, key=lambda ratio: abs(ratio - 1)),
    )
