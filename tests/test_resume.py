"""Studies that are killed, interrupted and typed again, by the real command on Ray of its own."""

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeper.results.contents import Contents
from tests.commands import Carrier, Command, of_lease, until
from tests.studies import write

pytestmark = pytest.mark.ray

Condition = Callable[[Contents], bool]
OPTIONS = "{{isolated: true, helpers: 2, time_scale: {}, load_s: 1}}"
"""An engine in a process of its own, with children and grandchildren."""


@pytest.fixture(autouse=True)
def _no_command_left() -> Iterator[None]:
    yield
    Command.kill_all()


def assert_each_measured_once(command: Command, points: int) -> None:
    """One accepted record per key, nothing measured of a point that has one, no attempt twice."""
    verdicts: Counter[tuple[str, int, str]] = Counter()
    leases: Counter[tuple[str, int]] = Counter()
    for line in map(json.loads, command.journal_path.read_text().splitlines()):
        if line["kind"] in ("window", "record"):
            key = (line["id"], line["launch"], line["stage"])
            assert verdicts[key] == 0, line
            verdicts[key] += line["kind"] == "record" and line["status"] != "failed"
        elif line["kind"] == "trial":
            leases[line["trial_id"], line["attempt"]] += 1
    assert len(verdicts) == points
    assert set(verdicts.values()) == set(leases.values()) == {1}


def working_engine(command: Command) -> Carrier:
    """The one engine process, with all that it starts."""
    [engine] = command.engines()
    assert len(of_lease(engine)) >= 5  # the engine, two helpers, a child of each
    return engine


def assert_nobody_survives_a_kill(command: Command) -> None:
    """The engine and what it started are gone after 30 s, Ray after 90."""
    engine = working_engine(command)
    command.kill()
    assert until(lambda: of_lease(engine) == [], 30), of_lease(engine)
    assert until(lambda: command.left() == [], 60), command.left()


def assert_ctrl_c_ends_it_in_order(command: Command) -> None:
    """It says how to go on, and leaves nobody behind."""
    engine = working_engine(command)
    command.signal(signal.SIGINT)
    assert command.wait() == 130, command.err
    assert of_lease(engine) == []
    assert command.left() == []
    told = (command.out + command.err).strip().splitlines()[-1]
    assert told == f"interrupted; go on with: python -m sweeper {command.study.name}"


def records(least: int) -> Condition:
    return lambda journal: len(journal.records) >= least


def windows(least: int) -> Condition:
    return lambda journal: len(journal.windows) >= least


def test_a_study_interrupted_and_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    study = write(tmp_path, name="stopped", options=OPTIONS.format(0.2), batch_sizes="[1, 2, 4]")
    command = Command(study)
    assert command.reaches(lambda journal: journal.sittings != ()), command.err
    second = Command(study)
    assert second.wait() == 2
    assert f"is being written by process {command.process.pid} " in second.err
    assert second.left() == []
    assert command.reaches(windows(1)), command.err
    assert_ctrl_c_ends_it_in_order(command)

    command = Command(study)
    assert command.reaches(records(1)), command.err
    assert_nobody_survives_a_kill(command)
    kept = command.journal.records

    command = Command(study, "--json")
    assert command.wait() == 0, command.err
    assert command.left() == []
    told = json.loads(command.out)
    assert (told["study"], told["points"], told["ok"], told["failed"]) == ("stopped", 3, 3, 0)
    assert f"{len(kept)} measured before" in command.err
    assert command.journal.records[: len(kept)] == kept
    assert_each_measured_once(command, 3)


@pytest.mark.slow
def test_a_study_killed_twice_in_real_time_goes_on_where_it_was(tmp_path: Path) -> None:
    study = write(tmp_path, name="killed", options=OPTIONS.format(1), batch_sizes="[1, 2, 4]")
    for condition in (windows(2), records(1)):
        command = Command(study)
        assert command.reaches(condition), command.err
        assert_nobody_survives_a_kill(command)
    command = Command(study)
    assert command.wait() == 0, command.err
    assert command.left() == []
    assert_each_measured_once(command, 3)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [False, True])
def test_an_interrupted_study_leaves_nobody_and_goes_on(
    tmp_path: Path, number: int, whole_group: bool
) -> None:
    study = write(tmp_path, name="stopped", options=OPTIONS.format(0.2))
    command = Command(study)
    assert command.reaches(windows(1)), command.err
    engine = working_engine(command)
    if whole_group:
        command.signal_group(number)
    else:
        command.signal(number)
    assert command.wait() == 130, command.err
    assert until(lambda: of_lease(engine) == [] and command.left() == [], 5), command.left()
    assert "interrupted; go on with: python -m sweeper stopped.yaml" in command.out + command.err
    command = Command(study)
    assert command.wait() == 0, command.err
    assert_each_measured_once(command, 2)


@pytest.mark.slow
def test_a_study_whose_own_ray_dies_says_so_and_goes_on(tmp_path: Path) -> None:
    study = write(tmp_path, name="orphaned", options=OPTIONS.format(0.2))
    command = Command(study)
    assert command.reaches(windows(1)), command.err
    engine = working_engine(command)
    [raylet] = [each for each in command.left() if each.command.split()[0].endswith("/raylet")]
    os.kill(raylet.pid, signal.SIGKILL)
    assert until(lambda: of_lease(engine) == [], 30)
    assert command.wait() == 1
    assert "Ray, which was started here, has died" in command.err
    assert command.left() == []
    assert command.journal.records == ()
    command = Command(study)
    assert command.wait() == 0, command.err
    assert_each_measured_once(command, 2)
