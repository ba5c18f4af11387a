"""The guardian against real process trees: setsid, reparenting, owners that die or fall silent."""

import json
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

from sweeper.trial import guardian
from sweeper.trial.guardian import VARIABLE, Guardian, Process, members, processes

pytestmark = pytest.mark.process

# A child whose grandchild leaves its session and is given to init; it writes all three ids.
TREE = """
import json, os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
middle = (
    "import subprocess, sys;"
    "p = subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=subprocess.DEVNULL);"
    "print(p.pid)"
)
orphan = int(subprocess.run([sys.executable, "-c", middle, *sleeper],
             stdout=subprocess.PIPE, check=True).stdout)
bare = subprocess.Popen(sleeper, env={}, start_new_session=True)
with open(sys.argv[1] + ".part", "w") as file:
    json.dump([os.getpid(), orphan, bare.pid], file)
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""

OWNER = """
import subprocess, sys, time
from sweeper.trial.guardian import Guardian
keeper = Guardian(lease_s=float(sys.argv[3]) if sys.argv[3] else None)
keeper.start()
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2]], env=keeper.environment())
time.sleep(600)
"""


def alive(pid: int) -> bool:
    return any(process.pid == pid for process in processes())


def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def read_tree(file: Path) -> list[int]:
    assert until(file.exists)
    tree: list[int] = json.loads(file.read_text())
    assert all(alive(pid) for pid in tree)
    return tree


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for process in running:
        process.kill()
        process.wait()


def test_release_kills_every_leftover(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    file = tmp_path / "tree"
    with Guardian() as keeper:
        child = subprocess.Popen([sys.executable, "-c", TREE, str(file)], env=keeper.environment())
        started.append(child)
        tree = read_tree(file)
        assert keeper.alive
        assert keeper.renew()
    assert [pid for pid in tree if alive(pid)] == []
    assert not keeper.alive
    assert not keeper.renew()
    keeper.release()
    assert child.wait() == -signal.SIGKILL


@pytest.mark.parametrize("lease", ["", "600"])
def test_owner_killed(tmp_path: Path, started: list[subprocess.Popen[bytes]], lease: str) -> None:
    file = tmp_path / "tree"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, TREE, str(file), lease])
    started.append(owner)
    tree = read_tree(file)
    owner.kill()
    owner.wait()
    assert until(lambda: not any(alive(pid) for pid in tree))


def test_silent_owner_loses_its_lease_and_lives(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    file = tmp_path / "tree"
    owner = subprocess.Popen([sys.executable, "-c", OWNER, TREE, str(file), "2.5"])
    started.append(owner)
    tree = read_tree(file)
    assert until(lambda: not any(alive(pid) for pid in tree))
    assert owner.poll() is None


def test_renewal_keeps_the_lease(started: list[subprocess.Popen[bytes]]) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    with Guardian(lease_s=1.0) as keeper:
        child = subprocess.Popen(sleeper, env=keeper.environment())
        started.append(child)
        for _ in range(15):
            assert keeper.renew()
            time.sleep(0.1)
        assert child.poll() is None
        assert until(lambda: child.poll() is not None)
        assert until(lambda: not keeper.alive)
    assert not keeper.renew()


def test_who_was_looked_at_is_known_without_token_and_parent(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    file = tmp_path / "tree"
    with Guardian() as keeper:
        command = [sys.executable, "-c", TREE, str(file)]
        child = subprocess.Popen(command, env=keeper.environment())
        started.append(child)
        *_, bare = read_tree(file)
        keeper.look()
        assert keeper.renew()
        time.sleep(1.0)  # the guardian answers nothing
        child.kill()
        child.wait()
        assert alive(bare)
    assert until(lambda: not alive(bare))


def test_the_token_stands_at_the_end_of_the_environment() -> None:
    environment = Guardian("inner").environment({VARIABLE: "outer", "A": "1", "B": "2"})
    assert list(environment.items())[-1] == (VARIABLE, "outer:inner")


def test_nested_leases_both_reach_a_process() -> None:
    outer, inner = Guardian("outer"), Guardian("inner")
    environment = inner.environment(outer.environment({}))
    assert set(environment[VARIABLE].split(":")) >= {"outer", "inner"}
    with inner:
        child = subprocess.Popen(["sleep", "600"], env=environment)
        assert until(lambda: any(p.pid == child.pid and p.tokens for p in processes()))
        assert guardian.kill_members("outer") == 1
        assert child.wait() == -signal.SIGKILL


def test_a_prefix_of_a_token_is_another_token() -> None:
    child = subprocess.Popen(["sleep", "600"], env={VARIABLE: "abcd:efgh"})
    try:
        assert until(lambda: any(p.pid == child.pid and "efgh" in p.tokens for p in processes()))
        assert guardian.kill_members("abc") == 0
        assert child.poll() is None
        assert guardian.kill_members("abcd", frozenset({child.pid})) == 0
    finally:
        child.kill()
        child.wait()


def test_the_guardian_itself_and_this_process_are_spared(monkeypatch: pytest.MonkeyPatch) -> None:
    with Guardian() as keeper:
        monkeypatch.setenv(VARIABLE, keeper.token)
    assert alive(os.getpid())


def test_a_reused_id_is_not_killed() -> None:
    child = subprocess.Popen(["sleep", "600"])
    try:
        assert not guardian._kill(Process(child.pid, os.getpid(), 1, frozenset()))
        assert child.poll() is None
    finally:
        child.kill()
        child.wait()


@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=12),
    st.frozensets(st.integers(1, 12), max_size=3),
)
def test_members_are_exactly_the_reachable(
    rows: list[tuple[int, bool]], spared: frozenset[int]
) -> None:
    table = [
        Process(pid, parent, 0, frozenset({"t"} if carries else ()))
        for pid, (parent, carries) in enumerate(rows, start=1)
    ]
    by_pid = {process.pid: process for process in table}

    def belongs(pid: int, seen: tuple[int, ...] = ()) -> bool:
        if pid not in by_pid or pid in spared or pid in seen:
            return False
        process = by_pid[pid]
        return "t" in process.tokens or belongs(process.parent, (*seen, pid))

    expected = {pid for pid in by_pid if belongs(pid)}
    assert {process.pid for process in members(table, "t", spared)} == expected
