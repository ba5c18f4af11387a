"""A record made again from its windows, its settings and the lease that it was measured in."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.verify import ids, power, stream
from sweeper.verify.figures import IDLE, Seen, follows, of_windows, phases, spreads, too_few
from sweeper.verify.sources import KEY, Line, Sources, name_of
from sweeper.verify.tally import RELATIVE, Tally
from sweeper.verify.windows import check as check_window

MEASURED: Mapping[str, bool] = {"nvml": True, "codecarbon": False, "simulated": False}
"""Which meters measure; what another says of itself is taken as told."""
PRETEND = "pretend-gpu-"
"""What a simulation without devices calls its own."""


def check(record: Line, sources: Sources, accelerators: Sequence[Any], tally: Tally) -> list[Seen]:
    """Hold one record against everything it follows from; its windows as they were made again."""
    where = name_of(record)
    windows = record["windows"]
    _identity(record, accelerators, where, tally)
    _lease(record, sources, where, tally)
    _lines(record, sources, where, tally)
    if not windows:
        tally.equal("metrics of records", where, "metrics without windows", record["metrics"], {})
        return []
    streams = stream.merged(stream.read(packed) for packed in sources.attached("events", record))
    traces = power.read(sources.attached("power_trace", record))
    seen = []
    for window in windows:
        place = f"{where}, window {window['index']}"
        with tally.looking(place):
            events = _events(window, streams, record, place, tally)
            seen.append(check_window(window, events, record, place, tally))
            _devices(window, record, place, tally)
            _known(window, record, place, tally)
            power.check(window, traces, place, tally)
    _numbers(record, seen, where, tally)
    _verdict(record, seen, where, tally)
    return seen


def unique(accepted: Sequence[Line], tally: Tally) -> None:
    """One verdict for each (id, launch, stage), no more."""
    counts: dict[tuple[Any, ...], int] = {}
    for record in accepted:
        key = tuple(record[name] for name in KEY)
        counts[key] = counts.get(key, 0) + 1
    for record in accepted:
        count = counts.pop(tuple(record[name] for name in KEY), None)
        if count is not None:
            tally.equal("verdicts of keys", name_of(record), "number of verdicts", count, 1)


def _identity(record: Line, accelerators: Sequence[Any], where: str, tally: Tally) -> None:
    settings = ids.nested(record["config"])
    known = [
        (ids.of_point(settings, a), ids.of_configuration(settings, a))
        for a in accelerators or (None,)
    ]
    said = (record["id"], record["configuration"])
    tally.compared["ids"] += 2
    if said not in known:
        tally.differ(where, f"its settings have the id {known[0][0]}: config, or id, was changed")
    for part in ("chosen", "condition"):
        for key, value in record[part].items():
            tally.equal("settings", where, f"{part} {key}", value, ids.get(settings, key))
    workload, measure = settings["workload"], settings["measure"]
    automatic = "whole" if workload["batching"] == "static" else "steady"
    convention = automatic if measure["window"] == "auto" else measure["window"]
    tally.equal("settings", where, "convention", record["convention"], convention)
    energy = record["energy"]
    if energy is not None and energy["source"] in MEASURED:
        what = f"measured, by {energy['source']},"
        tally.equal("origins", where, what, energy["measured"], MEASURED[energy["source"]])


def _lease(record: Line, sources: Sources, where: str, tally: Tally) -> None:
    """The GPUs of a record are among those that its lease held."""
    held = [
        line["devices"]
        for line in sources.of("trial")
        if (line["trial_id"], line.get("attempt", 0)) == (record["trial_id"], record["attempt"])
    ]
    if record["status"] == "failed":
        return
    if not held:
        tally.differ(where, f"no lease {record['trial_id']} began before it")
    for devices in held:
        told = [gpu["uuid"] for gpu in record["environment"]["devices"].get("gpus", ())]
        if devices and record["windows"]:
            tally.equal("devices", where, "devices", sorted(told), sorted(set(told) & {*devices}))
            tally.equal("devices", where, "gpus", record["gpus"], len(told))


def _lines(record: Line, sources: Sources, where: str, tally: Tally) -> None:
    """The windows of a record are those that were written as they closed."""
    if record["status"] == "failed":
        return
    names = (*KEY, "trial_id", "attempt")
    mine = [record[name] for name in names]
    written = [w for w in sources.of("window") if [w.get(name) for name in names] == mine]
    numbers = [window["index"] for window in record["windows"]]
    tally.equal("windows", where, "numbers of windows", numbers, [*range(len(numbers))])
    found = [window["index"] for window in written]
    if tally.equal("windows", where, "windows written as they closed", found, numbers):
        for one, other in zip(written, record["windows"], strict=True):
            for name, value in other.items():
                place = f"{where}, window {other['index']}"
                tally.equal("fields of windows", place, f"written {name}", one.get(name), value)
            tally.equal("origins", where, "energy of windows", one["energy"], record["energy"])


def _events(
    window: Line, streams: Mapping[int, stream.Stream], record: Line, where: str, tally: Tally
) -> stream.Stream | None:
    if (found := streams.get(window["index"])) is not None:
        return found
    told = [each["detail"] for each in record["checks"] if each["name"] == "events_kept"]
    if any(str(window["index"]) in re.findall(r"\d+", detail) for detail in told):
        tally.left["windows whose events were too many to be kept: times and tokens as told"] += 1
    else:
        tally.differ(where, "its events are not there")
    return None


def _devices(window: Line, record: Line, where: str, tally: Tally) -> None:
    """Readings are of the devices that the meter found when it was opened."""
    told = sorted(gpu["uuid"] for gpu in record["environment"]["devices"].get("gpus", ()))
    if told:
        for reading in window["readings"]:
            tally.equal("devices", where, "devices of a reading", sorted(reading["energy_j"]), told)


def _known(window: Line, record: Line, where: str, tally: Tally) -> None:
    """What a window was judged by is what the meter told when it was opened.

    Of a device at rest only the last power is kept, and the least that was seen is judged by.
    """
    known = window["evidence"]["known"]
    gpus = {gpu["uuid"]: gpu for gpu in record["environment"]["devices"].get("gpus", ())}
    for name in ("power_method", "counter_ratio", "power_limit_w"):
        told = {uuid: gpu[name] for uuid, gpu in gpus.items() if name in gpu}
        tally.equal("evidence", where, f"known {name}", known[name], told)
    energy = record["energy"]
    tally.equal("evidence", where, "known scope", known["scope"], energy and energy["scope"])
    for readings in record["environment"].get("idle_readings", {}).values():
        for device, watts in known["idle_w"].items():
            tally.compared["evidence"] += 1
            rested = _idle_w(readings, device)
            if rested is not None and watts > rested * (1 + RELATIVE):
                tally.differ(where, f"known idle_w of {device} is {watts:g}, at rest {rested:g}")


def _numbers(record: Line, seen: Sequence[Seen], where: str, tally: Tally) -> None:
    gpus = record["gpus"]
    whole = [window for window in seen if window.phase == "all"]
    made = {**of_windows(whole, gpus), **spreads(whole, gpus), **phases(seen)}
    said = dict(record["metrics"])
    for name, readings in record["environment"].get("idle_readings", {}).items():
        if name in IDLE and (watts := _idle_w(readings)) is not None:
            made[name] = watts
    counted = [name for name in said if name not in made and not follows(name)]
    for name in counted:
        del said[name]
        tally.left["counts that only the engine knows"] += 1
    tally.numbers("metrics of records", where, said, made)
    said_few = sorted(record["undersampled"])
    tally.equal("undersampled tails", where, "undersampled", said_few, sorted(too_few(whole)))


def _idle_w(readings: Sequence[Line], device: str | None = None) -> float | None:
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
