"""A command in a terminal of its own: what it draws there, and what is typed into it."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping
from pathlib import Path

from tests.commands import ROOT, until

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"
CTRL_C = b"\x03"


class Terminal:
    """Python with `words`, on a terminal of `columns` and `lines` that it leads."""

    def __init__(
        self,
        *words: str,
        cwd: Path,
        columns: int = 80,
        lines: int = 24,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        inherited = {
            name: value
            for name, value in os.environ.items()
            if name not in ("CI", "COLUMNS", "LINES", "NO_COLOR", "PYTHONDONTWRITEBYTECODE")
        }
        given = {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **(environment or {})}
        self.process = subprocess.Popen(
            ["setsid", "--ctty", sys.executable, *words],
            cwd=cwd,
            env=inherited | given,
            stdin=slave,
            stdout=slave,
            stderr=slave,
        )
        os.close(slave)
        self._drawn: list[bytes] = []
        threading.Thread(target=self._read, daemon=True).start()

    @property
    def drawn(self) -> str:
        """Everything that was written to it, with what moves its cursor."""
        return b"".join(self._drawn).decode(errors="replace")

    @property
    def text(self) -> str:
        """The same without colours and moves."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", self.drawn)

    @property
    def cursor(self) -> bool:
        """Whether the cursor is shown."""
        return self.drawn.rfind(SHOW) >= self.drawn.rfind(HIDE)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def shows(self, text: str, limit_s: float = 60.0) -> bool:
        """Wait for a text; false when the command ends without it."""
        until(lambda: text in self.text or self.process.poll() is not None, limit_s, 0.05)
        return text in self.text

    def wait(self, limit_s: float = 60.0) -> int:
        """The exit status; it is killed when it takes longer."""
        try:
            status = self.process.wait(limit_s)
        finally:
            self.close()
        return status

    def close(self) -> None:
        """End it for good; may be called twice."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _read(self) -> None:
        # The other side of a terminal that is gone gives an error, not an end.
        with contextlib.suppress(OSError):
            while data := os.read(self._master, 65536):
                self._drawn.append(data)
