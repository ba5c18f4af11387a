"""A study typed again: what stands, which attempt it is, and an end that takes too long."""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sweeper.cluster.attempts import next_attempt
from sweeper.driver import Options, taken_back
from sweeper.errors import JournalError
from sweeper.plan import plan
from sweeper.results.contents import Contents
from sweeper.spec import Trial
from tests.records import make_record
from tests.studies import one_trial, simulated

OLD = {"versions": {"torch": "1.0"}, "drivers": ["580"], "gpu_models": ["H200"]}
NEW = {"versions": {"torch": "2.0"}, "drivers": ["580"], "gpu_models": ["H200"]}
OK = make_record(id="a", status="ok")
NO_ENERGY = make_record(id="b", status="energy_invalid")
FAILED = make_record(id="c", status="failed")


def again(environment: Mapping[str, Any], **options: Any) -> list[str]:
    before = Contents(records=(OK, NO_ENERGY, FAILED), sittings=({"environment": OLD},))
    folder = Path("mlruns/studies/x")
    given = Options(root=Path("mlruns"), **options)
    return [record.id for record in taken_back(before, dict(environment), folder, given)]


def test_in_the_same_environment_verdicts_stand_unless_they_are_asked_for() -> None:
    assert again(OLD) == []
    assert again(OLD, changed="remeasure") == []
    assert again(OLD, retry="energy_invalid") == ["b"]
    assert again(OLD, retry="failed") == []


def test_another_environment_stops_and_says_what_changed() -> None:
    with pytest.raises(JournalError, match=r"torch 1\.0 -> 2\.0.*--remeasure.*--mix"):
        again(NEW)
    assert again(NEW, changed="mix") == []
    assert again(NEW, changed="mix", retry="energy_invalid") == ["b"]
    assert again(NEW, changed="remeasure") == ["a", "b"]


def test_an_environment_without_verdicts_may_change() -> None:
    before = Contents(records=(FAILED,), sittings=({"environment": OLD},))
    assert taken_back(before, dict(NEW), Path("x"), Options(root=Path("mlruns"))) == []


def line(trial: Trial, attempt: int, point: int | None = None) -> dict[str, Any]:
    [launch] = trial.launches
    told: dict[str, Any] = {"trial_id": trial.id, "attempt": attempt}
    if point is not None:
        told |= {"id": launch.points[point].id, "launch": launch.number, "stage": launch.stage}
    return told


def test_no_attempt_comes_twice() -> None:
    trial = one_trial(simulated(batch_sizes=(1, 2)))
    [launch] = trial.launches
    assert next_attempt(trial, Contents()) == 0
    assert next_attempt(trial, Contents(trials=(line(trial, 0),))) == 1
    assert next_attempt(trial, Contents(windows=(line(trial, 3, point=1),))) == 4
    record = make_record(id=launch.points[0].id, status="failed", attempt=1)
    told = Contents(records=(record,), trials=(line(trial, 0), line(trial, 1)))
    assert next_attempt(trial, told) == 2


def test_attempts_of_other_points_and_launches_do_not_count() -> None:
    study = simulated(batch_sizes=(1, 2))
    trial = one_trial(study)
    first = trial.launches[0].points[0]
    [rest] = plan(study, done={(first.id, 0, "full")}).trials
    told = Contents(windows=(line(trial, 5, point=0), {**line(trial, 7, point=1), "launch": 1}))
    assert rest.id != trial.id
    assert next_attempt(rest, told) == 0
    assert next_attempt(trial, told) == 6


STUCK = """
import signal, time
from sweeper.interrupts import Interrupts
interrupts = Interrupts("so long", patience_s=0.2)
interrupts.listen()
signal.raise_signal({number})
assert interrupts.is_set()
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_end_that_takes_too_long_is_made_all_the_same(number: int) -> None:
    code = STUCK.format(number=int(number))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=50, check=False
    )
    assert done.returncode == 130
    assert done.stderr.decode() == "so long\n"
