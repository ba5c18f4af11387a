"""The real command in a process of its own, and the processes that come of it."""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, NamedTuple

from sweeper.results.contents import FILE, Contents, read
from sweeper.trial.guardian import VARIABLE, processes
from tests.verified import assert_verified

ROOT = Path(__file__).parents[1]
MARK = "SWEEPER_TEST_MARK"


class Command:
    """`python -m sweeper STUDY.yaml ...`, under way in the study's folder and a group of its own.

    Whatever it starts carries `mark` in its environment; a cluster it joins does not.
    """

    started: ClassVar[list["Command"]] = []

    def __init__(self, study: Path, *words: str) -> None:
        self.study = study
        self.mark = secrets.token_hex(8)
        self.journal_path = study.parent / "mlruns" / "studies" / study.stem / FILE
        self._files = [study.parent / f"{study.stem}.{self.mark}.{name}" for name in ("out", "err")]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), MARK: self.mark}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        out, err = (path.open("wb") for path in self._files)
        with out, err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sweeper", study.name, *words],
                cwd=study.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.started.append(self)

    @property
    def out(self) -> str:
        return self._files[0].read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._files[1].read_text(errors="replace")

    @property
    def journal(self) -> Contents:
        return read(self.journal_path) if self.journal_path.exists() else Contents()

    def wait(self, limit_s: float = 200.0) -> int:
        """Its exit status; it is killed when it takes longer. All that it kept is verified."""
        try:
            status = self.process.wait(limit_s)
        finally:
            self.kill()
        for journal in self.study.parent.glob(f"mlruns/studies/*/{FILE}"):
            assert_verified(journal.parent)
        return status

    def reaches(self, condition: Callable[[Contents], bool], limit_s: float = 150.0) -> bool:
        """Wait until the journal is so; false when the command ended before."""
        ended = until(
            lambda: self.process.poll() is not None or condition(self.journal), limit_s, 0.05
        )
        return ended and condition(self.journal)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """As a terminal does."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        """SIGKILL, as often as wanted."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @classmethod
    def kill_all(cls) -> None:
        """For the end of a test, however it ended."""
        while cls.started:
            cls.started.pop().kill()

    def left(self) -> list["Carrier"]:
        """All its processes that live, itself apart."""
        return [each for each in carriers(self.mark) if each.pid != self.process.pid]

    def engines(self) -> list["Carrier"]:
        """The engine processes among them, without those that they started."""
        return engines(self.mark)


class Carrier(NamedTuple):
    """A process that a test can claim by its environment; `lease` is the innermost token."""

    pid: int
    parent: int
    lease: str
    command: str


def carriers(mark: str) -> list[Carrier]:
    """The living processes that carry a mark."""
    found = []
    for process in processes():
        folder = Path("/proc", str(process.pid))
        try:
            variables = (folder / "environ").read_bytes().decode(errors="replace").split("\0")
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if f"{MARK}={mark}" in variables:
            known = dict(each.partition("=")[::2] for each in variables)
            lease = known.get(VARIABLE, "").rpartition(":")[2]
            found.append(Carrier(process.pid, process.parent, lease, " ".join(words).strip()))
    return [each for each in found if each.pid != os.getpid()]


def engines(mark: str) -> list[Carrier]:
    """The engine processes that carry a mark, without those that they started."""
    return [each for each in carriers(mark) if "-m sweeper.trial.child" in each.command]


def of_lease(engine: Carrier) -> list[int]:
    """The living processes of the launch that `engine` was started for."""
    return [process.pid for process in processes() if engine.lease in process.tokens]


def until(condition: Callable[[], bool], limit_s: float, pause_s: float = 0.2) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
