"""GPUs are set back whoever is killed, and whenever: a trial's child, its lease, the driver."""

import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.boards import World, until
from tests.commands import Command
from tests.gpu_lease import LIMIT_W, MHZ
from tests.nvml_standin import Gpu, Scenario, environment

pytestmark = [pytest.mark.nvml, pytest.mark.process]
pytest_plugins = ("tests.nvml_standin.fixtures",)

LATEST_S = 9.0
"""A GPU is set some 3 s after its lease starts, and would be set back after 35."""
RESTORED_S = 30.0
LEFT_S = 2.0
"""Whoever would still set a GPU after a kill has done so."""
STUDY = """\
name: set
model: {{shape: tiny, weights: dummy}}
engine: {{kind: simulated, options: {{isolated: true, load_s: 0.5, helpers: 1}}}}
workload: {{input_tokens: 32, output_tokens: 8, batching: static, batch_size: 2}}
measure: {{warmup: {{min_batches: 1, max_batches: 2}}, min_window_s: 5, repeats: {repeats}}}
meter: nvml
gpu: {{clock_mhz: {mhz}}}
axes: {{gpu.power_limit_w: {limits}}}
cluster: {{address: local}}
"""


def kill_all_of(
    there: World, folder: Path, victims: list[str], rng: random.Random
) -> Mapping[str, int]:
    """One lease on each GPU at once, and one process of each killed; how many were set by then."""
    running = []
    for uuid, victim in zip(there.uuids, victims, strict=True):
        place = folder / secrets.token_hex(4)
        command = [sys.executable, "-m", "tests.gpu_lease", str(place), uuid]
        lease = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert lease.stdout is not None
        child = int(lease.stdout.readline())
        running.append((rng.uniform(0.0, LATEST_S), lease, child, victim))
    in_force = dict.fromkeys(("child", "lease"), 0)
    began_s = time.monotonic()
    places = {id(lease): number for number, (_, lease, _, _) in enumerate(running)}
    for at_s, lease, child, victim in sorted(running, key=lambda each: each[0]):
        time.sleep(max(0.0, began_s + at_s - time.monotonic()))
        board = there.boards[places[id(lease)]]
        in_force[victim] += (board.power_limit_w, board.locked_mhz) == (LIMIT_W, (MHZ, MHZ))
        os.kill(child if victim == "child" else lease.pid, signal.SIGKILL)
    try:
        assert until(lambda: all_restored(there), RESTORED_S), there.boards
        for _, lease, _, _ in running:
            lease.wait(RESTORED_S)
        assert until(lambda: not there.notes(), RESTORED_S)
        time.sleep(LEFT_S)
        assert all_restored(there), there.boards
    finally:
        for _, lease, _, _ in running:
            lease.kill()
            lease.communicate()
    return in_force


def all_restored(there: World) -> bool:
    return all(
        board.power_limit_w in (None, 700.0) and board.locked_mhz is None for board in there.boards
    )


@pytest.mark.parametrize(
    ("rounds", "each"),
    [(1, 3), pytest.param(5, 4, marks=[pytest.mark.slow, pytest.mark.timeout(600)])],
)
def test_a_trial_that_is_killed_leaves_its_gpus_as_they_were(
    gpu_world: Callable[..., World], tmp_path: Path, rounds: int, each: int
) -> None:
    rng, struck = random.Random(11), 0
    for _ in range(rounds):
        there = gpu_world(*[{}] * (2 * each))
        found = kill_all_of(there, tmp_path, ["child", "lease"] * each, rng)
        struck += sum(found.values())
    # Kills before anything is set prove nothing.
    assert struck >= rounds * each / 2


def command_in(
    nvml_library: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, limits: str, repeats: int
) -> tuple[World, Command]:
    """The real command on Ray of its own, on two GPUs."""
    folder.mkdir(exist_ok=True)
    gpus = tuple(
        Gpu(uuid=f"GPU-{secrets.token_hex(6)}", pci=f"00000000:{place + 1:02X}:00.0")
        for place in range(2)
    )
    path = Scenario(gpus=gpus).write(folder / "scenario.txt")
    for name, value in environment(nvml_library, path, os.environ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    study = folder / "set.yaml"
    study.write_text(STUDY.format(mhz=MHZ, limits=limits, repeats=repeats))
    return World(path, gpus), Command(study, "--json")


@pytest.mark.ray
@pytest.mark.parametrize(
    "kills", [1, pytest.param(10, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_a_driver_that_is_killed_leaves_the_gpus_as_they_were(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kills: int
) -> None:
    rng = random.Random(12)
    for number in range(kills):
        folder = tmp_path / str(number)
        there, command = command_in(nvml_library, folder, monkeypatch, "[300, 400]", repeats=3)
        try:
            kill_once_set(there, command, rng.uniform(0.0, 5.0))
        finally:
            Command.kill_all()


def kill_once_set(there: World, command: Command, later_s: float) -> None:
    assert until(lambda: bool({300.0, 400.0} & limits_of(there)), 120.0), command.err
    time.sleep(later_s)
    command.kill()
    assert until(lambda: all_restored(there) and not there.notes(), 60.0), there.boards
    time.sleep(LEFT_S)
    assert all_restored(there)


def limits_of(there: World) -> set[float | None]:
    return {board.power_limit_w for board in there.boards}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_study_of_power_limits_is_measured_and_refused(
    nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, command = command_in(nvml_library, tmp_path, monkeypatch, "[300, 400]", repeats=1)
    assert command.wait(300.0) == 0, command.err
    records = {record.config["gpu.power_limit_w"]: record for record in command.journal.standing()}
    assert set(records) == {300.0, 400.0}
    for watts, record in records.items():
        [force] = record.environment["gpu_settings"]["in_force"].values()
        assert (record.status, force["power_limit_w"]) == ("ok", watts)
    assert "300" in command.out
    assert all_restored(there)
    again, refused = command_in(nvml_library, tmp_path, monkeypatch, "[100, 300]", repeats=1)
    assert refused.wait(100.0) == 2
    assert "gpu.power_limit_w: 100 W; NVIDIA H200 takes 200 to 700 W" in refused.err
    assert all(board.locked_mhz is None for board in again.boards)
