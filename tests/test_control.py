"""The control of a launch: visited first, and once more at the end, to tell its drift."""

from dataclasses import replace

import pytest

from sweeper.errors import Infeasible, MeterError
from sweeper.meters import Reading
from tests.fakes import FakeClock, FakeEngine, FakeMeter
from tests.test_protocol import launched, point


class Warming(FakeMeter):
    """Power that rises as time goes by."""

    def read(self):
        reading = super().read()
        joules = dict.fromkeys(reading.energy_j, 200.0 * reading.t_s + reading.t_s**2)
        return Reading(reading.t_s, joules)


DRIFTS = {"energy_drift_ratio", "tpot_drift_ratio"}


def test_the_control_tells_how_far_a_launch_has_drifted():
    clock = FakeClock()
    _, _, events, records, _ = launched(
        point("a", 4), point("b", 2), clock=clock, meter=Warming(clock)
    )
    windows = [fields for kind, fields in events if kind == "window"]
    first, last = windows[0], windows[-1]
    assert (last["id"], last.get("control")) == (first["id"], True)
    control = records.pop(first["id"])
    per_token = [each["energy_j"] / each["output_tokens"] for each in (first, last)]
    assert control.metrics["energy_drift_ratio"] == pytest.approx(per_token[1] / per_token[0])
    assert control.metrics["energy_drift_ratio"] > 1.05
    assert control.metrics["tpot_drift_ratio"] == pytest.approx(1.0)
    assert len(control.windows) == 2, "the last visit is in no mean"
    [other] = records.values()
    assert not DRIFTS & other.metrics.keys()


def test_a_launch_of_one_point_is_its_own_control():
    clock = FakeClock()
    _, _, events, records, _ = launched(point("a", 4), clock=clock, meter=Warming(clock))
    first, last = records["a"].windows
    assert sum(kind == "window" for kind, _ in events) == 2
    assert records["a"].metrics["energy_drift_ratio"] == pytest.approx(
        last.energy_j / first.energy_j
    )


def test_a_control_without_energy_tells_the_drift_of_its_times_alone():
    clock = FakeClock()
    # Two readings at the start, two for each kind of idle, two for each of four windows.
    lost = {14: MeterError("sample_gap", "test"), 15: MeterError("sample_gap", "test")}
    meter = FakeMeter(clock, fails=lost)
    _, _, events, records, _ = launched(point("a", 4), point("b", 2), clock=clock, meter=meter)
    last = [fields for kind, fields in events if kind == "window"][-1]
    assert (last["energy_j"], last.get("control")) == (None, True)
    metrics = records[last["id"]].metrics
    assert DRIFTS & metrics.keys() == {"tpot_drift_ratio"}
    assert records[last["id"]].status == "ok"


def test_a_control_that_no_longer_fits_costs_only_the_drift():
    class Filling(FakeEngine):
        """Runs out of memory after the batches of two points' two windows, six and five each."""

        def generate(self, requests, settings):
            if len(self.batches) >= 22:
                raise Infeasible("out of memory")
            return super().generate(requests, settings)

    _, _, _, records, failure = launched(point("a", 4), point("b", 4), made=Filling)
    assert failure is None
    assert {record.status for record in records.values()} == {"ok"}
    assert not DRIFTS & {name for record in records.values() for name in record.metrics}
    [check] = [c for r in records.values() for c in r.checks if c.name == "control"]
    assert (check.ok, check.detail) == (False, "out of memory")


def test_a_launch_of_one_window_has_no_drift():
    settings = point("a", 4).settings
    one = replace(settings, measure=replace(settings.measure, repeats=1))
    _, _, events, records, _ = launched(replace(point("a", 4), settings=one))
    assert sum(kind == "window" for kind, _ in events) == 1
    assert not DRIFTS & records["a"].metrics.keys()
