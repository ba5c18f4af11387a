"""Real engines that are stopped or killed in mid-window cost one launch; the next one goes on."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeper.spec import EngineKind, EngineSpec, Study
from sweeper.trial.assignment import Assignment
from sweeper.trial.guardian import members, processes
from sweeper.trial.process import ProcessLaunch
from tests.studies import one_trial, simulated

pytestmark = [
    pytest.mark.engine,
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.timeout(400),
]

SILENCE_S = 8.0
LIMIT_S = 240.0
Victim = Callable[[ProcessLaunch], int]


def study(kind: EngineKind) -> Study:
    plain = simulated(batch_sizes=(2,))
    engine = EngineSpec(kind=kind, dtype="float32", compile=False, graphs=False)
    measure = replace(plain.settings.measure, repeats=1)
    return replace(plain, settings=replace(plain.settings, engine=engine, measure=measure))


def launch_of(kind: EngineKind, folder: Path) -> ProcessLaunch:
    asked = study(kind)
    assignment = Assignment(
        launch=one_trial(asked).launches[0],
        study=asked.name,
        trial_id="t",
        attempt=0,
        devices=(),
        place={"node_id": "n", "host": "h"},
    )
    return ProcessLaunch(assignment, folder, silence_limit_s=SILENCE_S)


def run(launch: ProcessLaunch, in_window: Callable[[], None] = lambda: None) -> list[Any]:
    """All events; `in_window` is called once, half a second into the first window."""
    events: list[Any] = []
    struck = False
    deadline_s = time.monotonic() + LIMIT_S
    launch.start()
    try:
        while not launch.finished:
            assert time.monotonic() < deadline_s, events[-3:]
            told = launch.events(0.2)
            launch.kept(told)
            events += told
            if not struck and any(e["kind"] == "phase" and e["phase"] == "window" for e in told):
                struck = True
                time.sleep(0.5)
                in_window()
    finally:
        launch.kill()
    assert struck
    return events


def engine_core(launch: ProcessLaunch) -> int:
    family = psutil.Process(launch.pid).children(recursive=True)
    [core] = [each for each in family if "EngineCore" in each.name()]
    return int(core.pid)


def child(launch: ProcessLaunch) -> int:
    return launch.pid


@pytest.mark.parametrize(
    ("kind", "victim", "number", "reason", "again"),
    [
        ("vllm", engine_core, signal.SIGSTOP, "hang: no step for", True),
        # vLLM's client goes on waiting for a core that is gone without a word.
        ("vllm", engine_core, signal.SIGKILL, "hang: no step for", False),
        ("transformers", child, signal.SIGSTOP, "hang: no step for", False),
        ("transformers", child, signal.SIGKILL, "died: the engine process ended with", True),
    ],
)
def test_an_engine_that_is_struck_in_mid_window_costs_one_launch(
    tmp_path: Path, kind: EngineKind, victim: Victim, number: int, reason: str, again: bool
) -> None:
    launch = launch_of(kind, tmp_path)
    began_s = 0.0

    def strike() -> None:
        nonlocal began_s
        began_s = time.monotonic()
        os.kill(victim(launch), number)

    death = run(launch, strike)[-1]
    assert time.monotonic() - began_s < 60.0
    assert death["kind"] == "death"
    assert death["reason"].startswith(reason), death
    assert (death["phase"], death["point"] is not None) == ("window", True)
    assert members(processes(), launch.token) == []
    if not again:
        return
    after = launch_of(kind, tmp_path)
    [record] = [event for event in run(after) if event["kind"] == "record"]
    assert record["status"] == "ok", record["reason"]
    assert members(processes(), after.token) == []
