"""What is gathered around a window, from fakes and through the whole road over the stand-in."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from sweeper.errors import MeterError
from sweeper.meters import Reading
from sweeper.meters.integral import integrate
from sweeper.plan import sizes_of
from sweeper.results.reasons import code_of
from sweeper.results.record import Record
from sweeper.spec import Launch, MeasureSpec, Point, Settings, WarmupSpec, WorkloadSpec
from sweeper.trial.bench import Bench, Context
from sweeper.trial.evidence import PATIENCE_S, Evidence, Witness, integrals, machine_clocks
from sweeper.trial.protocol import run_launch
from tests.fakes import FakeClock, FakeEngine, FakeMeter
from tests.nvml_standin import Gpu, Process, Violation
from tests.nvml_standin.virtual import VirtualWorld

pytest_plugins = ("tests.nvml_standin.fixtures",)

FACTS = {
    "gpus": [
        {"uuid": "GPU-a", "power_method": "instant", "counter_ratio": 0.98, "power_limit_w": 700.0},
        {"uuid": "GPU-b", "power_method": "usage", "power_limit_w": 600.0},
    ]
}


class SampledMeter(FakeMeter):
    """Samples come every 0.1 s, but none of `silent` devices, and in the trace `late_s` later."""

    def __init__(self, clock: FakeClock, late_s: float = 0.0, silent: str = "") -> None:
        super().__init__(clock)
        self._late_s = late_s
        self._silent = silent

    def power_trace(self) -> list[tuple[float, str, float]]:
        until = int((self.clock.t_s - self._late_s) * 10)
        devices = [device for device in self.devices if device != self._silent]
        return [(n / 10, device, 200.0) for n in range(until + 1) for device in devices]


def witness_of(meter: FakeMeter) -> Witness:
    return Witness(meter, meter.clock, meter.devices, lambda: (meter.clock.t_s, 1e9))


def test_a_witness_knows_what_the_meter_told_and_nothing_else():
    witness = witness_of(FakeMeter(FakeClock()))
    assert witness.known.devices == ("GPU-a", "GPU-b")
    witness.opened(FACTS)
    known = witness.known
    assert known.power_method == {"GPU-a": "instant", "GPU-b": "usage"}
    assert known.counter_ratio == {"GPU-a": 0.98}
    assert known.power_limit_w == {"GPU-a": 700.0, "GPU-b": 600.0}
    assert (known.scope, known.idle_w, known.compute_pids) == ("gpu", {}, {})
    witness.opened({"cpu_model": "x", "gpus": [{"name": "without a uuid"}]})
    assert witness.known.power_method == {}


def test_the_least_idle_power_of_each_device_is_remembered():
    witness = witness_of(FakeMeter(FakeClock()))
    witness.rested(Reading(10.0, {"a": 5.0, "b": 0.0}), Reading(15.0, {"a": 405.0, "b": 600.0}))
    witness.rested(Reading(20.0, {"a": 0.0, "b": 0.0}), Reading(25.0, {"a": 600.0, "b": 500.0}))
    assert witness.known.idle_w == {"a": 80.0, "b": 100.0}


def test_whose_processes_there_are_is_noted_once_the_engine_is_up():
    state = {"GPU-a": {"compute_pids": [7, 9]}, "GPU-b": {"temperature_c": 40.0}}
    witness = witness_of(FakeMeter(FakeClock(), state=state))
    witness.loaded()
    assert witness.known.compute_pids == {"GPU-a": [7, 9]}


def test_a_device_that_fails_is_seen_as_that():
    class Lost(FakeMeter):
        def state(self) -> Mapping[str, Mapping[str, Any]]:
            raise MeterError("gpu_lost", "GPU-b: GPU is lost")

    glance = witness_of(Lost(FakeClock())).glance()
    assert (glance.devices, glance.failed) == ({}, "gpu_lost: GPU-b: GPU is lost")
    assert (glance.monotonic_s, glance.wall_s) == (100.0, 1e9)


@pytest.mark.parametrize(("late_s", "waited_s"), [(0.0, 0.1), (0.5, 0.6), (60.0, PATIENCE_S)])
def test_a_window_waits_for_the_first_sample_after_it_but_not_for_ever(late_s, waited_s):
    clock = FakeClock()
    witness = witness_of(SampledMeter(clock, late_s))
    witness.opened(FACTS)
    clock.sleep(0.001)
    witness.closed(Reading(clock.now(), {}))
    assert clock.now() - 100.0 == pytest.approx(waited_s, abs=0.03)


def test_every_device_is_waited_for_but_only_where_power_is_sampled():
    clock = FakeClock()
    witness = witness_of(SampledMeter(clock, silent="GPU-b"))
    witness.opened(FACTS)
    witness.closed(Reading(clock.now(), {}))
    assert clock.now() >= 100.0 + PATIENCE_S
    witness.opened({})
    before_s = clock.now()
    witness.closed(Reading(clock.now(), {}))
    witness.closed(None)
    assert clock.now() == before_s


def test_the_integral_of_each_device_is_part_of_the_evidence():
    clock = FakeClock()
    meter = SampledMeter(clock, silent="GPU-b")
    witness = witness_of(meter)
    witness.opened(FACTS)
    glance = witness.glance()
    clock.sleep(10.0)
    opening, closing = Reading(101.0, {}), Reading(108.5, {})
    found = witness.evidence(glance, witness.glance(), opening, closing)
    assert set(found.power) == {"GPU-a"}
    assert found.power["GPU-a"].energy_j == pytest.approx(7.5 * 200.0)
    assert witness.evidence(glance, glance, None, closing).power == {}
    json.dumps(found.plain(), allow_nan=False)
    assert set(found.plain()) == {"before", "after", "power", "known"}
    assert Evidence().plain()["before"] is None


def test_a_trace_of_several_devices_is_taken_apart():
    trace = [
        (n / 10, device, watts) for n in range(50) for device, watts in (("a", 1.0), ("b", 9.0))
    ]
    found = integrals(trace, 1.0, 3.0)
    assert {device: each.energy_j for device, each in found.items()} == pytest.approx(
        {"a": 2.0, "b": 18.0}
    )
    assert found["b"] == integrate([(n / 10, 9.0) for n in range(50)], 1.0, 3.0)


def test_the_machines_clocks_are_read_together():
    (monotonic_s, wall_s), (later_s, wall_later_s) = machine_clocks(), machine_clocks()
    assert 0 <= later_s - monotonic_s < 60
    assert abs((wall_later_s - wall_s) - (later_s - monotonic_s)) < 1.0


def point() -> Point:
    settings = Settings(
        workload=WorkloadSpec(batch_size=2, batching="static", input_tokens=4, output_tokens=9),
        measure=MeasureSpec(
            min_window_s=10.0, repeats=1, warmup=WarmupSpec(min_batches=2, max_batches=2)
        ),
    )
    return Point(id="p", configuration="c", condition={}, chosen={}, settings=settings)


def launched(world: VirtualWorld, wall_s: Callable[[float], float] = float) -> Record:
    """The record of one point, measured by the NVML meter on the stand-in in virtual time."""
    found, meter, one = [], world.meter(), point()
    bench = Bench(
        engine=FakeEngine(world.clock),  # type: ignore[arg-type]  # any clock will do
        meter=meter,
        clock=world.clock,
        devices=[gpu.uuid for gpu in world.scenario.gpus],
        context=Context(name="t", study="s", trial_id="t", attempt=0, environment={}),
        emit=lambda kind, fields: found.append(fields) if kind == "record" else None,
        clocks=lambda: (world.clock.now(), 1e9 + wall_s(world.clock.now())),
    )
    run_launch(
        Launch(
            number=0, stage="full", sizes=sizes_of([one]), points=(one,), min_requests=1, seed=0
        ),
        bench,
    )
    (fields,) = found
    return Record.from_json(json.loads(json.dumps(fields, allow_nan=False)))


def gpu(name: str = "GPU-a", **more: Any) -> Gpu:
    return Gpu(
        uuid=name, **{"power_w": ((0.0, 90.0), (15.0, 400.0)), "counter_phase_s": 0.03} | more
    )


@pytest.mark.nvml
def test_a_sound_window_on_the_stand_in_has_all_of_its_evidence(virtual_world):
    world = virtual_world(gpu(clocks_mhz=(1700, 3201)), gpu("GPU-b", counter_gain=1.1))
    record = launched(world)
    (window,) = record.windows
    assert (record.status, window.reasons) == ("ok", ())
    evidence = window.evidence
    for edge in ("before", "after"):
        assert evidence[edge]["devices"]["GPU-a"]["sm_clock_mhz"] == 1700
        assert set(evidence[edge]["devices"]) == {"GPU-a", "GPU-b"}
    assert evidence["before"]["monotonic_s"] < window.readings[0]["t_s"]
    assert window.readings[1]["t_s"] < evidence["after"]["monotonic_s"]
    assert evidence["known"]["counter_ratio"] == pytest.approx(
        {"GPU-a": 1.0, "GPU-b": 1.1}, rel=0.01
    )
    assert evidence["known"]["idle_w"]["GPU-a"] == pytest.approx(90.0, rel=0.01)
    assert evidence["power"]["GPU-a"]["bracketed"]
    assert evidence["power"]["GPU-a"]["largest_gap_s"] < 0.15
    truth_j = world.joules("GPU-a", *(each["t_s"] for each in window.readings))
    assert evidence["power"]["GPU-a"]["energy_j"] == pytest.approx(truth_j, rel=0.01)
    memory = [check for check in record.checks if check.name == "gpu_memory"]
    assert [check.ok for check in memory] == [True, True]


FAULTS = {
    "thermal_slowdown": {"violations": (Violation(270, 0.0, 90.0),)},
    "power_brake": {"violations": (Violation(271, 0.0, 60.0),)},
    "temperature_drift": {"temperature_c": tuple((float(t), 30.0 + t) for t in range(90))},
    "foreign_process": {"processes": (Process(66, 1, from_s=25.0),)},
}


@pytest.mark.nvml
@pytest.mark.parametrize("code", FAULTS)
def test_what_a_gpu_suffers_is_named_and_the_performance_stays(virtual_world, code):
    record = launched(virtual_world(gpu(**FAULTS[code])))
    assert record.status == "energy_invalid"
    first = record.windows[0]
    assert [code_of(reason) for reason in first.reasons] == [code]
    assert first.energy_j is None
    assert first.discarded_j == pytest.approx(400.0 * first.metered_s, rel=0.02)
    assert len(record.windows) == 2, "measured again once, in vain"
    assert record.metrics["output_tokens_per_s"] > 0
    assert "energy_per_output_token_j" not in record.metrics


@pytest.mark.nvml
def test_a_fault_that_passes_costs_one_window(virtual_world):
    (sound,) = launched(virtual_world(gpu())).windows
    middle_s = (sound.started_s + sound.ended_s) / 2
    record = launched(virtual_world(gpu()), wall_s=lambda t_s: t_s + (t_s > middle_s))
    assert [[code_of(reason) for reason in w.reasons] for w in record.windows] == [
        ["clock_step"],
        [],
    ]
    assert record.status == "ok"


@pytest.mark.nvml
def test_memory_errors_are_told_at_the_gate(virtual_world):
    record = launched(virtual_world(gpu(ecc_errors=(5, 2))))
    (check,) = [check for check in record.checks if check.name == "gpu_memory"]
    assert (check.ok, check.detail) == (
        False,
        "GPU-a: 2 uncorrected memory errors since the driver was loaded",
    )
    assert record.status == "ok"
