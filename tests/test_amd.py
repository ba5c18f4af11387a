"""AMD's GPUs through the real amdsmi package, over a library that stands in for AMD's."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sweeper.clocks import RealClock
from sweeper.errors import MeterError
from sweeper.meters import amd
from sweeper.meters.amd import AmdMeter, IdleAmd
from sweeper.meters.inspection import amd_of_node
from tests.amdsmi_standin import NO_PERMISSION, NOT_SUPPORTED, PACKAGE, TIMEOUT, Gpu

pytestmark = pytest.mark.nvml
pytest_plugins = ("tests.amdsmi_standin.fixtures",)

Enter = Callable[[Sequence[Gpu]], Path]
ROOT = Path(__file__).resolve().parent.parent
# HIP counts in another order than amd-smi.
GPUS = (
    Gpu(hip_id=1, uuid="11ff74a1-0000-1000-80a7-000000000001", watts=400.0),
    Gpu(hip_id=0, uuid="00ff74a1-0000-1000-80a7-000000000000", watts=650.0, pids=(17, 4)),
)


def opened(devices: Sequence[str]) -> AmdMeter:
    meter = AmdMeter(devices, RealClock())
    meter.open()
    return meter


def test_a_gpu_is_found_by_each_of_its_names(amd_world: Enter) -> None:
    amd_world(GPUS)
    for name in ("0", "00ff74a1-0000-1000-80a7-000000000000", "GPU-00ff74a1"):
        meter = opened([name])
        before = meter.read()
        time.sleep(0.5)
        after = meter.read()
        meter.close()
        spent_j = after.energy_j[name] - before.energy_j[name]
        assert spent_j == pytest.approx(GPUS[1].joules(before.t_s, after.t_s), rel=0.02)


def test_what_is_known_of_a_gpu(amd_world: Enter) -> None:
    amd_world(GPUS)
    meter = AmdMeter(["0"], RealClock())
    facts = meter.open()
    state = meter.state()
    meter.close()
    assert facts["driver"] == "6.14.14"
    [gpu] = facts["gpus"]
    assert gpu.pop("counter_period_s") < 0.05
    assert gpu.pop("counter_to_power") == pytest.approx(1.0, rel=0.03)
    assert gpu == {
        "uuid": "0",
        "device_uuid": "00ff74a1-0000-1000-80a7-000000000000",
        "name": "Stand-in MI300X",
        "serial": "0x0000000000000ABC",
        "power_limit_w": 700.0,
        "power_limit_default_w": 750.0,
        "memory_used_bytes": 64 << 30,
        "memory_total_bytes": 192 << 30,
        "temperature_c": 52.0,
    }
    assert state["0"]["compute_pids"] == [4, 17]


def test_a_temperature_in_thousandths_is_one_in_degrees(amd_world: Enter) -> None:
    amd_world([Gpu(hip_id=0, uuid="a", celsius=48000.0)])
    meter = opened(["a"])
    assert meter.state()["a"]["temperature_c"] == 48.0
    meter.close()


@pytest.mark.parametrize(
    ("gpu", "code"),
    [
        (Gpu(hip_id=0, uuid="a", energy=NOT_SUPPORTED), "not_supported"),
        (Gpu(hip_id=0, uuid="a", energy=NO_PERMISSION), "no_permission"),
        (Gpu(hip_id=0, uuid="a", energy=TIMEOUT), "amdsmi_error"),
        (Gpu(hip_id=0, uuid="a", period_s=1e9), "counter_stuck"),
        (Gpu(hip_id=0, uuid="a", watts=0.0, told_w=90.0), "counter_stuck"),
        (Gpu(hip_id=0, uuid="a", scale=15.259), "implausible"),
        (Gpu(hip_id=0, uuid="a", scale=0.1), "implausible"),
        (Gpu(hip_id=0, uuid="b"), "device_unknown"),
    ],
)
def test_a_counter_that_does_not_work_is_no_zero(amd_world: Enter, gpu: Gpu, code: str) -> None:
    amd_world([gpu])
    meter = AmdMeter(["a"], RealClock())
    with pytest.raises(MeterError) as raised:
        meter.open()
    assert raised.value.code == code
    assert "a" in str(raised.value)
    with pytest.raises(MeterError, match="not_open"):
        meter.read()


def test_a_gpu_that_tells_no_power_is_measured_by_its_counter(amd_world: Enter) -> None:
    amd_world([Gpu(hip_id=0, uuid="a", power=NOT_SUPPORTED)])
    meter = AmdMeter(["a"], RealClock())
    assert "counter_to_power" not in meter.open()["gpus"][0]
    meter.close()


def test_sessions_nest_which_those_of_the_library_do_not(amd_world: Enter) -> None:
    amd_world(GPUS)
    meter, idle = opened(["0"]), IdleAmd(["1"], RealClock())
    assert idle.open() == {"counted": ["1"]}
    before = idle.read()
    time.sleep(0.5)
    after = idle.read()
    idle.close()
    assert meter.read().energy_j["0"] > 0
    meter.close()
    spent_j = after.energy_j["1"] - before.energy_j["1"]
    assert spent_j == pytest.approx(GPUS[0].joules(before.t_s, after.t_s), rel=0.02)
    with pytest.raises(MeterError, match="not_open"):
        idle.read()


def test_without_a_driver_the_reason_says_so(
    amd_world: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    amd_world(GPUS)
    monkeypatch.setenv("SWEEPER_AMDSMI_SCENARIO", "/nowhere")
    with pytest.raises(MeterError, match=r"^amdsmi_missing: amdsmi: .*DRIVER_NOT_LOADED"):
        AmdMeter(["0"], RealClock()).open()


@pytest.mark.parametrize("places", [[ROOT], [ROOT, PACKAGE]], ids=["no package", "no library"])
def test_without_the_library_nothing_is_printed_and_the_reason_says_so(
    rocm: Path, places: list[Path]
) -> None:
    code = (
        "from sweeper.clocks import RealClock; from sweeper.errors import MeterError\n"
        "from sweeper.meters.amd import AmdMeter\n"
        "try: AmdMeter(['0'], RealClock()).open()\n"
        "except MeterError as error: print(error.code)\n"
    )
    hidden = {name: value for name, value in os.environ.items() if name != "ROCM_PATH"}
    child = subprocess.run(
        [sys.executable, "-c", code],
        env=hidden | {"PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == "amdsmi_missing\n"


def test_what_a_node_of_amds_tells(amd_world: Enter, tmp_path: Path) -> None:
    amd_world([*GPUS, Gpu(hip_id=2, uuid="c", energy=NOT_SUPPORTED)])
    (tmp_path / "kfd").touch()
    assert amd_of_node(tmp_path / "kfd") == {
        "present": True,
        "works": True,
        "gpus": 3,
        "counters": 2,
        "reasons": ["not_supported"],
    }


def test_a_launch_without_gpus_has_nothing_to_measure(amd_world: Enter) -> None:
    amd_world(GPUS)
    with pytest.raises(MeterError, match="no_devices"):
        AmdMeter([], RealClock()).open()


def test_the_codes_are_those_of_the_package(amd_world: Enter) -> None:
    amd_world(GPUS)
    wrapper = amd.library().amdsmi_wrapper
    named = {
        wrapper.AMDSMI_STATUS_NOT_SUPPORTED: "not_supported",
        wrapper.AMDSMI_STATUS_NOT_YET_IMPLEMENTED: "not_supported",
        wrapper.AMDSMI_STATUS_NO_PERM: "no_permission",
        wrapper.AMDSMI_STATUS_INIT_ERROR: "amdsmi_missing",
        wrapper.AMDSMI_STATUS_NOT_FOUND: "device_unknown",
        wrapper.AMDSMI_STATUS_NOT_INIT: "not_open",
        wrapper.AMDSMI_STATUS_DRIVER_NOT_LOADED: "amdsmi_missing",
    }
    assert named == amd.CODES
