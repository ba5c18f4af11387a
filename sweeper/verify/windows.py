"""One window made again from its two readings and its events, and held against what it says."""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from sweeper.verify import stream
from sweeper.verify.figures import Seen, of_windows
from sweeper.verify.sources import Line
from sweeper.verify.tally import Tally

SHORTEST_S = 5.0
"""A window shorter than this gives no energy from a cumulative counter (docs, protocol)."""
BALANCE = 0.02
"""How far a steady window's tokens in per token out may be from the workload's, relatively."""
OF_COUNTERS = frozenset({"window_too_short", "counter_reset", "zero_energy", "wrong_gpu_count"})
"""The reasons that two readings decide; without two a meter may have found them by itself."""
OF_EVENTS = frozenset({"requests_failed", "unbalanced"})
"""The reasons that events decide. All others need what they were judged by."""


def check(window: Line, seen: stream.Stream | None, record: Line, where: str, tally: Tally) -> Seen:
    """What the window must say, by its readings and its events (those kept, `None`: not)."""
    first, last = edges(window)
    _edges(window, first, last, where, tally)
    done = _work(window, seen, where, tally)
    joules, faults = joules_of(first, last)
    reasons = list(window["reasons"])
    stated = {reason.partition(":")[0] for reason in reasons}
    _judged(stated, faults, _of_work(window, done, record), where, tally)
    joules = None if reasons else joules
    if joules is None:
        tally.equal("energies", where, "energy_j", window["energy_j"], None)
        if not reasons:
            tally.differ(where, "there is no energy, and no reason why")
    else:
        tally.number("energies", where, "energy_j", window["energy_j"], joules)
    made = Seen(
        index=window["index"],
        phase=window["phase"],
        started_s=window["started_s"],
        ended_s=window["ended_s"],
        between_s=(last["t_s"] - first["t_s"])
        if first is not None and last is not None
        else window["ended_s"] - window["started_s"],
        joules=joules,
        requests=done.requests,
        input_tokens=done.input_tokens,
        output_tokens=done.output_tokens,
        samples=done.samples,
    )
    metrics = of_windows([made], record["gpus"])
    tally.numbers("metrics of windows", where, window["metrics"], metrics)
    return made


def edges(window: Line) -> tuple[Line | None, Line | None]:
    """The two readings of a window; `None` for both where there are not two."""
    readings = window["readings"]
    return (readings[0], readings[1]) if len(readings) == 2 else (None, None)


def joules_of(first: Line | None, last: Line | None) -> tuple[float | None, set[str] | None]:
    """What all counters went up by, and the reasons why that is no number.

    Both are unknown where there are not two readings.
    """
    if first is None or last is None:
        return None, None
    before, after = first["energy_j"], last["energy_j"]
    faults = set()
    if last["t_s"] - first["t_s"] < SHORTEST_S:
        faults.add("window_too_short")
    if before.keys() != after.keys():
        return None, faults | {"wrong_gpu_count"}
    rises = [after[device] - before[device] for device in before]
    faults |= {"counter_reset" for rise in rises if rise < 0}
    faults |= {"zero_energy" for rise in rises if rise == 0}
    return None if faults else sum(rises), faults


def _judged(
    stated: set[str], faults: set[str] | None, of_work: set[str], where: str, tally: Tally
) -> None:
    """Whether the reasons are those that readings and events give; of counters one will do."""
    said = stated & OF_EVENTS
    tally.equal(
        "verdicts on windows", where, "reasons in its events", sorted(said), sorted(of_work)
    )
    tally.compared["verdicts on windows"] += 1
    said = stated & OF_COUNTERS
    if faults is None:
        if not stated:
            tally.differ(where, "there are not two readings, and no reason why")
    elif not said <= faults or bool(said) != bool(faults):
        tally.differ(where, f"reasons in its readings are {sorted(said)}, found {sorted(faults)}")


def _edges(window: Line, first: Line | None, last: Line | None, where: str, tally: Tally) -> None:
    start_s, end_s = window["started_s"], window["ended_s"]
    if not start_s < end_s:
        tally.differ(where, f"it ends at {end_s} s, not after its start at {start_s} s")
    if first is None or last is None:
        return
    if window["convention"] == "steady":
        tally.equal("edges", where, "started_s", start_s, first["t_s"])
        tally.equal("edges", where, "ended_s", end_s, last["t_s"])
    elif not first["t_s"] <= start_s < end_s <= last["t_s"]:
        tally.differ(where, "its readings do not bracket its work")


def _work(window: Line, seen: stream.Stream | None, where: str, tally: Tally) -> stream.Work:
    names = ("requests", "requests_failed", "input_tokens", "output_tokens")
    if seen is None:
        return stream.Work(
            requests=window["requests"],
            failed=window["requests_failed"],
            input_tokens=window["input_tokens"],
            output_tokens=window["output_tokens"],
            samples=window["samples"],
            conserved=None,
        )
    after_s = -inf if window["convention"] == "whole" else window["started_s"]
    done = stream.work(seen, after_s, window["ended_s"])
    counts = (done.requests, done.failed, done.input_tokens, done.output_tokens)
    for name, count in zip(names, counts, strict=True):
        tally.equal("counts of requests and tokens", where, name, window[name], count)
    _samples(window["samples"], done.samples, where, tally)
    if done.conserved is False and "fewer_tokens" not in " ".join(window["reasons"]):
        tally.differ(where, "its events tell of other tokens than its requests were to have")
    return done


def _samples(
    said: Mapping[str, Sequence[Any]], found: Mapping[str, Sequence[Any]], where: str, tally: Tally
) -> None:
    tally.equal("kinds of samples", where, "samples", sorted(said), sorted(found))
    for name in sorted(said.keys() & found.keys()):
        kept = [tuple(each) if isinstance(each, list) else each for each in said[name]]
        again = list(found[name])
        tally.compared["samples"] += max(len(kept), len(again))
        if kept != again:
            pairs = enumerate(zip(kept, again, strict=False))
            place = next((n for n, (a, b) in pairs if a != b), min(len(kept), len(again)))
            one, other = (str(each[place : place + 1]) for each in (kept, again))
            tally.differ(where, f"{name}, sample {place}: {one} kept, {other} from the events")


def _of_work(window: Line, done: stream.Work, record: Line) -> set[str]:
    found = {"requests_failed"} if done.failed else set()
    if window["convention"] == "steady" and window["phase"] == "all":
        workload = record["config"]
        asked = workload["workload.input_tokens"] / workload["workload.output_tokens"]
        seen = done.input_tokens / done.output_tokens if done.output_tokens else inf
        if abs(seen - asked) > BALANCE * asked:
            found.add("unbalanced")
    return found
