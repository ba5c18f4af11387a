"""Whether a window may have energy, judged anew from its readings, its events and its evidence.

The rules and their thresholds are those that the protocol states; a code here stands for all
devices that it is true of. What a meter said when it failed (`failed` of a glance, the reason in
place of a reading) is taken as told: nothing is left to judge it by.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeper.verify.sources import Line
from sweeper.verify.stream import Work

SHORTEST_S = 5.0
"""A window shorter than this gives no energy from a cumulative counter."""
BALANCE = 0.02
ABOVE_LIMIT, BELOW_IDLE = 1.10, 0.5
GAP_S = 1.0
DEPARTURE, SIGMAS, LAG_S = 0.05, 3.0, 0.5
SLOWED_SHARE = 0.01
DRIFT_C = 5.0
STEP_S = 0.1
BRAKE = "hw_power_brake_slowdown"
HEAT = ("thermal", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_slowdown")


def found(window: Line, work: Work) -> set[str]:
    """The codes of everything that speaks against a window's joules."""
    codes = set(_of_work(window, work))
    evidence = window["evidence"]
    if len(window["readings"]) == 2:
        first, last = window["readings"]
        codes |= set(_of_readings(first, last, evidence["known"]["devices"]))
        codes |= set(_of_power(first, last, evidence))
        codes |= set(_of_samples(evidence))
    before, after = evidence["before"], evidence["after"]
    if before is not None and after is not None:
        codes |= set(_of_glances(before, after, evidence["known"]["compute_pids"]))
    return codes


def told(window: Line) -> set[str]:
    """The codes of a window's reasons, without those that a meter gave when it failed."""
    reasons = list(window["reasons"])
    glances = (window["evidence"]["before"], window["evidence"]["after"])
    failures = {glance["failed"] for glance in glances if glance is not None}
    left = {code_of(reason) for reason in reasons if reason not in failures}
    if len(window["readings"]) < 2:
        # The reason in place of the reading stands among them, whatever its code.
        left &= OF_EVENTS | OF_GLANCES
    return left


OF_EVENTS = frozenset({"requests_failed", "fewer_tokens", "unbalanced"})
OF_GLANCES = frozenset(
    {"clock_step", "thermal_slowdown", "power_brake", "foreign_process", "temperature_drift"}
)


def code_of(reason: str) -> str:
    """What a reason begins with."""
    return reason.partition(":")[0].strip()


def joules_of(first: Line, last: Line) -> float:
    """What all counters went up by between two readings of the same devices."""
    before, after = first["energy_j"], last["energy_j"]
    return float(sum(after[device] - before[device] for device in before))


def _of_work(window: Line, work: Work) -> Iterator[str]:
    if work.failed:
        yield "requests_failed"
    elif work.generated_tokens < work.asked_tokens:
        yield "fewer_tokens"
    if window["convention"] == "steady":
        seen, expected = window["evidence"]["work"]["balance"]
        if seen is None or abs(seen - expected) > BALANCE * expected:
            yield "unbalanced"


def _of_readings(first: Line, last: Line, devices: Sequence[str]) -> Iterator[str]:
    before, after = first["energy_j"], last["energy_j"]
    if last["t_s"] - first["t_s"] < SHORTEST_S:
        yield "window_too_short"
    named = before.keys() | after.keys()
    missing = set(devices) - (before.keys() & after.keys()) if named & {*devices} else set()
    if before.keys() != after.keys() or missing:
        yield "wrong_gpu_count"
    for device in before.keys() & after.keys():
        if after[device] < before[device]:
            yield "counter_reset"
        elif after[device] == before[device]:
            yield "zero_energy"


def _of_power(first: Line, last: Line, evidence: Line) -> Iterator[str]:
    span_s = last["t_s"] - first["t_s"]
    known = evidence["known"]
    for device, before_j in first["energy_j"].items():
        joules = last["energy_j"].get(device, before_j) - before_j
        if joules <= 0 or span_s <= 0:
            continue
        glances = (evidence["before"], evidence["after"])
        limits = [_state(glance, device, "power_limit_w") for glance in glances]
        told = [w for w in (known["power_limit_w"].get(device), *limits) if w is not None]
        # A module's counter covers more than the GPU that the limit is of.
        most_w = max(told) if told and known["scope"] != "module" else math.inf
        if joules / span_s > ABOVE_LIMIT * most_w:
            yield "implausible"
        if device in known["idle_w"] and joules / span_s < BELOW_IDLE * known["idle_w"][device]:
            yield "implausible"
        if _departs(joules, device, evidence):
            yield "counter_departs"


def _departs(joules: float, device: str, evidence: Line) -> bool:
    known, power = evidence["known"], evidence["power"].get(device)
    ratio = known["counter_ratio"].get(device)
    if ratio is None or power is None or power["standard_error_j"] is None:
        return False
    if not power["bracketed"] or power["largest_gap_s"] > GAP_S:
        return False
    expected = ratio * power["energy_j"]
    doubt = SIGMAS * ratio * power["standard_error_j"]
    if known["power_method"].get(device) == "usage":
        doubt += ratio * LAG_S * abs(power["edges_w"][1] - power["edges_w"][0])
    return bool(expected > 0 and abs(joules - expected) > max(DEPARTURE * expected, doubt))


def _of_samples(evidence: Line) -> Iterator[str]:
    for device in evidence["known"]["power_method"]:
        power = evidence["power"].get(device)
        if power is None or not power["bracketed"]:
            yield "not_bracketed"
        if power is not None and power["largest_gap_s"] > GAP_S:
            yield "sample_gap"


def _of_glances(before: Line, after: Line, own: Mapping[str, Sequence[int]]) -> Iterator[str]:
    real_s, wall_s = (after[name] - before[name] for name in ("monotonic_s", "wall_s"))
    if abs(wall_s - real_s) > STEP_S:
        yield "clock_step"
    for device in before["devices"].keys() | after["devices"].keys():
        for code, names in (("thermal_slowdown", HEAT), ("power_brake", (BRAKE,))):
            if _slowed(before, after, device, names, real_s):
                yield code
        seen = {
            pid
            for glance in (before, after)
            for pid in _state(glance, device, "compute_pids") or ()
        }
        if device in own and seen - {*own[device]}:
            yield "foreign_process"
        old, new = (_state(glance, device, "temperature_c") for glance in (before, after))
        if old is not None and new is not None and abs(new - old) > DRIFT_C:
            yield "temperature_drift"


def _slowed(before: Line, after: Line, device: str, names: Sequence[str], span_s: float) -> bool:
    """By counters of violations where they run, else by what held at either edge."""
    old, new = (_state(glance, device, "violations_s") or {} for glance in (before, after))
    counted = [name for name in names if name in old and name in new]
    if any(new[name] - old[name] > SLOWED_SHARE * span_s for name in counted):
        return True
    held = set()
    for glance in (before, after):
        events = set(_state(glance, device, "events") or ())
        held |= events - {"hw_slowdown"} if BRAKE in events else events
    return bool(held & set(names) - {*counted})


def _state(glance: Line | None, device: str, name: str) -> Any:
    return None if glance is None else glance["devices"].get(device, {}).get(name)
