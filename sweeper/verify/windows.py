"""One window made again from its two readings and its events, and held against what it says."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

from sweeper.verify import judgement, stream
from sweeper.verify.figures import Seen, of_windows
from sweeper.verify.ids import get
from sweeper.verify.judgement import joules_of
from sweeper.verify.sources import Line
from sweeper.verify.tally import Tally


def check(window: Line, seen: stream.Stream | None, record: Line, where: str, tally: Tally) -> Seen:
    """What the window must say, by its readings and its events (those kept, `None`: not)."""
    _edges(window, where, tally)
    done = _work(window, seen, record, where, tally)
    good = _good(window, seen, record, where, tally)
    sound = _judged(window, done, where, tally)
    joules = joules_of(*window["readings"]) if sound else None
    if window["energy_j"] is None and not window["reasons"]:
        tally.differ(where, "there is no energy, and no reason why")
    elif joules is None:
        tally.equal("energies", where, "energy_j", window["energy_j"], None)
    else:
        tally.number("energies", where, "energy_j", window["energy_j"], joules)
    made = Seen(
        index=window["index"],
        phase=window["phase"],
        started_s=window["started_s"],
        ended_s=window["ended_s"],
        between_s=_between_s(window),
        joules=joules,
        requests=done.requests,
        input_tokens=done.input_tokens,
        output_tokens=done.output_tokens,
        samples=done.samples,
        readings=window["readings"],
        good=good,
    )
    metrics = of_windows([made], record["gpus"])
    tally.numbers("metrics of windows", where, window["metrics"], metrics)
    return made


def _between_s(window: Line) -> float:
    """Seconds between the readings, or between the edges where there are not two."""
    if len(window["readings"]) < 2:
        return float(window["ended_s"] - window["started_s"])
    first, last = window["readings"]
    return float(last["t_s"] - first["t_s"])


def _edges(window: Line, where: str, tally: Tally) -> None:
    start_s, end_s = window["started_s"], window["ended_s"]
    if not start_s < end_s:
        tally.differ(where, f"it ends at {end_s} s, not after its start at {start_s} s")
    if len(window["readings"]) < 2:
        return
    first_s, last_s = (reading["t_s"] for reading in window["readings"])
    if window["convention"] == "steady":
        tally.equal("edges", where, "started_s", start_s, first_s)
        tally.equal("edges", where, "ended_s", end_s, last_s)
    elif not first_s <= start_s < end_s <= last_s:
        tally.differ(where, "its readings do not bracket its work")


def _judged(window: Line, done: stream.Work, where: str, tally: Tally) -> bool:
    """Whether a window may have energy; its reasons must be those that all evidence gives."""
    said, found = sorted(judgement.told(window)), sorted(judgement.found(window, done))
    tally.equal("verdicts on windows", where, "reasons", said, found)
    return len(window["readings"]) == 2 and not window["reasons"] and not found


def _work(
    window: Line, seen: stream.Stream | None, record: Line, where: str, tally: Tally
) -> stream.Work:
    said = window["evidence"]["work"]
    if seen is None:
        return stream.Work(
            requests=window["requests"],
            failed=window["requests_failed"],
            input_tokens=window["input_tokens"],
            output_tokens=window["output_tokens"],
            samples=window["samples"],
            asked_tokens=said["asked_tokens"],
            generated_tokens=said["generated_tokens"],
        )
    after_s = -inf if window["convention"] == "whole" else window["started_s"]
    done = stream.work(seen, after_s, window["ended_s"])
    if get(record["config"]["workload.decoding"], "kind") == "beam":
        # Its tokens stand when the search has ended: no time of one of them is known.
        latencies = {name: done.samples[name] for name in done.samples if name == "latency_s"}
        done = replace(done, samples=latencies)
    kind = "counts of requests and tokens"
    names = ("requests", "input_tokens", "output_tokens")
    for name, count in ((name, getattr(done, name)) for name in names):
        tally.equal(kind, where, name, window[name], count)
    tally.equal(kind, where, "requests_failed", window["requests_failed"], done.failed)
    for name in ("failed", "asked_tokens", "generated_tokens"):
        tally.equal(kind, where, f"{name} of its evidence", said[name], getattr(done, name))
    if window["convention"] == "steady":
        asked = _workloads_ratio(seen, record["config"])
        ratio = done.input_tokens / done.output_tokens if done.output_tokens else None
        tally.equal(kind, where, "balance of its evidence", said["balance"], [ratio, asked])
    else:
        tally.equal(kind, where, "balance of its evidence", said["balance"], None)
    _samples(window["samples"], done.samples, where, tally)
    return done


def _good(
    window: Line, seen: stream.Stream | None, record: Line, where: str, tally: Tally
) -> int | None:
    """The requests within all limits; without streams of tokens only their latency is known."""
    said: int | None = window["evidence"]["work"].get("good")
    limits = record["config"].get("measure.goodput")
    known = limits is not None and ("ttft_s" in window["samples"] or {*limits} == {"latency_s"})
    if said is None and (limits is None or not window["requests"] or not known):
        return None
    if limits is None:
        tally.differ(where, f"{said} good requests, and no limits that they are within")
        return None
    if seen is None:
        return said
    after_s = -inf if window["convention"] == "whole" else window["started_s"]
    found = stream.good(seen, limits, after_s, window["ended_s"])
    tally.equal("counts of requests and tokens", where, "good requests", said, found)
    return found


def _workloads_ratio(seen: stream.Stream, config: Line) -> float:
    """Tokens in per token out of a request of full length."""
    if config["workload.kind"] == "fixed":
        return float(config["workload.input_tokens"] / config["workload.output_tokens"])
    longest = max(output for _, output in seen.lengths.values())
    full = next(each for each in seen.lengths.values() if each[1] == longest)
    return full[0] / full[1]


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
