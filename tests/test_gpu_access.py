"""What a node says of settings of its GPUs before a study starts."""

import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sweeper.spec import GpuSpec, Settings
from sweeper.trial import gpu_access
from tests.boards import World
from tests.nvml_standin import NO_PERMISSION, Fault
from tests.studies import simulated

pytestmark = [pytest.mark.nvml, pytest.mark.process]
pytest_plugins = ("tests.nvml_standin.fixtures",)

SET = "nvmlDeviceSetPowerManagementLimit"


def asking(settings: Settings, **gpu: Any) -> Settings:
    engine = replace(settings.engine, kind="transformers", options={})
    return replace(settings, engine=engine, gpu=GpuSpec(**gpu))


@pytest.mark.parametrize(
    ("board", "gpu", "said"),
    [
        ({}, {"power_limit_w": 400.0, "clock_mhz": 1005}, []),
        ({}, {}, []),
        (
            {},
            {"power_limit_w": 100.0},
            ["gpu.power_limit_w: 100 W; NVIDIA H200 takes 200 to 700 W"],
        ),
        (
            {},
            {"clock_mhz": 1000},
            [
                (
                    "gpu.clock_mhz: 1000 MHz; NVIDIA H200 takes 345 to 1980 MHz in steps, near it "
                    "990 and 1005"
                )
            ],
        ),
        (
            {"faults": (Fault(SET, NO_PERMISSION),)},
            {"clock_mhz": 1005},
            [
                (
                    "gpu: this user may not set power limits or clocks (no_permission): run Ray's "
                    "nodes as root (in a container with --cap-add SYS_ADMIN), or leave the gpu "
                    "keys out of the study"
                )
            ],
        ),
    ],
)
def test_what_cannot_be_set_is_said_before_a_study_starts(
    gpu_world: Callable[..., World],
    monkeypatch: pytest.MonkeyPatch,
    board: dict[str, Any],
    gpu: dict[str, Any],
    said: list[str],
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    there = gpu_world(board, board)
    asked = asking(simulated().settings, **gpu)
    assert gpu_access.faults([asked, asked]) == said
    assert all(b.power_limit_w in (None, 700.0) and not b.locked_mhz for b in there.boards)
    assert there.notes() == []


def test_only_gpus_that_ray_hands_out_are_asked(
    gpu_world: Callable[..., World],
    monkeypatch: pytest.MonkeyPatch,
    ended: list[subprocess.Popen[bytes]],
) -> None:
    there = gpu_world({"power_limits_w": (600.0, 700.0)}, {})
    asked = asking(simulated().settings, power_limit_w=400.0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", there.uuids[1])
    ended.append(there.owner(there.uuids[1], power_limit_w=300.0))
    assert gpu_access.faults([asked]) == []
    assert there.boards[1].power_limit_w == 300.0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert len(gpu_access.faults([asked])) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "knows no GPU here" in gpu_access.faults([asked])[0]


def test_without_a_driver_nothing_can_be_set(
    gpu_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu_world({})
    monkeypatch.setenv("SWEEPER_NVML_SCENARIO", "")
    [said] = gpu_access.faults([asking(simulated().settings, power_limit_w=400.0)])
    assert "driver_not_loaded" in said
    # Simulated GPUs need none.
    plain = replace(simulated().settings, gpu=GpuSpec(power_limit_w=400.0))
    assert gpu_access.faults([plain]) == []
