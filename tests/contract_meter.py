"""What every meter must do, whatever it reads: one suite, run over each by test_meters.py."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pytest

from sweeper.engines import Clock
from sweeper.errors import MeterError
from sweeper.meters import Meter, Reading


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A meter in a world whose energy is known, if it is."""

    make: Callable[[Sequence[str]], Meter]
    clock: Clock
    devices: Sequence[str]
    components: Sequence[str]
    truth_j: Callable[[str, float, float], float] | None
    """(component, from_s, until_s) on the subject's clock; `None` where nobody knows."""
    tolerance: float


def spent_j(before: Reading, after: Reading) -> Mapping[str, float]:
    return {name: after.energy_j[name] - before.energy_j[name] for name in before.energy_j}


def time_and_energy_go_up(subject: Subject) -> None:
    meter = subject.make(subject.devices)
    meter.open()
    readings = [meter.read()]
    for _ in range(3):
        subject.clock.sleep(0.2)
        readings.append(meter.read())
    meter.close()
    for before, after in pairwise(readings):
        assert after.t_s > before.t_s
        assert set(after.energy_j) == set(subject.components)
        assert all(joules > 0 for joules in spent_j(before, after).values())


def the_time_is_on_the_clock_of_the_launch(subject: Subject) -> None:
    meter = subject.make(subject.devices)
    meter.open()
    before_s = subject.clock.now()
    reading = meter.read()
    after_s = subject.clock.now()
    meter.close()
    assert before_s - 0.2 <= reading.t_s <= after_s


def a_window_costs_what_it_really_costs(subject: Subject) -> None:
    meter = subject.make(subject.devices)
    meter.open()
    before = meter.read()
    subject.clock.sleep(2.5)
    after = meter.read()
    meter.close()
    for name, joules in spent_j(before, after).items():
        assert joules > 0
        if subject.truth_j is not None:
            truth = subject.truth_j(name, before.t_s, after.t_s)
            assert joules == pytest.approx(truth, rel=subject.tolerance)


def it_opens_and_closes_twice(subject: Subject) -> None:
    meter = subject.make(subject.devices)
    meter.close()
    for _ in range(2):
        facts = meter.open()
        assert isinstance(facts, dict)
        assert meter.read().energy_j
        meter.close()
        meter.close()


def an_unknown_device_is_no_zero(subject: Subject) -> None:
    meter = subject.make([*subject.devices, "GPU-nobody"])
    with pytest.raises(MeterError) as raised:
        meter.open()
    meter.close()
    assert raised.value.code == "device_unknown"
    assert "GPU-nobody" in str(raised.value)


def it_says_what_its_joules_are(subject: Subject) -> None:
    meter = subject.make(subject.devices)
    assert meter.source
    assert meter.method
    assert meter.scope
    assert isinstance(meter.measured, bool)
    assert isinstance(meter.waits, bool)
    assert meter.systematic is None or 0 < meter.systematic < 1
    assert meter.min_window_s > 0


def the_state_and_the_trace_are_of_its_devices(subject: Subject) -> None:
    meter = subject.make(subject.devices)
    meter.open()
    subject.clock.sleep(0.5)
    state, trace = meter.state(), meter.power_trace()
    meter.close()
    assert set(state) <= set(subject.devices)
    assert {device for _, device, _ in trace} <= set(subject.devices)
    assert all(watts > 0 for _, _, watts in trace)


CONTRACT = (
    time_and_energy_go_up,
    the_time_is_on_the_clock_of_the_launch,
    a_window_costs_what_it_really_costs,
    it_opens_and_closes_twice,
    an_unknown_device_is_no_zero,
    it_says_what_its_joules_are,
    the_state_and_the_trace_are_of_its_devices,
)
