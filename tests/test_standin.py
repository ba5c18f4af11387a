"""The NVML stand-in shows exactly the world its scenario describes, to every process alike."""

import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.meters.nvml import session
from tests.nvml_standin import (
    GPU_LOST,
    Fault,
    Gpu,
    Process,
    Scenario,
    Violation,
    compiler,
    environment,
)
from tests.nvml_standin.virtual import VirtualWorld

pytest_plugins = ("tests.nvml_standin.fixtures",)

Enter = Callable[[Scenario], Scenario]
Begin = Callable[..., VirtualWorld]

READ_COUNTERS = """
import pynvml, time
pynvml.nvmlInit()
handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
for handle in handles * 3:
    before = time.monotonic()
    counter = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    print(pynvml.nvmlDeviceGetUUID(handle), before, counter, time.monotonic())
"""


def random_gpu(number: int, rng: random.Random) -> Gpu:
    times_s = sorted(rng.uniform(-5, 20) for _ in range(rng.randint(1, 6)))
    return Gpu(
        uuid=f"GPU-{number:04d}",
        power_w=tuple((at_s, rng.uniform(60, 700)) for at_s in times_s),
        linear=rng.random() < 0.5,
        sine=(rng.choice([0.0, 40.0]), rng.uniform(0.1, 8), rng.uniform(0, 6)),
        counter_period_s=rng.choice([0.02, 0.1, 0.2]),
        counter_phase_s=rng.uniform(0, 0.2),
        counter_offset_j=rng.uniform(0, 1e8),
        counter_gain=rng.choice([1.0, 1.06]),
        stuck_s=(-10.0, 30.0) if rng.random() < 0.1 else None,
        reset_s=-2.0 if rng.random() < 0.1 else None,
    )


def shown_between(gpu: Gpu, from_s: float, until_s: float, counter_mj: int) -> bool:
    """Whether the counter may show this at some moment between the two."""
    low, high = gpu.counter_j(from_s) * 1e3, gpu.counter_j(until_s) * 1e3
    return math.floor(low) - 1 <= counter_mj <= math.floor(high) + 1


@pytest.mark.nvml
def test_counter_is_the_closed_form_up_to_the_last_tick(nvml_world: Enter) -> None:
    rng = random.Random(7)
    world = nvml_world(Scenario(gpus=tuple(random_gpu(number, rng) for number in range(100))))
    with session():
        for index, gpu in enumerate(world.gpus):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            assert pynvml.nvmlDeviceGetUUID(handle) == gpu.uuid
            before_s = time.monotonic() - world.start_s
            counter = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            assert shown_between(gpu, before_s, time.monotonic() - world.start_s, counter)


@pytest.mark.nvml
def test_several_processes_see_one_world(nvml_library: Path, tmp_path: Path) -> None:
    rng = random.Random(8)
    world = Scenario(gpus=tuple(random_gpu(number, rng) for number in range(8)))
    env = environment(nvml_library, world.write(tmp_path / "scenario.txt"), os.environ)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READ_COUNTERS], env=env, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for reader in readers:
        output, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0
        lines = [line.split() for line in output.splitlines()]
        assert len(lines) == 24
        for uuid, before, counter, after in lines:
            from_s, until_s = float(before) - world.start_s, float(after) - world.start_s
            assert shown_between(world.gpu(uuid), from_s, until_s, int(counter))


@pytest.mark.nvml
def test_a_device_tells_what_the_scenario_says(nvml_world: Enter) -> None:
    gpu = Gpu(
        uuid="GPU-a",
        name="NVIDIA H100 80GB HBM3",
        power_w=((0.0, 500.0),),
        temperature_c=((-10.0, 30.0), (-5.0, 60.0)),
        memory_used_bytes=((-10.0, 1e9),),
        clocks_mhz=(1500, 2600),
        utilization=77,
        event_reasons=0x4,
        ecc_errors=(3, 1),
        power_limit_w=600.0,
        processes=(Process(11, 5), Process(12, 6, until_s=-1.0)),
        violations=(Violation(pynvml.NVML_FI_DEV_PERF_POLICY_POWER, -3.0, -1.0),),
        unsupported=frozenset({"nvmlDeviceGetMigMode", "field:185"}),
    )
    nvml_world(Scenario(gpus=(gpu,)))
    with session():
        handle = pynvml.nvmlDeviceGetHandleByUUID("GPU-a")
        assert pynvml.nvmlDeviceGetName(handle) == gpu.name
        assert pynvml.nvmlDeviceGetPowerUsage(handle) == 500_000
        assert pynvml.nvmlDeviceGetTemperatureV(handle, 0) == 60
        assert pynvml.nvmlDeviceGetTemperature(handle, 0) == 60
        assert pynvml.nvmlDeviceGetMemoryInfo(handle).used == 10**9
        assert pynvml.nvmlDeviceGetMemoryInfo(handle, pynvml.nvmlMemory_v2).used == 10**9
        assert pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM) == 1500
        assert pynvml.nvmlDeviceGetUtilizationRates(handle).gpu == 77
        assert pynvml.nvmlDeviceGetCurrentClocksEventReasons(handle) == 0x4
        assert pynvml.nvmlDeviceGetTotalEccErrors(handle, 1, 0) == 1
        assert pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) == 600_000
        assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle)] == [11]
        violation, average, instant = pynvml.nvmlDeviceGetFieldValues(
            handle, [74, (185, 0), (186, 0)]
        )
        assert violation.value.ullVal == pytest.approx(2e9, rel=1e-6)
        assert average.nvmlReturn == pynvml.NVML_ERROR_NOT_SUPPORTED
        assert instant.value.uiVal == 500_000
        with pytest.raises(pynvml.NVMLError_NotSupported):
            pynvml.nvmlDeviceGetMigMode(handle)
        with pytest.raises(pynvml.NVMLError_NotFound):
            pynvml.nvmlDeviceGetHandleByUUID("GPU-b")


@pytest.mark.nvml
def test_a_lost_gpu_answers_nothing(nvml_world: Enter) -> None:
    lost = Gpu(uuid="GPU-a", faults=(Fault("*", GPU_LOST, from_s=-1.0),))
    nvml_world(Scenario(gpus=(lost, Gpu(uuid="GPU-b"))))
    with session():
        with pytest.raises(pynvml.NVMLError_GpuIsLost):
            pynvml.nvmlDeviceGetHandleByUUID("GPU-a")
        assert pynvml.nvmlDeviceGetHandleByUUID("GPU-b")


@pytest.mark.nvml
def test_without_a_scenario_there_is_no_driver(
    nvml_world: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml_world(Scenario(gpus=()))
    monkeypatch.delenv("SWEEPER_NVML_SCENARIO")
    with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
        pynvml.nvmlInit()


@pytest.mark.nvml
def test_a_bad_scenario_is_refused(nvml_world: Enter, tmp_path: Path) -> None:
    nvml_world(Scenario(gpus=(Gpu(uuid="GPU-a"),)))
    (tmp_path / "scenario.txt").write_text("start 0\ngpu GPU-a\nvolts 12\n")
    with pytest.raises(pynvml.NVMLError_Unknown):
        pynvml.nvmlInit()


def test_the_compiler_is_found_or_the_tests_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert compiler() is None


@given(st.integers(0, 10_000), st.floats(-8, 25), st.floats(0.01, 6))
def test_the_true_energy_is_the_integral_of_the_true_power(
    seed: int, from_s: float, length_s: float
) -> None:
    gpu = random_gpu(0, random.Random(seed))
    steps = 4000
    width_s = length_s / steps
    summed = sum(gpu.watts(from_s + (step + 0.5) * width_s) for step in range(steps)) * width_s
    # The midpoint rule is off by at most a step's energy at each jump of the power.
    assert gpu.joules(from_s, from_s + length_s) == pytest.approx(summed, abs=7 * 700 * width_s)


@pytest.mark.nvml
def test_on_a_virtual_clock_time_passes_by_sleeping_and_looking(virtual_world: Begin) -> None:
    gpu = Gpu(uuid="GPU-a", power_w=((0.0, 250.0),), counter_period_s=0.001, counter_offset_j=0.0)
    world = virtual_world(gpu, look_s=(0.004, 0.004))
    began_s = world.clock.now()
    with session():
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        assert world.clock.now() == began_s
        seen = []
        for _ in range(50):
            before_s = world.clock.now() - began_s
            shown_j = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3
            assert 250.0 * (before_s - 0.001) - 1e-3 <= shown_j <= 250.0 * (before_s + 0.004)
            seen.append(shown_j / 250.0 - before_s)
            assert world.clock.now() - began_s == pytest.approx(before_s + 0.004)
            world.clock.sleep(10.0)
    assert max(seen) - min(seen) > 0.002, "a look is of a random moment inside it"
    again = virtual_world(gpu)
    with session():
        pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0))
    assert again.clock.now() == began_s, "looks cost nothing unless asked"


@pytest.mark.nvml
def test_a_virtual_clock_that_is_not_there_is_refused(
    nvml_world: Enter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nvml_world(Scenario(gpus=(Gpu(uuid="GPU-a"),)))
    monkeypatch.setenv("SWEEPER_NVML_CLOCK", str(tmp_path / "none"))
    with pytest.raises(pynvml.NVMLError_Unknown):
        pynvml.nvmlInit()
