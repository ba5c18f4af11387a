"""The numbers and the verdict of a record, made again from its windows."""

import math
from collections.abc import Sequence

from sweeper.verify.figures import (
    DRIFTS,
    IDLE,
    Seen,
    follows,
    of_windows,
    phases,
    spreads,
    too_few,
)
from sweeper.verify.sources import Line
from sweeper.verify.tally import Tally


def check(
    record: Line, seen: Sequence[Seen], control: Sequence[Seen], where: str, tally: Tally
) -> None:
    """Hold metrics, tails, status, reason and checks against the windows as made again.

    `control` is the window of the launch's second visit to this point, where it made one.
    """
    _metrics(record, seen, control, where, tally)
    _verdict(record, seen, where, tally)


def _metrics(
    record: Line, seen: Sequence[Seen], control: Sequence[Seen], where: str, tally: Tally
) -> None:
    gpus = record["gpus"]
    whole = [window for window in seen if window.phase == "all"]
    made = {**of_windows(whole, gpus), **spreads(whole, gpus), **phases(seen)}
    said = dict(record["metrics"])
    for name, readings in record["environment"].get("idle_readings", {}).items():
        if name in IDLE and (watts := idle_w(readings)) is not None:
            made[name] = watts
    drifted = drift([*seen, *control], gpus)
    # Without such a window a launch of one point tells its own drift, one of several none.
    made |= {name: ratio for name, ratio in drifted.items() if control or name in said}
    counted = [name for name in said if name not in made and not follows(name)]
    for name in counted:
        del said[name]
        tally.left["counts that only the engine knows"] += 1
    tally.numbers("metrics of records", where, said, made)
    said_few = sorted(record["undersampled"])
    tally.equal("undersampled tails", where, "undersampled", said_few, sorted(too_few(whole)))


def drift(windows: Sequence[Seen], gpus: int) -> dict[str, float]:
    """The last window of whole work over the first that has the number, of each of `DRIFTS`."""
    each = [of_windows([window], gpus) for window in windows if window.phase == "all"]
    found = {}
    for name, metric in DRIFTS.items():
        values = [metrics.get(metric, 0.0) for metrics in each]
        first = next((value for value in values[:-1] if value > 0), None)
        if first is not None and values[-1] > 0:
            found[name] = values[-1] / first
    return found


def idle_w(readings: Sequence[Line], device: str | None = None) -> float | None:
    """Joules of a device, or all, between two readings over the seconds between, if they moved."""
    if len(readings) != 2:
        return None
    first, last = readings
    before, after = first["energy_j"], last["energy_j"]
    of = list(before) if device is None else [device]
    joules = math.fsum(after[each] - before[each] for each in of)
    seconds = last["t_s"] - first["t_s"]
    return joules / seconds if joules > 0 and seconds > 0 else None


def _verdict(record: Line, seen: Sequence[Seen], where: str, tally: Tally) -> None:
    """`ok` is as many windows with energy as were asked for; else all reasons are told."""
    if record["status"] in {"ok", "energy_invalid"}:
        valid = sum(each.joules is not None for each in seen if each.phase == "all")
        status = "ok" if valid >= record["config"]["measure.repeats"] else "energy_invalid"
        tally.equal("verdicts", where, "status", record["status"], status)
        reasons = {reason for window in record["windows"] for reason in window["reasons"]}
        left = record["reason"] or ""
        for reason in sorted(reasons, key=len, reverse=True) if status != "ok" else ():
            tally.compared["reasons"] += 1
            if reason not in left:
                tally.differ(where, f"its reason does not tell of {reason!r}")
            left = left.replace(reason, "")
        tally.equal("reasons", where, "reason beside those of windows", left.strip("; "), "")
    checks = {check["name"]: check["ok"] for check in record["checks"]}
    for window in record["windows"]:
        name = f"window_{window['index']}"
        tally.equal("checks", where, name, checks.get(name), not window["reasons"])
