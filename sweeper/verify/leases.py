"""Leases: GPU-seconds made again, and joules that no lease can have less of than its windows."""

import math

from sweeper.verify.judgement import joules_of
from sweeper.verify.sources import KEY, Line, Sources, name_of
from sweeper.verify.tally import Tally


def check(sources: Sources, tally: Tally) -> None:
    """Hold the end of every lease against its beginning and its windows."""
    began = {_of(line): line for line in sources.of("trial")}
    for line in sources.of("ended"):
        where = f"lease {line['trial_id']} attempt {line.get('attempt', 0)}"
        with tally.looking(where):
            lease = began.get(_of(line))
            if lease is None:
                tally.differ(where, "it ended, but never began")
            elif "seconds" in line:
                held = line["seconds"] * len(lease["devices"])
                tally.number("leases", where, "gpu_seconds", line["gpu_seconds"], held)
            _joules(line, sources, where, tally)
    _unrecorded(sources, tally)


def _unrecorded(sources: Sources, tally: Tally) -> None:
    """Windows without a record are of launches that died, or of one that is under way."""
    written = {_record_of(line) for line in sources.of("record") if line["status"] != "failed"}
    died = {_of(line) for line in sources.of("death")}
    over = {_of(line) for line in sources.of("ended")} - died
    for window in sources.of("window"):
        if _record_of(window) in written:
            continue
        if _of(window) in over:
            tally.differ(name_of(window), f"window {window['index']} has no record")
        else:
            tally.left["windows of launches that died or run: their events are not kept"] += 1


def _joules(line: Line, sources: Sources, where: str, tally: Tally) -> None:
    if line.get("energy_j") is None:
        # A launch that died has no last reading: what it took is not known.
        return
    total = math.fsum(
        after["energy_j"][device] - before["energy_j"][device]
        for before, after in line["readings"]
        for device in before["energy_j"]
    )
    tally.number("leases", where, "energy_j", line["energy_j"], total)
    mine = [each for each in sources.of("window") if _of(each) == _of(line)]
    least = sum(joules_of(*each["readings"]) for each in mine if each["energy_j"] is not None)
    tally.compared["leases"] += 1
    if line["energy_j"] < least * (1 - 1e-9):
        tally.differ(where, f"energy_j is {line['energy_j']:.6g}, its windows have {least:.6g}")


def _record_of(line: Line) -> tuple[object, ...]:
    return (*(line[name] for name in KEY), *_of(line))


def _of(line: Line) -> tuple[object, ...]:
    return line["trial_id"], line.get("attempt", 0)
