"""What makes a result's energy per output token uncertain, part by part, relative to it.

    counter   a counter moves in ticks: one period's energy, of a window's (docs, protocol)
    board     gain error of the boards' sensors, the same in every window of a board: systematic
    window    sample deviation over the windows of a launch, pooled over launches
    launch    half the 95 % interval of the mean over launches (Student's t)
    drift     the last window of a launch's control over its first, less one; without a control,
              what a line through the result's own windows rises by from the first to the last

A part that the measurements do not tell is unknown, and says why; it is never zero.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sweeper.verify.figures import Seen
from sweeper.verify.pooling import HIGH, LOW, Pooled
from sweeper.verify.sources import Line

METRIC = "energy_per_output_token_j"
PARTS = ("counter", "board", "window", "launch", "drift")
FEWEST_FOR_A_LINE = 3
Part = float | str
"""A fraction of the result, or the reason why it is not known."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The value of a result and its parts, each a fraction of it or why that is unknown."""

    id: str
    stage: str
    value: float | None
    measured: bool
    parts: Mapping[str, Part]


def budget(
    result: Pooled, windows: Sequence[Sequence[Seen]], drifts: Sequence[float] = ()
) -> Budget:
    """The budget of a result; `windows` are those of each of its launches, as made again.

    `drifts` are the ratios that the controls of these launches came to.
    """
    value = result.metrics.get(METRIC)
    metered = [
        [each for each in launch if each.phase == "all" and joules_per_token(each)]
        for launch in windows
    ]
    metered = [launch for launch in metered if launch]
    if value is None:
        parts: dict[str, Part] = dict.fromkeys(PARTS, "no window has energy")
    else:
        parts = {
            "counter": _counter(result.records, metered),
            "board": _board(result.first),
            "window": _window(metered),
            "launch": _launch(result, value),
            "drift": statistics.fmean(drifts) - 1 if drifts else _drift(metered),
        }
    return Budget(
        id=result.id,
        stage=result.first["stage"],
        value=value,
        measured=result.kind == "measured",
        parts=parts,
    )


def joules_per_token(window: Seen) -> float | None:
    """Of a window that has both."""
    if window.joules is None or not window.output_tokens:
        return None
    return window.joules / window.output_tokens


def _counter(records: Sequence[Line], metered: Sequence[Sequence[Seen]]) -> Part:
    """The longest period over the shortest window: period x power / energy."""
    gpus = [gpu for record in records for gpu in _gpus(record)]
    periods_s = [gpu.get("counter_period_s") for gpu in gpus]
    known_s = [period_s for period_s in periods_s if period_s is not None]
    if not known_s or len(known_s) < len(periods_s):
        return "no period of a counter is known"
    shortest_s = min(window.between_s for launch in metered for window in launch)
    return float(max(known_s) / shortest_s)


def _gpus(record: Line) -> Sequence[Line]:
    devices = record["environment"].get("devices", {})
    gpus: Sequence[Line] = devices.get("gpus", ())
    return gpus


def _board(record: Line) -> Part:
    energy = record["energy"] or {}
    if energy.get("systematic") is None:
        return "the meter's gain error is not known"
    return float(energy["systematic"])


def _window(metered: Sequence[Sequence[Seen]]) -> Part:
    """The deviation of a window's joules a token from its launch's, over all launches."""
    squares, freedom = [], 0
    for launch in metered:
        values = [joules_per_token(window) or math.nan for window in launch]
        mean = math.fsum(values) / len(values)
        squares += [(value / mean - 1) ** 2 for value in values]
        freedom += len(values) - 1
    return math.sqrt(math.fsum(squares) / freedom) if freedom else "one window"


def _launch(result: Pooled, value: float) -> Part:
    low, high = result.metrics.get(METRIC + LOW), result.metrics.get(METRIC + HIGH)
    if low is None or high is None:
        return "one launch"
    return (high - low) / 2 / abs(value)


def _drift(metered: Sequence[Sequence[Seen]]) -> Part:
    """The mean over launches, signed: a positive one costs more as time goes by."""
    rises = []
    for launch in metered:
        if len(launch) >= FEWEST_FOR_A_LINE:
            values = [joules_per_token(window) or math.nan for window in launch]
            times_s = [(each.started_s + each.ended_s) / 2 for each in launch]
            slope = statistics.linear_regression(times_s, values).slope
            rises.append(slope * (max(times_s) - min(times_s)) / statistics.fmean(values))
    return statistics.fmean(rises) if rises else f"fewer than {FEWEST_FOR_A_LINE} windows"
