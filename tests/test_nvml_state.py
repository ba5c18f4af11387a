"""What NVML tells of a device beside its counter: facts, its state, its ratio; nothing untold."""

from collections.abc import Callable
from contextlib import closing
from typing import cast

import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Engine
from sweeper.meters import nvml
from sweeper.meters.nvml_meter import NvmlMeter
from tests.nvml_standin import NOT_SUPPORTED, Fault, Gpu, Process, Scenario, Violation
from tests.nvml_standin.virtual import VirtualWorld

pytest_plugins = ("tests.nvml_standin.fixtures",)
pytestmark = pytest.mark.nvml

Enter = Callable[[Scenario], Scenario]
Begin = Callable[..., VirtualWorld]


def test_what_a_device_does_not_tell_is_absent(nvml_world: Enter) -> None:
    silent = {
        "nvmlDeviceGetTemperatureV",
        "nvmlDeviceGetTemperature",
        "nvmlDeviceGetVbiosVersion",
        "nvmlDeviceGetEccMode",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetMigMode",
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetUtilizationRates",
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetTotalEccErrors",
        "nvmlDeviceGetSupportedEventTypes",
    }
    nvml_world(Scenario(gpus=(Gpu(uuid="GPU-a", unsupported=frozenset(silent)),)))
    meter = NvmlMeter(["GPU-a"], RealClock(), cast("Engine", None), compared_s=0.3)
    (told,) = meter.open()["gpus"]
    state = meter.state()
    meter.close()
    assert not {"temperature_c", "vbios", "ecc", "power_limit_w"} & set(told)
    assert told["power_method"] == "usage"
    assert state == {
        "GPU-a": {"memory_used_bytes": 0, "memory_total_bytes": told["memory_total_bytes"]}
    }


def test_state_is_of_now(nvml_world: Enter) -> None:
    gpu = Gpu(
        uuid="GPU-a",
        temperature_c=((-1.0, 61.0),),
        memory_used_bytes=((-100.0, 0.0), (-50.0, 5e9)),
        processes=(Process(12, 1), Process(7, 1), Process(99, 1, until_s=-1.0)),
        clocks_mhz=(1470, 3201),
        utilization=87,
        power_limit_w=650.0,
        event_reasons=0x4 | 0x40 | 0x8000,
        violations=(Violation(74, -9.0, -2.5), Violation(271, -2.0, -1.0)),
        ecc_errors=(3, 1),
    )
    nvml_world(Scenario(gpus=(gpu,)))
    expected = {
        "compute_pids": [7, 12],
        "memory_used_bytes": 5_000_000_000,
        "memory_total_bytes": gpu.memory_bytes,
        "temperature_c": 61.0,
        "memory_temperature_c": 61.0,
        "sm_clock_mhz": 1470,
        "memory_clock_mhz": 3201,
        "utilization": 0.87,
        "power_limit_w": 650.0,
        "events": ["power_cap", "hw_thermal_slowdown", "0x8000"],
        "violations_s": {
            "power_cap": 6.5,
            "thermal": 0.0,
            "sync_boost": 0.0,
            "board_limit": 0.0,
            "reliability": 0.0,
            "sw_thermal_slowdown": 0.0,
            "hw_thermal_slowdown": 0.0,
            "hw_power_brake_slowdown": 1.0,
        },
        "ecc_corrected": 3,
        "ecc_uncorrected": 1,
    }
    assert nvml.states(["GPU-a"]) == {"GPU-a": expected}


def test_a_violation_that_is_not_told_is_absent(nvml_world: Enter) -> None:
    faults = tuple(Fault(f"field:{number}", NOT_SUPPORTED) for number in (82, *range(74, 82)))
    nvml_world(Scenario(gpus=(Gpu(uuid="GPU-a", faults=faults),)))
    state = nvml.states(["GPU-a"])["GPU-a"]
    assert "memory_temperature_c" not in state
    assert set(state["violations_s"]) == {
        "sw_thermal_slowdown",
        "hw_thermal_slowdown",
        "hw_power_brake_slowdown",
    }


@pytest.mark.parametrize("gain", [0.6, 1.0, 1.3])
def test_open_tells_each_gpus_own_ratio_of_counter_to_power(
    virtual_world: Begin, gain: float
) -> None:
    world = virtual_world(
        Gpu(uuid="GPU-a", counter_gain=gain, power_w=((0.0, 80.0),)),
        Gpu(uuid="GPU-b", power_w=((0.0, 90.0),), counter_period_s=0.02),
        look_s=(0.003, 0.005),
    )
    with closing(world.meter()) as meter:
        one, other = meter.open()["gpus"]
    assert one["counter_ratio"] == pytest.approx(gain, rel=0.01)
    assert other["counter_ratio"] == pytest.approx(1.0, rel=0.01)


def test_without_power_there_is_a_counter_but_no_ratio(virtual_world: Begin) -> None:
    silent = frozenset({"nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage"})
    world = virtual_world(Gpu(uuid="GPU-a", unsupported=silent))
    with closing(world.meter()) as meter:
        (told,) = meter.open()["gpus"]
        assert meter.read().energy_j["GPU-a"] > 0
    assert "counter_ratio" not in told


def test_critical_errors_are_told_since_the_meter_was_opened(virtual_world: Begin) -> None:
    world = virtual_world(
        Gpu(uuid="GPU-a", xids=((0.0, 13), (20.0, 31), (21.0, 79), (500.0, 48))), Gpu(uuid="GPU-b")
    )
    world.clock.sleep(5.0)
    with closing(world.meter()) as meter:
        meter.open()
        assert meter.state()["GPU-a"]["xids"] == []
        world.clock.sleep(30.0)
        for _ in range(2):
            state = meter.state()
            assert (state["GPU-a"]["xids"], state["GPU-b"]["xids"]) == ([31, 79], [])
        meter.open()
        assert meter.state()["GPU-a"]["xids"] == []


@pytest.mark.parametrize("silent", ["nvmlDeviceGetSupportedEventTypes", "nvmlDeviceRegisterEvents"])
def test_a_device_that_tells_of_no_events_has_none(virtual_world: Begin, silent: str) -> None:
    world = virtual_world(Gpu(uuid="GPU-a", unsupported=frozenset({silent})))
    with closing(world.meter()) as meter:
        meter.open()
        assert "xids" not in meter.state()["GPU-a"]
