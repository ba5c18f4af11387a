"""Every meter keeps the contract; the estimate and the simulation say what they are."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import pytest

from sweeper.engines import Engine
from sweeper.errors import MeterError
from sweeper.meters import METERS, Meter, meter_class
from sweeper.meters.amd import AmdMeter
from sweeper.meters.codecarbon import CodeCarbonMeter
from sweeper.meters.nvml_meter import NvmlMeter
from sweeper.meters.rapl import RaplMeter
from sweeper.meters.replay import ReplayMeter
from sweeper.meters.simulated import SimulatedMeter
from tests import amdsmi_standin
from tests.contract_meter import CONTRACT, Subject
from tests.log_writer import written
from tests.nvml_standin import Gpu, Scenario
from tests.powercap_tree import TWO_SOCKETS, Zone, running

pytest_plugins = ("tests.nvml_standin.fixtures", "tests.amdsmi_standin.fixtures")

NO_ENGINE = cast("Engine", None)


class RealClock:
    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class VirtualClock:
    def __init__(self) -> None:
        self.t_s = 5.0

    def now(self) -> float:
        return self.t_s

    def sleep(self, seconds: float) -> None:
        self.t_s += seconds


class Powered:
    """An engine, as far as a meter sees it: devices of constant power on a virtual clock."""

    def __init__(self, clock: VirtualClock, watts: Mapping[str, float]) -> None:
        self._clock = clock
        self._watts = watts

    def energy_j(self) -> Mapping[str, float]:
        return {device: watts * self._clock.t_s for device, watts in self._watts.items()}

    def temperature_c(self) -> Mapping[str, float]:
        return dict.fromkeys(self._watts, 50.0)

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        return [(self._clock.t_s, device, watts) for device, watts in self._watts.items()]


def nvml(enter: Callable[[Scenario], Scenario]) -> Subject:
    world = enter(
        Scenario(
            gpus=tuple(
                Gpu(
                    uuid=f"GPU-{number}",
                    power_w=((0.0, 100.0 * (number + 1)),),
                    sine=(20.0, 1.0, number),
                    counter_period_s=0.02 * (number + 1),
                    counter_phase_s=0.013 * number,
                )
                for number in range(3)
            )
        )
    )
    clock = RealClock()
    return Subject(
        make=lambda devices: NvmlMeter(devices, clock, NO_ENGINE, compared_s=0.3),
        clock=clock,
        devices=["GPU-0", "GPU-2"],
        components=["GPU-0", "GPU-2"],
        truth_j=world.joules,
        tolerance=0.02,
    )


def rapl(enter: Callable[[Sequence[Zone]], Path]) -> Subject:
    root, clock = enter(TWO_SOCKETS), RealClock()
    counted = {
        "cpu package-0": TWO_SOCKETS[0],
        "dram package-0": TWO_SOCKETS[2],
        "cpu package-1": TWO_SOCKETS[3],
        "dram package-1": TWO_SOCKETS[4],
    }
    return Subject(
        make=lambda devices: RaplMeter(devices, clock, root=root),
        clock=clock,
        devices=[],
        components=list(counted),
        truth_j=lambda name, from_s, until_s: counted[name].joules(from_s, until_s),
        tolerance=0.02,
    )


def amd(enter: Callable[[Sequence[amdsmi_standin.Gpu]], Path]) -> Subject:
    gpus = {
        f"GPU-{number}": amdsmi_standin.Gpu(
            hip_id=number, uuid=f"GPU-{number}", watts=300.0 + 90 * number
        )
        for number in range(3)
    }
    enter(list(gpus.values()))
    clock = RealClock()
    return Subject(
        make=lambda devices: AmdMeter(devices, clock, NO_ENGINE),
        clock=clock,
        devices=["GPU-0", "GPU-2"],
        components=["GPU-0", "GPU-2"],
        truth_j=lambda device, from_s, until_s: gpus[device].joules(from_s, until_s),
        tolerance=0.02,
    )


def replay(enter: Callable[[Mapping[str, float]], Path]) -> Subject:
    watts = {"GPU-0": 300.0, "GPU-1": 500.0, "GPU-neighbour": 90.0}
    log = {"file": str(enter(watts)), "clock": "monotonic", "scope": "gpu"}
    clock = RealClock()
    return Subject(
        make=lambda devices: ReplayMeter(devices, clock, NO_ENGINE, log),
        clock=clock,
        devices=["GPU-0", "GPU-1"],
        components=["GPU-0", "GPU-1"],
        truth_j=lambda device, from_s, until_s: watts[device] * (until_s - from_s),
        tolerance=0.01,
    )


def codecarbon() -> Subject:
    clock = RealClock()
    return Subject(
        make=lambda devices: CodeCarbonMeter(devices, clock, NO_ENGINE),
        clock=clock,
        devices=[],
        components=["cpu", "memory"],
        truth_j=None,
        tolerance=0.0,
    )


def simulated() -> Subject:
    clock = VirtualClock()
    watts = {"GPU-0": 300.0, "GPU-1": 500.0, "GPU-neighbour": 90.0}
    engine = cast("Engine", Powered(clock, watts))
    return Subject(
        make=lambda devices: SimulatedMeter(devices, clock, engine),
        clock=clock,
        devices=["GPU-0", "GPU-1"],
        components=["GPU-0", "GPU-1"],
        truth_j=lambda device, from_s, until_s: watts[device] * (until_s - from_s),
        tolerance=1e-9,
    )


@pytest.fixture
def powercap_tree(tmp_path: Path) -> Iterator[Callable[[Sequence[Zone]], Path]]:
    with ExitStack() as stack:
        yield lambda zones: stack.enter_context(running(tmp_path / "powercap", zones))


@pytest.fixture
def log_file(tmp_path: Path) -> Iterator[Callable[[Mapping[str, float]], Path]]:
    with ExitStack() as stack:
        yield lambda watts: stack.enter_context(written(tmp_path / "log.csv", watts))


@pytest.fixture(
    params=[
        pytest.param("nvml", marks=pytest.mark.nvml),
        pytest.param("amd", marks=pytest.mark.nvml),
        pytest.param("rapl", marks=pytest.mark.process),
        pytest.param("replay", marks=pytest.mark.process),
        "codecarbon",
        "simulated",
    ]
)
def subject(request: pytest.FixtureRequest) -> Subject:
    if request.param == "nvml":
        return nvml(request.getfixturevalue("nvml_world"))
    if request.param == "amd":
        return amd(request.getfixturevalue("amd_world"))
    if request.param == "replay":
        return replay(request.getfixturevalue("log_file"))
    if request.param == "rapl":
        return rapl(request.getfixturevalue("powercap_tree"))
    return {"codecarbon": codecarbon, "simulated": simulated}[request.param]()


@pytest.mark.parametrize("demand", CONTRACT, ids=lambda demand: demand.__name__)
def test_contract(demand: Callable[[Subject], None], subject: Subject) -> None:
    demand(subject)


def test_every_meter_is_under_the_contract() -> None:
    assert set(METERS) == {"nvml", "amd", "rapl", "replay", "codecarbon", "simulated"}
    assert {kind: meter_class(kind).source for kind in METERS} == {kind: kind for kind in METERS}


def test_only_instruments_measure() -> None:
    assert [kind for kind in METERS if meter_class(kind).measured] == [
        "nvml",
        "amd",
        "rapl",
        "replay",
    ]


def test_the_simulation_needs_a_simulated_engine() -> None:
    meter: Meter = SimulatedMeter(["GPU-0"], VirtualClock(), NO_ENGINE)
    with pytest.raises(MeterError, match="not_supported"):
        meter.open()


def test_without_a_device_nothing_is_simulated() -> None:
    clock = VirtualClock()
    meter = SimulatedMeter([], clock, cast("Engine", Powered(clock, {})))
    with pytest.raises(MeterError, match="no_devices"):
        meter.open()


class Totals:
    """What CodeCarbon reports, and its tracker, under the test's control."""

    def __init__(self, cpu_kwh: float, memory_kwh: float) -> None:
        self.cpu_energy = cpu_kwh
        self.ram_energy = memory_kwh
        self.cpu_model = "none"


def estimate(monkeypatch: pytest.MonkeyPatch, reports: list[Any]) -> CodeCarbonMeter:
    class Tracker:
        def __init__(self, output_handlers: list[Any], **_: object) -> None:
            self._handler = output_handlers[0]

        def start(self) -> None: ...

        def stop(self) -> None: ...

        def flush(self) -> None:
            if (report := reports.pop(0)) is not None:
                self._handler.out(report, report)

    monkeypatch.setattr("sweeper.meters.codecarbon.OfflineEmissionsTracker", Tracker)
    return CodeCarbonMeter([], VirtualClock(), NO_ENGINE)


def test_a_component_that_stays_at_zero_is_a_failed_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reports = [Totals(0.0, memory * 1e-6) for memory in range(4)]
    meter = estimate(monkeypatch, reports)
    meter.open()
    meter.read()
    clock: Any = meter._clock
    clock.sleep(5.0)
    with pytest.raises(MeterError, match="counter_stuck: CodeCarbon's cpu"):
        meter.read()


def test_an_estimate_without_totals_is_a_failed_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = estimate(monkeypatch, [Totals(1e-6, 1e-6), None])
    meter.open()
    with pytest.raises(MeterError, match="estimate_failed"):
        meter.read()


def test_a_closed_estimate_reads_nothing() -> None:
    with pytest.raises(MeterError, match="not_open"):
        CodeCarbonMeter([], RealClock(), NO_ENGINE).read()
