"""The sampler of power: on its grid, deaf to Ctrl-C, gone with its parent; what it says it took."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.meters.sampler import PERIOD_S, next_due_s
from sweeper.meters.trace import PowerTrace
from tests.nvml_standin import Gpu, Scenario, environment

pytest_plugins = ("tests.nvml_standin.fixtures",)

Enter = Callable[[Scenario], Scenario]
HEAVY = {"hypothesis", "numpy", "omegaconf", "pyarrow", "ray", "torch", "yaml"}


@given(st.floats(0, 1e6), st.floats(0, 1e4))
def test_samples_are_due_on_the_grid_and_never_in_the_past(due_s: float, late_s: float) -> None:
    now_s = due_s + late_s
    after_s = next_due_s(due_s, now_s)
    places = (after_s - due_s) / PERIOD_S
    assert places == pytest.approx(round(places), abs=1e-4)
    assert round(places) >= 1
    assert now_s - 1e-6 <= after_s <= max(now_s, due_s) + PERIOD_S + 1e-6


def test_the_sampler_starts_without_what_is_heavy() -> None:
    code = "import sys, sweeper.meters.sampler; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.nvml
def test_the_trace_knows_what_its_sampler_took(nvml_world: Enter) -> None:
    nvml_world(Scenario(gpus=tuple(Gpu(uuid=f"GPU-{number}") for number in range(8))))
    trace = PowerTrace([f"GPU-{number}" for number in range(8)])
    trace.start()
    assert trace._process is not None
    trace._process.send_signal(signal.SIGINT)
    began_s = time.monotonic()
    until_s = began_s + 30
    while len(trace.samples()) < 8 * 15 and time.monotonic() < until_s:
        time.sleep(0.05)
    running = trace.cost()
    trace.stop()
    cost, samples = trace.cost(), trace.samples()
    assert running is None
    assert cost is not None
    assert 0 < cost.cpu_s < cost.elapsed_s < time.monotonic() - began_s
    assert cost.share == cost.cpu_s / cost.elapsed_s
    times_s = [t_s for t_s, device, _ in samples if device == "GPU-0"]
    assert len(times_s) >= 15
    assert len(samples) == 8 * len(times_s)
    early = sum((t_s - times_s[0]) % PERIOD_S < PERIOD_S / 4 for t_s in times_s)
    assert early > len(times_s) / 2, "late samples are late against the grid, which stays"


@pytest.mark.nvml
def test_a_sampler_that_was_killed_leaves_no_cost(nvml_world: Enter) -> None:
    nvml_world(Scenario(gpus=(Gpu(uuid="GPU-a"),)))
    trace = PowerTrace(["GPU-a"])
    trace.start()
    assert trace._process is not None
    trace._process.kill()
    trace.stop()
    assert trace.cost() is None


@pytest.fixture
def sampler(nvml_library: Path, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    scenario = Scenario(gpus=(Gpu(uuid="GPU-a"),)).write(tmp_path / "scenario.txt")
    process = subprocess.Popen(
        [sys.executable, "-m", "sweeper.meters.sampler", "GPU-a"],
        env=environment(nvml_library, scenario, os.environ)
        | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


@pytest.mark.nvml
def test_the_sampler_ends_with_the_process_that_started_it(
    sampler: subprocess.Popen[str],
) -> None:
    assert sampler.stdout is not None
    assert sampler.stdin is not None
    t_s, place, watts = sampler.stdout.readline().split()
    assert (place, float(watts)) == ("0", 300.0)
    assert float(t_s) <= time.monotonic()
    sampler.send_signal(signal.SIGINT)
    assert sampler.stdout.readline()
    sampler.stdin.close()
    assert sampler.wait(timeout=30) == 0
    sampler.stdin = None


START_AND_WAIT = """
import sys, time
from sweeper.meters.trace import PowerTrace
trace = PowerTrace(["GPU-a"])
trace.start()
while not trace.samples():
    time.sleep(0.05)
print(trace._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.nvml
def test_the_sampler_does_not_outlive_a_killed_meter(nvml_library: Path, tmp_path: Path) -> None:
    scenario = Scenario(gpus=(Gpu(uuid="GPU-a"),)).write(tmp_path / "scenario.txt")
    meter = subprocess.Popen(
        [sys.executable, "-c", START_AND_WAIT],
        env=environment(nvml_library, scenario, os.environ)
        | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert meter.stdout is not None
    sampler_pid = int(meter.stdout.readline())
    assert _lives(sampler_pid)
    meter.kill()
    meter.communicate()
    until_s = time.monotonic() + 30
    while _lives(sampler_pid) and time.monotonic() < until_s:
        time.sleep(0.05)
    assert not _lives(sampler_pid)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
