import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sweeper.engines.simulated_options import of_launch
from sweeper.errors import EngineError
from sweeper.spec import Settings
from tests.simulated import asked, endless, loaded, requests

pytestmark = pytest.mark.process

REPOSITORY = Path(__file__).parent.parent


def batches_until_failure(of: Settings, batch: int) -> int:
    engine = loaded(of)
    for count in range(10):
        try:
            list(engine.generate(requests(batch), asked(batch)))
        except EngineError:
            return count
    return -1


@pytest.mark.parametrize(
    ("fail", "batch", "expected"),
    [
        ({"kind": "error", "at": "warmup"}, 4, 0),
        ({"kind": "error", "at": "window"}, 4, 4),
        ({"kind": "error"}, 4, 4),
        ({"kind": "oom", "at": "window", "batch_size": 4}, 4, 4),
        ({"kind": "error", "at": "window", "batch_size": 8}, 4, -1),
        ({"kind": "crash", "at": "window", "attempts": 1}, 4, 4),
    ],
)
def test_a_failure_comes_when_it_was_asked_for(
    fail: dict[str, object], batch: int, expected: int
) -> None:
    assert batches_until_failure(asked(batch, fail=fail), batch) == expected


def test_a_failure_comes_in_as_many_attempts_as_were_asked_for() -> None:
    of = asked(fail={"kind": "error", "at": "load", "attempts": 2})
    for attempt in (0, 1):
        with pytest.raises(EngineError, match="at load"):
            loaded(of_launch(of, 0, attempt))
    assert loaded(of_launch(of, 0, 2)).progress() == 0


def test_a_stream_fails_once_its_warm_up_is_over() -> None:
    of = asked(4, fail={"kind": "error", "at": "window"})
    stream = loaded(of).serve(endless(), 4, of)
    finished = 0
    while finished < 16:
        finished += next(stream).kind == "finished"
    with pytest.raises(EngineError, match=r"at window, as engine\.options\.fail asks"):
        next(stream)


CHILD = """
from sweeper.clocks import clock_for
from sweeper.engines.simulated import SimulatedEngine
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes
options = {"isolated": True, "helpers": 2, "fail": {"kind": "%s", "at": "%s"}}
settings = Settings(
    model=ModelSpec(shape="tiny"), engine=EngineSpec(kind="simulated", options=options)
)
assert SimulatedEngine.isolated(settings)
sizes = Sizes(max_model_len=16, max_batch_size=1, batch_sizes=(1,))
engine = SimulatedEngine(settings, sizes, [], clock_for(settings))
try:
    engine.load()
    print("loaded", flush=True)
    input()
finally:
    engine.close()
"""


def child(kind: str, at: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD % (kind, at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        process_group=0,
    )


def group(of: int) -> list[int]:
    """Processes alive in a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after[2]) == of and after[0] != "Z":
                found.append(int(entry.name))
    return found


def await_group(of: int, count: int) -> None:
    """Processes start and end a moment after they are told to."""
    deadline_s = time.monotonic() + 30.0
    while len(group(of)) != count:
        assert time.monotonic() < deadline_s, f"{group(of)}, not {count} processes"
        time.sleep(0.01)


def test_helpers_are_processes_with_their_own_and_close_ends_them() -> None:
    with child("error", "window") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
        await_group(process.pid, 5)
        process.communicate("go\n", timeout=30)
    assert process.returncode == 0
    await_group(process.pid, 0)


def test_an_isolated_engine_crashes_for_real_and_leaves_its_helpers() -> None:
    with child("crash", "load") as process:
        assert process.wait(timeout=30) == -signal.SIGKILL
    await_group(process.pid, 4)
    os.killpg(process.pid, signal.SIGKILL)
    await_group(process.pid, 0)


def test_a_hanging_engine_hangs_until_it_is_killed() -> None:
    with child("hang", "load") as process:
        await_group(process.pid, 5)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        os.killpg(process.pid, signal.SIGKILL)
    await_group(process.pid, 0)
