"""The real command in a process of its own, and the processes that come of it."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from sweeper.results.contents import FILE, Contents, read
from sweeper.results.record import Key
from sweeper.trial.guardian import Process, processes

ROOT = Path(__file__).parents[1]
MARK = "SWEEPER_TEST_MARK"


class Command:
    """`python -m sweeper STUDY.yaml ...`, under way in the study's folder and a group of its own.

    Whatever it starts carries `mark` in its environment; a cluster it joins does not.
    """

    def __init__(self, study: Path, *words: str) -> None:
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

    @property
    def out(self) -> str:
        return self._files[0].read_text(errors="replace")

    @property
    def err(self) -> str:
        return self._files[1].read_text(errors="replace")

    @property
    def journal(self) -> Contents:
        return read(self.journal_path) if self.journal_path.exists() else Contents()

    def wait(self, limit_s: float = 120.0) -> int:
        """Its exit status; it is killed when it takes longer."""
        try:
            return self.process.wait(limit_s)
        finally:
            self.kill()

    def reaches(self, condition: Callable[[Contents], bool], limit_s: float = 90.0) -> bool:
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

    def left(self) -> list[str]:
        """The command lines of all its processes that live, itself apart."""
        return [line for line in carriers(MARK, self.mark) if line]


def carriers(name: str, value: str) -> list[str]:
    """Command lines of living processes, other than this, with a variable in their environment."""
    wanted = f"{name}={value}".encode()
    found = []
    for process in processes():
        folder = Path("/proc", str(process.pid))
        try:
            if process.pid != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append(f"{process.pid} {words}".strip())
        except OSError:
            continue
    return found


def until(condition: Callable[[], bool], limit_s: float, pause_s: float = 0.2) -> bool:
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_s)
    return True
