"""The power trace beside the counters: a process of its own, and what it has written so far."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

import sweeper

PATIENCE_S = 5.0
Sample = tuple[float, str, float]
"""(seconds, device, watts)."""


class Trace(Protocol):
    """Samples of power between `start` and `stop`, on the machine's clock."""

    def start(self) -> None: ...

    def samples(self) -> Sequence[Sample]: ...

    def stop(self) -> None: ...


class PowerTrace:
    """Starts the sampler, reads along, and stops it.

    The samples go to an unnamed file rather than a pipe: nobody has to read them inside a window.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        self._devices = tuple(devices)
        self._process: subprocess.Popen[bytes] | None = None
        self._file: IO[bytes] | None = None
        self._kept: list[Sample] = []

    def start(self) -> None:
        """Start sampling. The process ends with this one, or with `stop`."""
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives until `stop`
        home = str(Path(sweeper.__file__).parent.parent)
        places = [home, os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sweeper.meters.sampler", *self._devices],
            stdin=subprocess.PIPE,
            stdout=self._file,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
        )

    def samples(self) -> Sequence[Sample]:
        """(seconds of CLOCK_MONOTONIC, device, watts) so far, or until `stop`."""
        if self._file is None:
            return tuple(self._kept)
        content = os.pread(self._file.fileno(), os.fstat(self._file.fileno()).st_size, 0)
        whole, _, _ = content.rpartition(b"\n")
        return tuple(
            (float(t_s), self._devices[int(index)], float(watts))
            for t_s, index, watts in (line.split() for line in whole.splitlines())
        )

    def stop(self) -> None:
        """End the process and keep what it wrote; may be called twice."""
        if self._process is not None:
            assert self._process.stdin is not None
            self._process.stdin.close()
            try:
                self._process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._file is not None:
            self._kept = list(self.samples())
            self._file.close()
            self._file = None
