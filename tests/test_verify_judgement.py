"""Both codes that judge windows find the same reasons, and both integrate power alike."""

import gzip
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sweeper.meters import Reading
from sweeper.meters.integral import Integral, integrate
from sweeper.results.power import pack_trace
from sweeper.results.reasons import code_of
from sweeper.trial.evidence import Evidence, Glance, Known
from sweeper.trial.validity import (
    Work,
    evidence_reasons,
    glance_reasons,
    reading_reasons,
    work_reasons,
)
from sweeper.verify import judgement, power
from sweeper.verify.stream import Work as Seen
from sweeper.verify.tally import Tally

DEVICES = ("a", "b")


def some(values: Any) -> Any:
    """A value for each of some of the devices."""
    return st.dictionaries(st.sampled_from(DEVICES), values)


def near(*values: float) -> Any:
    """Around a threshold, on either side and on it."""
    return st.sampled_from([value * part for value in values for part in (0.98, 1.0, 1.02)])


STATE = st.fixed_dictionaries(
    {},
    optional={
        "power_limit_w": near(300.0, 400.0),
        "temperature_c": st.sampled_from([50.0, 55.0, 55.1, 61.0]),
        "compute_pids": st.lists(st.integers(1, 3), max_size=2),
        "events": st.lists(
            st.sampled_from(
                ["sw_power_cap", "hw_slowdown", "hw_power_brake_slowdown", "sw_thermal_slowdown"]
            ),
            max_size=3,
        ),
        "violations_s": st.dictionaries(
            st.sampled_from(["thermal", "hw_power_brake_slowdown", "power"]),
            st.sampled_from([0.0, 0.05, 0.0999, 0.11, 3.0]),
        ),
    },
)


def glances(at_s: float) -> Any:
    return st.builds(
        Glance,
        monotonic_s=st.just(at_s),
        wall_s=st.sampled_from([at_s, at_s + 0.09, at_s + 0.11, at_s - 5.0]),
        devices=some(STATE),
        failed=st.none() | st.just("gpu_lost: a"),
    )


INTEGRALS = st.builds(
    Integral,
    energy_j=near(2500.0, 3000.0, 3300.0),
    samples=st.just(100),
    largest_gap_s=st.sampled_from([0.1, 1.0, 1.1]),
    bracketed=st.booleans(),
    standard_error_j=st.none() | st.sampled_from([0.0, 30.0, 120.0]),
    edges_w=st.tuples(near(300.0), near(300.0, 600.0)),
)
KNOWN = st.builds(
    Known,
    devices=st.sampled_from([(), ("a",), DEVICES, ("c",)]),
    scope=st.sampled_from(["gpu", "module"]),
    power_method=some(st.sampled_from(["instant", "usage"])),
    counter_ratio=some(st.sampled_from([0.95, 1.0, 1.08])),
    power_limit_w=some(near(300.0)),
    idle_w=some(near(100.0, 600.0)),
    compute_pids=some(st.lists(st.integers(1, 3), max_size=2)),
)
EVIDENCE = st.builds(
    Evidence,
    before=st.none() | glances(0.0),
    after=st.none() | glances(10.0),
    power=some(INTEGRALS),
    known=KNOWN,
)
SPENT_J = st.sampled_from([0.0, -1.0, 490.0, 2850.0, 3000.0, 3150.0, 3301.0])
WORK = st.builds(
    Work,
    failed=st.integers(0, 1),
    asked_tokens=st.integers(10, 12),
    generated_tokens=st.integers(10, 12),
    balance=st.tuples(
        st.none() | st.sampled_from([1.9, 1.97, 2.0, 2.03, 2.05]), st.sampled_from([2.0])
    ),
)


@given(
    some(st.just(1000.0)),
    some(SPENT_J),
    st.sampled_from([4.99, 5.0, 10.0]),
    EVIDENCE,
    WORK,
)
def test_both_codes_judge_alike(before_j, spent_j, span_s, evidence, work):
    after_j = {device: 1000.0 + joules for device, joules in spent_j.items()}
    opening, closing = Reading(0.0, before_j), Reading(span_s, after_j)
    reasons = [
        *reading_reasons(opening, closing, 5.0, set(evidence.known.devices)),
        *evidence_reasons(opening, closing, evidence),
        *glance_reasons(evidence),
        *work_reasons(work),
    ]
    window = json.loads(
        json.dumps(
            {
                "convention": "steady",
                "readings": [
                    {"t_s": each.t_s, "energy_j": each.energy_j} for each in (opening, closing)
                ],
                "reasons": reasons,
                "evidence": {**evidence.plain(), "work": work.plain()},
            }
        )
    )
    done = Seen(
        requests=1,
        failed=work.failed,
        input_tokens=1,
        output_tokens=1,
        samples={},
        asked_tokens=work.asked_tokens,
        generated_tokens=work.generated_tokens,
    )
    found = judgement.found(window, done)
    assert found == {code_of(reason) for reason in reasons} - {"gpu_lost"}
    assert judgement.told(window) == found


@given(
    st.lists(
        st.tuples(
            st.integers(0, 400).map(lambda t: t / 10),
            st.integers(10_000, 900_000).map(lambda w: w / 1e3),
        ),
        min_size=3,
        max_size=30,
        unique_by=lambda each: each[0],
    ).map(sorted),
    st.floats(0.1, 0.4),
    st.floats(0.6, 0.9),
)
def test_both_codes_integrate_alike(samples, begin, end):
    span_s = samples[-1][0] - samples[0][0]
    first_s, last_s = samples[0][0] + begin * span_s, samples[0][0] + end * span_s
    known = integrate(samples, first_s, last_s)
    trace = pack_trace([(t_s, "a", watts) for t_s, watts in samples])
    tally = Tally()
    window = {
        "readings": [{"t_s": first_s}, {"t_s": last_s}],
        "evidence": {"power": Evidence(power={"a": known}).plain()["power"]},
    }
    power.check(window, power.read([gzip.decompress(trace)]), "here", tally)
    assert tally.differences == []
    if known.samples:
        assert tally.compared["power integrals"] >= 4
        window["evidence"]["power"]["a"]["energy_j"] *= 1.001
        power.check(window, power.read([gzip.decompress(trace)]), "here", tally)
        assert len(tally.differences) == 1
