"""A record made again from its windows, its settings and the lease that it was measured in."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.verify import gpus, ids, numbers, power, stream
from sweeper.verify.figures import Seen
from sweeper.verify.numbers import idle_w
from sweeper.verify.sources import KEY, LEASE, Line, Sources, name_of
from sweeper.verify.tally import RELATIVE, Tally
from sweeper.verify.windows import check as check_window

MEASURED: Mapping[str, bool] = {
    "nvml": True,
    "amd": True,
    "rapl": True,
    "replay": True,
    "codecarbon": False,
    "simulated": False,
}
"""Which meters measure; what another says of itself is taken as told."""
PRETEND = "pretend-gpu-"
"""What a simulation without devices calls its own."""


def check(record: Line, sources: Sources, accelerators: Sequence[Any], tally: Tally) -> list[Seen]:
    """Hold one record against everything it follows from; its windows as they were made again."""
    where = name_of(record)
    _identity(record, accelerators, where, tally)
    _lease(record, sources, where, tally)
    gpus.check(record, where, tally)
    written = _written(record, sources)
    _lines(record, written, where, tally)
    if not record["windows"]:
        tally.equal("metrics of records", where, "metrics without windows", record["metrics"], {})
        return []
    streams = stream.merged(stream.read(packed) for packed in sources.attached("events", record))
    traces = power.read(sources.attached("power_trace", record))

    def again(window: Line) -> Seen | None:
        place = f"{where}, window {window['index']}"
        with tally.looking(place):
            events = _events(window, streams, record, place, tally)
            _devices(window, record, place, tally)
            _known(window, record, place, tally)
            power.check(window, traces, place, tally)
            return check_window(window, events, record, place, tally)
        return None

    seen = [made for window in record["windows"] if (made := again(window)) is not None]
    last = [made for window in written if window.get("control") and (made := again(window))]
    numbers.check(record, seen, last, where, tally)
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
    # A server that ran before the lease runs on the GPUs that the study names.
    options = record["config"]["engine.options"]
    running = record["config"]["engine.kind"] == "endpoint" and "url" in options
    for devices in [options.get("devices", [])] if running and held else held:
        told = [gpu["uuid"] for gpu in record["environment"]["devices"].get("gpus", ())]
        # A meter of something else than GPUs names none.
        if devices and told and record["windows"]:
            tally.equal("devices", where, "devices", sorted(told), sorted(set(told) & {*devices}))
            tally.equal("devices", where, "gpus", record["gpus"], len(told))


def _written(record: Line, sources: Sources) -> list[Line]:
    """The windows of a record as they were written when they closed."""
    names = (*KEY, *LEASE)
    mine = [record[name] for name in names]
    return [w for w in sources.of("window") if [w.get(name) for name in names] == mine]


def _lines(record: Line, written: Sequence[Line], where: str, tally: Tally) -> None:
    """The windows of a record are those that were written.

    Beside them stands at most one more, the last, of the launch's second visit to its control.
    """
    if record["status"] == "failed":
        return
    count = len(record["windows"])
    indices = [window["index"] for window in record["windows"]]
    tally.equal("windows", where, "numbers of windows", indices, [*range(count)])
    extra = [window["index"] for window in written if window.get("control")]
    tally.equal("windows", where, "windows of a control", extra, [count][: len(extra)])
    kept = [window for window in written if not window.get("control")]
    found = [window["index"] for window in kept]
    if tally.equal("windows", where, "windows written as they closed", found, indices):
        for one, other in zip(kept, record["windows"], strict=True):
            place = f"{where}, window {other['index']}"
            for name, value in other.items():
                tally.equal("fields of windows", place, f"written {name}", one.get(name), value)
    for window in written:
        tally.equal("origins", where, "energy of windows", window["energy"], record["energy"])


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
            rested = idle_w(readings, device)
            if rested is not None and watts > rested * (1 + RELATIVE):
                tally.differ(where, f"known idle_w of {device} is {watts:g}, at rest {rested:g}")
