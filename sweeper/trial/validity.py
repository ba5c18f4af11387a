"""From the evidence of a window to the reasons why it has no energy (pure).

Every rule names its threshold; `results/reasons.py` says what the codes mean. Nothing is judged by
what is not known. A software power cap is no fault: it is in the evidence (`violations_s`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sweeper.engines import Request
from sweeper.meters import Reading
from sweeper.trial.evidence import Evidence, Glance

LIMIT_MARGIN = 0.10
"""How far a mean power may be above the board's limit, relatively: twice the sensors' gain error of
5 % (arXiv 2312.02741). On an H200 at its cap of 700 W means of 3 to 6 s were 690 to 694 W."""
IDLE_SHARE = 0.5
"""What part of its idle power a board draws at least, whatever it does."""
MAX_GAP_S = 1.0
"""Longest time without a sample of power, ten of which are due in it."""
DEPARTURE = 0.05
"""How far the ratio of counter to integrated power may be from the GPU's own, relatively: Zeus's
issue 181 and Kokkos tools' issue 295 tell of counters that are further off."""
SIGMAS = 3.0
"""A departure must also be this many standard errors of the integral: bursts of power sampled at
10 Hz alone made 6 s windows on an H200 depart by up to 4.6 %."""
USAGE_LAG_S = 0.5
"""A power that is a mean over the last second lags by half of it."""
SLOWED_SHARE = 0.01
"""Longest part of a window that a GPU may be slowed down by heat or by the power brake."""
DRIFT_C = 5.0
"""Largest difference of a GPU's temperature between both ends. At steady load on an H200, 6 s
windows began and ended within 2 degrees, a step of the load moved it by 8 to 16."""
CLOCK_STEP_S = 0.1
"""What the wall clock may move against the monotonic one: NTP daemons slew both together, and step
the wall clock alone from 0.128 s on."""
BALANCE = 0.02
"""How far a steady window's input to output ratio may be from the workload's, relatively."""

BRAKE = "hw_power_brake_slowdown"
SLOWDOWNS: Mapping[str, tuple[str, ...]] = {
    "thermal_slowdown": ("thermal", "sw_thermal_slowdown", "hw_thermal_slowdown", "hw_slowdown"),
    "power_brake": (BRAKE,),
}
"""The violation counters and events that make up each code; `hw_slowdown` is either, unless the
brake is named beside it."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What was done for a window: requests that failed, tokens asked for and generated.

    `asked_tokens` are those of all requests that finished, from the first submission of the
    window's stream on, `generated_tokens` all that were generated since. `balance` is the window's
    ratio of tokens in to tokens out, `None` without a token out, and the workload's; it is `None`
    where all of the work lies inside. `good` are the requests that finished inside and met all
    limits of `measure.goodput`; `None` where there are none, or what they limit is not known.
    """

    failed: int
    asked_tokens: int
    generated_tokens: int
    balance: tuple[float | None, float] | None = None
    good: int | None = None

    def plain(self) -> dict[str, Any]:
        """As a window's evidence keeps it."""
        kept = asdict(self)
        return kept if self.good is not None else {k: v for k, v in kept.items() if k != "good"}


def energy_j(opening: Reading, closing: Reading) -> float:
    """Joules of all devices between two readings that `reading_reasons` finds nothing against."""
    return sum(closing.energy_j[device] - before for device, before in opening.energy_j.items())


def work_reasons(work: Work) -> Iterator[str]:
    """What is wrong with the work of a window."""
    if work.failed:
        yield f"requests_failed: {work.failed}"
    elif work.generated_tokens < work.asked_tokens:
        yield f"fewer_tokens: {work.generated_tokens} generated of {work.asked_tokens} asked for"
    if work.balance is not None:
        seen, expected = work.balance
        if seen is None:
            yield "unbalanced: no token was generated inside the window"
        elif abs(seen - expected) > BALANCE * expected:
            yield (
                f"unbalanced: {seen:.3f} tokens in per token out, the workload has {expected:.3f}"
            )


def balance(
    input_tokens: int, output_tokens: int, requests: Mapping[int, Request]
) -> tuple[float | None, float]:
    """The ratio of tokens in to tokens out inside a window, and that of its workload.

    They must agree, as a window that saw more prefills than completions charges them to the wrong
    tokens. Without a token out there is no ratio.
    """
    longest = max(request.output_tokens for request in requests.values())
    full = next(each for each in requests.values() if each.output_tokens == longest)
    seen = input_tokens / output_tokens if output_tokens else None
    return seen, len(full.prompt_token_ids) / longest


def reading_reasons(
    opening: Reading, closing: Reading, min_window_s: float, devices: set[str]
) -> Iterator[str]:
    """What the two readings of a window say against its joules; `devices` are the launch's."""
    span_s = closing.t_s - opening.t_s
    if span_s < min_window_s:
        yield f"window_too_short: {span_s:.3f} s between readings, {min_window_s:g} needed"
    before, after = set(opening.energy_j), set(closing.energy_j)
    wrong = before ^ after
    if devices & (before | after):
        wrong |= devices - (before & after)
    if wrong:
        yield f"wrong_gpu_count: {', '.join(sorted(wrong))} not in every reading"
    for device in sorted(before & after):
        spent_j = closing.energy_j[device] - opening.energy_j[device]
        if spent_j < 0:
            yield f"counter_reset: {device} went down by {-spent_j:.3f} J"
        elif spent_j == 0:
            yield f"zero_energy: {device} did not move in {span_s:.1f} s"


def evidence_reasons(opening: Reading, closing: Reading, evidence: Evidence) -> Iterator[str]:
    """What the rest of the evidence says against the joules between two readings."""
    span_s = closing.t_s - opening.t_s
    for device in sorted(opening.energy_j.keys() & closing.energy_j.keys()):
        spent_j = closing.energy_j[device] - opening.energy_j[device]
        if spent_j > 0 and span_s > 0:
            yield from _implausible(device, spent_j / span_s, evidence)
            yield from _departs(device, spent_j, evidence)
    yield from sampling_reasons(evidence)


def sampling_reasons(evidence: Evidence) -> Iterator[str]:
    """Where the power was not sampled as it should have been."""
    for device in sorted(evidence.known.power_method):
        found = evidence.power.get(device)
        if found is None:
            yield f"not_bracketed: {device} has no sample of its power at all"
            continue
        if not found.bracketed:
            yield f"not_bracketed: {device} has no sample on one side of the window"
        if found.largest_gap_s > MAX_GAP_S:
            yield f"sample_gap: {device} has no sample of its power for {found.largest_gap_s:.2f} s"


def glance_reasons(evidence: Evidence) -> Iterator[str]:
    """What both glances say: devices that fail, are slowed down, taken, or not steady."""
    before, after = evidence.before, evidence.after
    yield from dict.fromkeys(
        each.failed for each in (before, after) if each is not None and each.failed is not None
    )
    if before is None or after is None:
        return
    stepped_s = (after.wall_s - before.wall_s) - (after.monotonic_s - before.monotonic_s)
    if abs(stepped_s) > CLOCK_STEP_S:
        yield f"clock_step: the wall clock was moved by {stepped_s:+.3f} s"
    for device in sorted(before.devices.keys() | after.devices.keys()):
        yield from _slowed(device, before, after)
        yield from _taken(device, before, after, evidence)
        yield from _drifted(device, before, after)


def _implausible(device: str, watts: float, evidence: Evidence) -> Iterator[str]:
    known = evidence.known
    limits = [_state(glance, device).get("power_limit_w") for glance in _glances(evidence)]
    told = [limit for limit in (known.power_limit_w.get(device), *limits) if limit is not None]
    # A module's counter covers more than the GPU that the limit is of.
    if told and known.scope != "module" and watts > (1 + LIMIT_MARGIN) * max(told):
        yield f"implausible: {device} at {watts:.1f} W, its limit is {max(told):g} W"
    idle_w = known.idle_w.get(device)
    if idle_w is not None and watts < IDLE_SHARE * idle_w:
        yield f"implausible: {device} at {watts:.1f} W, it draws {idle_w:.1f} W when idle"


def _departs(device: str, spent_j: float, evidence: Evidence) -> Iterator[str]:
    own, found = evidence.known.counter_ratio.get(device), evidence.power.get(device)
    if own is None or found is None or found.standard_error_j is None:
        return
    if not found.bracketed or found.largest_gap_s > MAX_GAP_S:
        return
    expected_j, doubt_j = own * found.energy_j, SIGMAS * own * found.standard_error_j
    if evidence.known.power_method.get(device) == "usage":
        doubt_j += own * USAGE_LAG_S * abs(found.edges_w[1] - found.edges_w[0])
    off_j = spent_j - expected_j
    if expected_j > 0 and abs(off_j) > max(DEPARTURE * expected_j, doubt_j):
        yield (
            f"counter_departs: {device} counted {spent_j:.1f} J, its power and its own ratio give "
            f"{expected_j:.1f} J ({off_j / expected_j:+.1%})"
        )


def _slowed(device: str, before: Glance, after: Glance) -> Iterator[str]:
    span_s = after.monotonic_s - before.monotonic_s
    old, new = (_state(glance, device).get("violations_s", {}) for glance in (before, after))
    seen = _events(before, device) | _events(after, device)
    for code, names in SLOWDOWNS.items():
        counted = {name: new[name] - old[name] for name in names if name in new and name in old}
        slowed_s = max(counted.values(), default=0.0)
        if slowed_s > SLOWED_SHARE * span_s:
            worst = max(counted, key=lambda name: counted[name])
            yield f"{code}: {device} for {slowed_s:.3f} of {span_s:.1f} s ({worst})"
        # Where no counter runs, what holds at either edge must do.
        elif events := sorted(seen & set(names) - counted.keys()):
            yield f"{code}: {device} at an edge ({', '.join(events)})"


def _events(glance: Glance, device: str) -> set[str]:
    events = set(_state(glance, device).get("events", ()))
    return events - {"hw_slowdown"} if BRAKE in events else events


def _taken(device: str, before: Glance, after: Glance, evidence: Evidence) -> Iterator[str]:
    own = evidence.known.compute_pids.get(device)
    if own is None:
        return
    seen = {pid for each in (before, after) for pid in _state(each, device).get("compute_pids", ())}
    if foreign := sorted(seen - set(own)):
        yield f"foreign_process: {device} is computed on by {', '.join(map(str, foreign))}"


def _drifted(device: str, before: Glance, after: Glance) -> Iterator[str]:
    old, new = (_state(glance, device).get("temperature_c") for glance in (before, after))
    if old is not None and new is not None and abs(new - old) > DRIFT_C:
        yield f"temperature_drift: {device} went from {old:g} to {new:g} degrees"


def _glances(evidence: Evidence) -> list[Glance]:
    return [glance for glance in (evidence.before, evidence.after) if glance is not None]


def _state(glance: Glance, device: str) -> Mapping[str, Any]:
    return glance.devices.get(device, {})
