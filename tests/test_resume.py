"""Studies that are killed, interrupted and typed again, by the real command on Ray of its own."""

import json
import signal
from collections import Counter
from pathlib import Path

import pytest
from commands import Command, of_lease, until
from studies import write

from sweeper.results.contents import Contents

pytestmark = pytest.mark.ray

OPTIONS = "{isolated: true, helpers: 2, time_scale: 0.2, load_s: 1}"
"""A child with grandchildren, at a fifth of real time."""


def assert_each_measured_once(command: Command, points: int) -> None:
    """One accepted record per key, and nothing measured of a point that has one."""
    verdicts: Counter[tuple[str, int, str]] = Counter()
    for line in map(json.loads, command.journal_path.read_text().splitlines()):
        if line["kind"] in ("window", "record"):
            key = (line["id"], line["launch"], line["stage"])
            assert verdicts[key] == 0, line
            verdicts[key] += line["kind"] == "record" and line["status"] != "failed"
    assert len(verdicts) == points
    assert set(verdicts.values()) == {1}


def assert_nobody_survives(command: Command) -> None:
    """The engines and what they started are gone after 30 s, Ray after 90."""
    [engine] = command.engines()
    assert len(of_lease(engine)) >= 5  # the engine, two helpers, a child of each
    command.kill()
    assert until(lambda: of_lease(engine) == [], 30), of_lease(engine)
    assert until(lambda: command.left() == [], 60), command.left()


def test_a_study_killed_twice_goes_on_where_it_was(tmp_path: Path) -> None:
    study = write(tmp_path, name="killed", options=OPTIONS, batch_sizes="[1, 2, 4]")
    for windows in (1, 4):
        command = Command(study)
        assert command.reaches(lambda journal: len(journal.windows) >= windows), command.err
        assert_nobody_survives(command)
    command = Command(study)
    assert command.wait() == 0, command.err
    assert command.left() == []
    assert_each_measured_once(command, 3)
    print(command.out)
    print(command.journal_path.read_text()[-300:])
