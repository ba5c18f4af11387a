"""The NVML meter against the stand-in: true energy, honest refusals, the trace beside it."""

import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import cast

import pynvml
import pytest

from sweeper.engines import Engine
from sweeper.errors import MeterError
from sweeper.meters import nvml
from sweeper.meters.counter import Counters, read_aligned
from sweeper.meters.nvml_meter import MACHINE, NvmlMeter
from tests.nvml_standin import (
    GPU_LOST,
    NOT_SUPPORTED,
    Fault,
    Gpu,
    Scenario,
)
from tests.nvml_standin.virtual import VirtualWorld

pytest_plugins = ("tests.nvml_standin.fixtures",)
pytestmark = pytest.mark.nvml

Enter = Callable[[Scenario], Scenario]
Begin = Callable[..., VirtualWorld]
NO_ENGINE = cast("Engine", None)


class RealClock:
    """Real time from another start than CLOCK_MONOTONIC's."""

    def now(self) -> float:
        return time.monotonic() + 1000.0

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class StandingClock(RealClock):
    def now(self) -> float:
        return 7.0


def meter_of(*devices: str) -> NvmlMeter:
    return NvmlMeter(devices, RealClock(), NO_ENGINE, compared_s=0.3)


def busy_gpu(number: int, period_s: float, rng: random.Random) -> Gpu:
    """Idle, then a ramp, then work with a ripple, at a phase of its own."""
    start_s = rng.uniform(0.5, 2.0)
    return Gpu(
        uuid=f"GPU-{number:02d}",
        power_w=((0.0, 90.0), (start_s, 90.0), (start_s + 0.5, rng.uniform(300, 700))),
        linear=True,
        sine=(25.0, rng.uniform(0.5, 6.0), rng.uniform(0, 6)),
        counter_period_s=period_s,
        counter_phase_s=rng.uniform(0, period_s),
    )


def counters(uuids: Sequence[str]) -> Counters:
    return {uuid: partial(nvml.energy_j, uuid, nvml.handle_of(uuid)) for uuid in uuids}


def test_windows_cost_what_the_scenario_spends(nvml_world: Enter) -> None:
    """5 s windows of real time from 9 phases, GPUs alone and as a group, within 1 % of the truth.

    More phases than real time has room for are in test_meter_accuracy.py.
    """
    rng = random.Random(3)
    periods_s = (0.02, 0.1, 0.2) * 3
    world = nvml_world(
        Scenario(gpus=tuple(busy_gpu(number, each, rng) for number, each in enumerate(periods_s)))
    )
    names = [gpu.uuid for gpu in world.gpus]
    groups = [[name] for name in names[:5]] + [names[5:]]
    with nvml.session():
        began = [read_aligned(counters(group), MACHINE) for group in groups]
        time.sleep(5.0)
        ended = [read_aligned(counters(group), MACHINE) for group in groups]
    for group, (from_s, before), (until_s, after) in zip(groups, began, ended, strict=True):
        assert until_s - from_s > 4.5
        for uuid in group:
            truth = world.joules(uuid, from_s, until_s)
            assert after[uuid] - before[uuid] == pytest.approx(truth, rel=0.01)


def test_open_tells_the_facts_and_read_the_joules(nvml_world: Enter) -> None:
    gpu = Gpu(uuid="GPU-a", name="NVIDIA H200", counter_period_s=0.05, power_limit_w=650.0)
    nvml_world(Scenario(gpus=(Gpu(uuid="GPU-neighbour"), gpu)))
    meter = meter_of("GPU-a")
    facts = meter.open()
    reading = meter.read()
    meter.close()
    assert facts["driver"] == "0.0-standin"
    (told,) = facts["gpus"]
    assert told.pop("counter_period_s") > 0.04
    assert told.pop("counter_ratio") == pytest.approx(1.0, abs=0.02)
    assert told == {
        "uuid": "GPU-a",
        "name": "NVIDIA H200",
        "index": 1,
        "pci_id": "00000000:1A:00.0",
        "vbios": "96.00.99.00.01",
        "memory_total_bytes": 150_754_820_096,
        "power_limit_w": 650.0,
        "power_limit_default_w": 700.0,
        "persistence": True,
        "ecc": True,
        "ecc_uncorrected": 0,
        "mig": False,
        "temperature_c": 45.0,
        "power_method": "instant",
    }
    assert set(reading.energy_j) == {"GPU-a"}
    assert meter.scope == "gpu"


def test_grace_hopper_counts_its_module(nvml_world: Enter) -> None:
    gpu = Gpu(uuid="GPU-a", name="NVIDIA GH200 480GB", counter_period_s=0.02)
    nvml_world(Scenario(gpus=(gpu,)))
    meter = meter_of("GPU-a")
    (told,) = meter.open()["gpus"]
    meter.close()
    assert meter.scope == "module"
    assert "counter_ratio" not in told


REFUSALS = {
    "not_supported": Gpu(
        uuid="GPU-a", unsupported=frozenset({"nvmlDeviceGetTotalEnergyConsumption"})
    ),
    "no_permission": Gpu(
        uuid="GPU-a",
        faults=(Fault("nvmlDeviceGetTotalEnergyConsumption", pynvml.NVML_ERROR_NO_PERMISSION),),
    ),
    "nvml_error": Gpu(uuid="GPU-a", faults=(Fault("nvmlDeviceGetTotalEnergyConsumption", 999),)),
    "gpu_lost": Gpu(uuid="GPU-a", faults=(Fault("*", GPU_LOST),)),
    "mig": Gpu(uuid="GPU-a", mig=True),
    "device_unknown": Gpu(uuid="GPU-other"),
    "counter_stuck": Gpu(uuid="GPU-a", stuck_s=(-5.0, math.inf)),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_what_cannot_be_measured_is_refused(nvml_world: Enter, code: str) -> None:
    nvml_world(Scenario(gpus=(REFUSALS[code],)))
    meter = meter_of("GPU-a")
    with pytest.raises(MeterError) as raised:
        meter.open()
    assert raised.value.code == code
    with pytest.raises(MeterError, match="not_open"):
        meter.read()


def test_slices_nothing_and_virtual_clocks_are_refused(nvml_world: Enter) -> None:
    nvml_world(Scenario(gpus=(Gpu(uuid="GPU-a", counter_period_s=0.02),)))
    with pytest.raises(MeterError, match=r"^mig:"):
        meter_of("MIG-GPU-a/1/0").open()
    with pytest.raises(MeterError, match=r"^no_devices:"):
        meter_of().open()
    with pytest.raises(MeterError, match=r"^clock_not_real:"):
        NvmlMeter(["GPU-a"], StandingClock(), NO_ENGINE).open()


def test_another_clock_is_held_against_the_machines(virtual_world: Begin) -> None:
    """A virtual clock is real where the counters tick on it, and only there."""
    world = virtual_world(Gpu(uuid="GPU-a"))
    with closing(world.meter()) as meter:
        meter.open()
        assert meter.read().t_s == pytest.approx(world.clock.now(), abs=0.002)
    strange = NvmlMeter(["GPU-a"], RealClock(), NO_ENGINE, machine=world.clock)
    with pytest.raises(MeterError, match=r"^clock_not_real:"):
        strange.open()


def test_without_a_driver_there_is_no_meter_and_no_gpu(
    nvml_world: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml_world(Scenario(gpus=()))
    monkeypatch.delenv("SWEEPER_NVML_SCENARIO")
    assert nvml.gpus_of_node() == []
    assert nvml.driver_version() is None
    with pytest.raises(MeterError, match=r"^driver_not_loaded:"):
        meter_of("GPU-a").open()


def test_without_the_library_there_is_no_meter_and_no_gpu(tmp_path: Path) -> None:
    """In a process of its own: this one has loaded the stand-in for good."""
    script = (
        "from sweeper.meters import nvml\n"
        "from sweeper.meters.nvml_meter import NvmlMeter\n"
        "assert nvml.gpus_of_node() == []\n"
        "try:\n    NvmlMeter(['GPU-a'], None, None).open()\n"
        "except Exception as error:\n    print(error.code)\n"
    )
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    if any(Path(place, "libnvidia-ml.so.1").exists() for place in LIBRARY_PLACES):
        pytest.skip("this machine has a driver")
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "nvml_missing"


LIBRARY_PLACES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/nvidia/lib64")


def test_the_gpus_of_a_node_come_in_order(nvml_world: Enter) -> None:
    nvml_world(Scenario(gpus=(Gpu(uuid="GPU-b"), Gpu(uuid="GPU-a", mig=True))))
    assert [(gpu["uuid"], gpu["mig"]) for gpu in nvml.gpus_of_node()] == [
        ("GPU-b", False),
        ("GPU-a", True),
    ]
    assert nvml.driver_version() == "0.0-standin"


@pytest.mark.parametrize("code", ["counter_stuck", "counter_reset", "gpu_lost"])
def test_a_counter_that_fails_later_gives_no_number(nvml_world: Enter, code: str) -> None:
    now = time.monotonic()
    failing_s = 1.5
    world = {
        "counter_stuck": Gpu(uuid="GPU-a", counter_period_s=0.02, stuck_s=(failing_s, 1e6)),
        "counter_reset": Gpu(uuid="GPU-a", counter_period_s=0.02, reset_s=failing_s),
        "gpu_lost": Gpu(
            uuid="GPU-a", counter_period_s=0.02, faults=(Fault("*", GPU_LOST, from_s=failing_s),)
        ),
    }[code]
    nvml_world(Scenario(gpus=(Gpu(uuid="GPU-b", counter_period_s=0.02), world), start_s=now))
    meter = meter_of("GPU-b", "GPU-a")
    meter.open()
    with pytest.raises(MeterError) as raised:  # noqa: PT012 - it fails at some reading
        while time.monotonic() < now + 10:
            meter.read()
    assert raised.value.code == code
    assert "GPU-a" in str(raised.value)
    meter.close()


def test_the_trace_follows_the_power(nvml_world: Enter) -> None:
    gpus = tuple(
        Gpu(uuid=f"GPU-{number}", power_w=((0.0, 200.0 + number),), sine=(80.0, 0.05, number))
        for number in range(2)
    )
    world = nvml_world(Scenario(gpus=gpus))
    meter = meter_of("GPU-0", "GPU-1")
    meter.open()
    until_s = time.monotonic() + 30
    while len(meter.power_trace()) < 20 and time.monotonic() < until_s:
        time.sleep(0.1)
    running = meter.power_trace()
    meter.close()
    kept = meter.power_trace()
    assert list(kept[: len(running)]) == list(running)
    assert {device for _, device, _ in kept} == {"GPU-0", "GPU-1"}
    for t_s, device, watts in kept:
        at_s = t_s - 1000.0 - world.start_s
        # The clock's offset is known to the time between two calls.
        assert watts == pytest.approx(world.gpu(device).watts(at_s), abs=5.0)
    times_s = [t_s for t_s, device, _ in kept if device == "GPU-0"]
    assert times_s == sorted(times_s)


def test_a_sample_that_fails_leaves_a_gap(nvml_world: Enter) -> None:
    fault = Fault("field:186", NOT_SUPPORTED, from_s=1.5)
    world = nvml_world(Scenario(gpus=(Gpu(uuid="GPU-a", faults=(fault,)), Gpu(uuid="GPU-b"))))
    meter = meter_of("GPU-a", "GPU-b")
    meter.open()
    until_s = time.monotonic() + 30
    while time.monotonic() < until_s:
        trace = meter.power_trace()
        if trace and trace[-1][0] - 1000.0 - world.start_s > 2.5:
            break
        time.sleep(0.1)
    meter.close()
    last_s = {device: t_s - 1000.0 - world.start_s for t_s, device, _ in meter.power_trace()}
    assert last_s.get("GPU-a", 0.0) < 1.6
    assert last_s["GPU-b"] > 2.5
