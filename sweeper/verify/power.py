"""The power of a launch between two moments, integrated anew from its trace.

A trace is kept to a microsecond and a milliwatt, so its integral is not quite that of what was
sampled (`tally.ROUNDED`).
"""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from sweeper.verify.sources import Line
from sweeper.verify.tally import Tally

NAMES = ("energy_j", "largest_gap_s", "standard_error_j")
Samples = Sequence[tuple[float, float]]


def read(traces: Iterable[bytes]) -> Mapping[str, Samples]:
    """The samples (seconds, watts) of each device, in the order of time."""
    found: dict[str, list[tuple[float, float]]] = {}
    for trace in traces:
        for row in csv.DictReader(io.StringIO(trace.decode())):
            found.setdefault(row["device"], []).append((float(row["t_s"]), float(row["watts"])))
    return {device: sorted(samples) for device, samples in found.items()}


def check(window: Line, traces: Mapping[str, Samples], where: str, tally: Tally) -> None:
    """Hold the integrals that a window was judged by against the trace of its launch."""
    for device, said in window["evidence"]["power"].items():
        first_s, last_s = (reading["t_s"] for reading in window["readings"])
        samples = traces.get(device, ())
        inside = [each for each in samples if first_s <= each[0] <= last_s]
        if not inside or len(inside) != said["samples"] or not said["bracketed"]:
            tally.left["power integrals whose samples are not all in the trace"] += 1
            continue
        made = integrals(samples, inside, first_s, last_s)
        for name in NAMES:
            if name in made:
                tally.close("power integrals", f"{where}, {device}", name, said[name], made[name])
        for edge, (kept_w, again_w) in enumerate(
            zip(said["edges_w"], (_at(samples, first_s), _at(samples, last_s)), strict=True)
        ):
            tally.close("power integrals", f"{where}, {device}", f"edge {edge}", kept_w, again_w)


def integrals(samples: Samples, inside: Samples, first_s: float, last_s: float) -> dict[str, float]:
    """Joules by the trapezoid rule, the longest time without a sample, and the standard error."""
    ends = [(first_s, _at(samples, first_s)), (last_s, _at(samples, last_s))]
    marks = [ends[0], *inside, ends[1]]
    pairs = list(pairwise(marks))
    made = {
        "energy_j": math.fsum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs),
        "largest_gap_s": max(b[0] - a[0] for a, b in pairs),
    }
    if len(inside) > 1:
        scatter_w = statistics.stdev(watts for _, watts in inside)
        made["standard_error_j"] = scatter_w * (last_s - first_s) / math.sqrt(len(inside))
    return made


def _at(samples: Samples, t_s: float) -> float:
    """Power at a moment between two samples, straight from one to the next."""
    before = max((each for each in samples if each[0] <= t_s), default=samples[0])
    after = min((each for each in samples if each[0] >= t_s), default=samples[-1])
    if before[0] == after[0]:
        return before[1]
    return before[1] + (after[1] - before[1]) * (t_s - before[0]) / (after[0] - before[0])
