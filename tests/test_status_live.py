"""A study under way, seen from another terminal: the real commands, on Ray of their own."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeper.results.contents import FILE, read
from tests.commands import ROOT, Command, until
from tests.studies import write
from tests.terminal import CTRL_C, Terminal

pytestmark = pytest.mark.ray

SLOW = "{time_scale: 0.3, load_s: 1}"


def typed(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command that is waited for."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.run(
        [sys.executable, "-m", "sweeper", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def status(study: Path, *words: str) -> str:
    """What another process is told of a study."""
    ended = typed(study.parent, "status", *words)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def seen(study: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(status(study, study.name, "--json"))
    return found


def test_on_a_terminal_it_is_live_is_seen_from_another_and_ends_in_order(tmp_path: Path) -> None:
    study = write(tmp_path, name="watched", options=SLOW)
    terminal = Terminal("-m", "sweeper", study.name, cwd=tmp_path, columns=80, lines=24)
    journal = tmp_path / "mlruns" / "studies" / "watched" / FILE
    try:
        assert terminal.shows("window ", 150), terminal.text[-2000:]
        assert not terminal.cursor
        assert until(lambda: read(journal).windows != (), 60)
        # What others read is up to a second behind.
        assert until(lambda: seen(study)["left_s"] is not None, 60)
        found = seen(study)
        assert found["state"] == "running"
        assert re.match(rf"process {terminal.process.pid} on \S+ since 20", found["driver"])
        [launch] = found["under_way"]
        assert launch["phase"] in ("warm-up", "settle", "window")
        assert launch["point"].startswith("batch_size=")
        assert found["energy_j"].keys() == {"simulation"}
        assert found["left_s"] > 0
        terminal.type(CTRL_C)
        assert terminal.wait() == 130
    finally:
        terminal.close()
    assert terminal.cursor
    assert terminal.text.rstrip().endswith(
        "interrupted; go on with: python -m sweeper watched.yaml"
    )
    assert "Traceback" not in terminal.text
    found = seen(study)
    assert (found["state"], found["driver"]) == ("interrupted", None)


@pytest.mark.slow
def test_after_a_kill_it_says_how_to_go_on_and_after_the_end_where_answers_are(
    tmp_path: Path,
) -> None:
    study = write(tmp_path, name="killed", options=SLOW)
    command = Command(study)
    try:
        assert command.reaches(lambda journal: journal.windows != ()), command.err
        assert "is being measured by process" in status(study, study.name)
        command.signal(signal.SIGKILL)
        command.process.wait()
        assert "\x1b" not in command.out
        assert "loading on " in command.out
        told = status(study, "mlruns/studies/killed")
        assert "killed was interrupted: nobody is measuring it" in told
        assert "without 1 lease of unknown end" in told
        [words] = re.findall(r"go on with: python -m sweeper (\S+)", told)
        assert words == "mlruns/studies/killed"
    finally:
        command.kill()
    again = typed(tmp_path, words, "engine.options.time_scale=0", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["ok"] == 2
    assert "killed has ended\nkilled: 2 of 2 done" in status(study, words)
