"""Power limits and clocks of a launch's GPUs: set, proven, and set back whoever dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import EngineError, MeterError, WrongSetting
from sweeper.spec import GpuSpec
from sweeper.trial.gpu_settings import GpuSettings
from sweeper.trial.guardian import processes
from tests.boards import OWNER, World, until
from tests.nvml_standin import NO_PERMISSION, Board, Fault

pytestmark = [pytest.mark.nvml, pytest.mark.process]
pytest_plugins = ("tests.nvml_standin.fixtures",)

UNTOUCHED = Board(None, None, 0)
BOTH = GpuSpec(power_limit_w=400.0, clock_mhz=1005)
SET, LOCK = "nvmlDeviceSetPowerManagementLimit", "nvmlDeviceSetGpuLockedClocks"


def guardians() -> set[int]:
    found = set()
    for process in processes():
        try:
            command = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"sweeper.trial.gpu_guardian" in command:
            found.add(process.pid)
    return found


def test_exactly_the_gpus_of_a_launch_are_set_and_set_back(gpu_world: Callable[..., World]) -> None:
    there = gpu_world({}, {"power_limit_w": 650.0}, {})
    _, one, other = there.uuids
    settings = GpuSettings(BOTH, [other, one])
    told = settings.apply()
    assert told["asked"] == {"power_limit_w": 400.0, "clock_mhz": 1005}
    assert told["found"][one] == {"power_limit_w": 650.0, "clock_mhz": None}
    force = {"power_limit_w": 400.0, "sm_clock_mhz": 1005.0}
    assert told["in_force"] == {one: force, other: force}
    assert there.boards[0] == UNTOUCHED
    assert [board.power_limit_w for board in there.boards[1:]] == [400.0, 400.0]
    assert [board.locked_mhz for board in there.boards[1:]] == [(1005.0, 1005.0)] * 2
    settings.close()
    assert there.boards == [UNTOUCHED, Board(650.0, None, 4), Board(700.0, None, 4)]
    assert there.notes() == []
    settings.close()


def test_what_is_not_asked_is_not_touched(gpu_world: Callable[..., World]) -> None:
    there = gpu_world({})
    before = guardians()
    assert GpuSettings().apply() == {}
    assert guardians() <= before
    for asked in (GpuSpec(power_limit_w=300.0), GpuSpec(clock_mhz=900)):
        settings = GpuSettings(asked, there.uuids)
        settings.apply()
        [board] = there.boards
        assert (board.power_limit_w == 300.0) == (asked.power_limit_w is not None)
        assert (board.locked_mhz is not None) == (asked.clock_mhz is not None)
        settings.close()


@pytest.mark.parametrize(
    ("board", "asked", "said"),
    [
        ({"power_clamp_w": 450.0}, BOTH, r"power_limit_w: asked 400, .* took 450"),
        ({}, GpuSpec(power_limit_w=900.0), r"power_limit_w 900.*Invalid.*stays at 700 W"),
        ({"ignores_lock": True}, GpuSpec(clock_mhz=900), r"asked 900, .* runs at 1980"),
        ({"faults": (Fault(SET, NO_PERMISSION),)}, BOTH, r"clock_mhz 1005: no_permission"),
        ({"faults": (Fault(LOCK, NO_PERMISSION),)}, BOTH, r"clock_mhz 1005: no_permission"),
    ],
)
def test_a_board_that_takes_something_else_is_a_wrong_setting_and_set_back(
    gpu_world: Callable[..., World], board: dict[str, Any], asked: GpuSpec, said: str
) -> None:
    there = gpu_world({}, board)
    settings = GpuSettings(asked, there.uuids)
    with pytest.raises(WrongSetting, match=said):
        settings.apply()
    settings.close()
    assert there.notes() == []
    assert all(b.power_limit_w in (None, 700.0) for b in there.boards)
    assert all(b.locked_mhz is None for b in there.boards)


def test_another_launch_waits_for_a_gpu_but_not_for_others(
    gpu_world: Callable[..., World], ended: list[subprocess.Popen[bytes]]
) -> None:
    there = gpu_world({}, {})
    first, second = there.uuids
    ended.append(there.owner(first, power_limit_w=300.0))
    aside = GpuSettings(GpuSpec(power_limit_w=500.0), [second])
    aside.apply()
    assert [board.power_limit_w for board in there.boards] == [300.0, 500.0]
    aside.close()
    waiting = subprocess.Popen(
        [sys.executable, "-c", OWNER, '{"power_limit_w": 600}', first], stdout=subprocess.PIPE
    )
    ended.append(waiting)
    time.sleep(1.0)
    assert there.boards[0].power_limit_w == 300.0
    ended[0].kill()
    assert waiting.stdout is not None
    assert waiting.stdout.readline() == b"set\n"
    assert there.boards[0].power_limit_w == 600.0
    waiting.kill()
    # Not 300, which the second launch would have found if it had not waited.
    assert until(lambda: there.boards[0].power_limit_w == 700.0)


def test_what_a_killed_guardian_leaves_the_next_launch_sets_back(
    gpu_world: Callable[..., World], ended: list[subprocess.Popen[bytes]]
) -> None:
    there = gpu_world({})
    before = guardians()
    ended.append(there.owner(*there.uuids, power_limit_w=300.0, clock_mhz=900))
    for pid in guardians() - before:
        os.kill(pid, signal.SIGKILL)
    ended[0].kill()
    assert until(lambda: not guardians() - before)
    assert there.boards[0].power_limit_w == 300.0
    assert there.notes() == list(there.uuids)
    settings = GpuSettings(GpuSpec(power_limit_w=500.0), there.uuids)
    told = settings.apply()
    [uuid] = there.uuids
    assert told["left_behind"] == {uuid: {"power_limit_w": 700.0, "clock_mhz": None}}
    assert told["found"] == {uuid: {"power_limit_w": 700.0}}
    assert there.boards[0].locked_mhz is None
    settings.close()
    assert there.boards[0].power_limit_w == 700.0
    assert there.notes() == []


def test_a_board_that_cannot_be_set_back_is_told_of_and_noted(
    gpu_world: Callable[..., World],
) -> None:
    there = gpu_world({"faults": (Fault(SET, NO_PERMISSION, from_s=2.0),)})
    settings = GpuSettings(GpuSpec(power_limit_w=400.0), there.uuids)
    settings.apply()
    time.sleep(2.0)
    with pytest.raises(EngineError, match=r"not restored: GPU-.*no_permission"):
        settings.close()
    assert there.notes() == list(there.uuids)
    there.forget()


def test_a_gpu_that_is_not_there_is_for_another_launch(gpu_world: Callable[..., World]) -> None:
    gpu_world({})
    settings = GpuSettings(BOTH, ["GPU-nowhere"])
    with pytest.raises(MeterError) as error:
        settings.apply()
    assert error.value.code == "device_unknown"
    settings.close()
