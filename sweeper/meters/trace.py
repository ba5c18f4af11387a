"""The power trace beside the counters: a process of its own, and what it has written so far."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import sweeper

PATIENCE_S = 5.0
Sample = tuple[float, str, float]
"""(seconds, device, watts)."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What sampling took: CPU seconds of the sampler within seconds, its start-up apart."""

    cpu_s: float
    elapsed_s: float

    @property
    def share(self) -> float:
        """Of one core."""
        return self.cpu_s / self.elapsed_s


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
        self._taken = 0
        self._kept: list[Sample] = []
        self._cost: Cost | None = None

    def start(self) -> None:
        """Start sampling. The process ends with this one, or with `stop`."""
        self._taken, self._kept, self._cost = 0, [], None
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives until `stop`
        home = str(Path(sweeper.__file__).parent.parent)
        places = [home, os.environ.get("PYTHONPATH", "")]
        # Ctrl-C reaches the whole process group: the sampler begins, and stays, deaf to it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sweeper.meters.sampler", *self._devices],
                stdin=subprocess.PIPE,
                stdout=self._file,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def samples(self) -> Sequence[Sample]:
        """(seconds of CLOCK_MONOTONIC, device, watts) so far, or until `stop`."""
        self._read()
        return tuple(self._kept)

    def cost(self) -> Cost | None:
        """What the sampler says that it took; `None` until `stop`, or where it was killed."""
        return self._cost

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
            self._read()
            self._file.close()
            self._file = None

    def _read(self) -> None:
        """Take what was written since the last look: a trace of an hour is asked for often."""
        if self._file is None:
            return
        descriptor = self._file.fileno()
        behind = os.fstat(descriptor).st_size - self._taken
        whole, newline, _ = os.pread(descriptor, behind, self._taken).rpartition(b"\n")
        self._taken += len(whole) + len(newline)
        for line in whole.splitlines():
            name, *numbers = line.split()
            if name == b"cost":
                self._cost = Cost(*map(float, numbers))
            else:
                place, watts = numbers
                self._kept.append((float(name), self._devices[int(place)], float(watts)))
