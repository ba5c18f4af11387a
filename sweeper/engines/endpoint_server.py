"""A server that is started for a launch, and that ends with it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from sweeper.errors import EngineError

PATIENCE_S = 20.0
"""How long a server that was asked to end may take before it is killed."""


class Server:
    """A command in a process group of its own; what it prints goes where this process's does."""

    def __init__(
        self,
        words: Sequence[str],
        variables: Mapping[str, str],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._words = tuple(words)
        self._variables = dict(variables)
        self._patience_s = patience_s
        self._process: subprocess.Popen[bytes] | None = None
        self._seen: set[Any] = set()

    def start(self) -> None:
        """Start it.

        Raises:
            EngineError: there is no such command.
        """
        try:
            self._process = subprocess.Popen(
                self._words,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **self._variables},
                process_group=0,
            )
        except OSError as error:
            raise EngineError(f"the server's command cannot be started: {error}") from error

    @property
    def status(self) -> int | None:
        """Its exit status (of a signal, less than 0), `None` while it runs or was not started."""
        if self._process is None:
            return None
        # It is looked at and not waited for: until then its number is nobody else's.
        ended = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def look(self) -> None:
        """Remember its processes now, as a parent's death would hide its children."""
        self._members()

    def peak_bytes(self) -> int:
        """The most host memory that any one of its processes has held; 0 where none tells."""
        return max(map(_peak_bytes, self._members()), default=0)

    def end(self) -> None:
        """Return when all of its processes are gone; those that take too long are killed."""
        process = self._process
        if process is None:
            return
        members = self._members()
        if self.status is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            _wait(members, self._patience_s)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        for member in members:
            with suppress(psutil.Error):
                member.kill()
        process.wait()
        self._process = None
        _wait(members, self._patience_s)
        self._seen.clear()

    def _members(self) -> list[Any]:
        """Its processes: also those that left the group, or whose parent has ended since."""
        if self._process is not None:
            with suppress(psutil.Error):
                first = psutil.Process(self._process.pid)
                self._seen |= {first, *first.children(recursive=True)}
        return [each for each in self._seen if each.is_running()]


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _wait(members: Sequence[Any], seconds: float) -> None:
    """Until they are gone or dead and not waited for yet, which is up to their parents."""
    deadline_s = time.monotonic() + seconds
    while time.monotonic() < deadline_s and any(map(alive, members)):
        time.sleep(0.05)


def alive(member: Any) -> bool:
    """Whether a process (`psutil.Process`) runs; one that nobody has waited for yet does not."""
    try:
        return bool(member.is_running() and member.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _peak_bytes(member: Any) -> int:
    try:
        lines = Path(f"/proc/{member.pid}/status").read_text().splitlines()
    except OSError:
        return 0
    told = [line for line in lines if line.startswith("VmHWM:")]
    return int(told[0].split()[1]) * 1024 if told else 0
