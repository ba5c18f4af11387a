"""`python -m sweeper.meters.sampler UUID...`: instant power at 10 Hz, until standard input ends.

Writes a line `seconds-of-CLOCK_MONOTONIC  place-of-the-UUID  watts` per device and sample. A
sample that fails leaves no line: a gap says more than a number that was never read.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Sequence

from sweeper.errors import MeterError
from sweeper.meters import nvml

PERIOD_S = 0.1


def sample(readers: Sequence[nvml.PowerReader]) -> str:
    """One line per device that could be read."""
    lines = []
    for place, read_w in enumerate(readers):
        before_s = time.monotonic()
        try:
            watts = read_w()
        except MeterError:
            continue
        middle_s = (before_s + time.monotonic()) / 2
        lines.append(f"{middle_s:.6f} {place} {watts:.3f}\n")
    return "".join(lines)


def run(devices: Sequence[str]) -> None:
    """Sample until the process that started this one closes the pipe or is gone."""
    parent = os.getppid()
    with nvml.session():
        readers = [nvml.power_reader(nvml.handle_of(device)) for device in devices]
        due_s = time.monotonic()
        while os.getppid() == parent:
            os.write(sys.stdout.fileno(), sample(readers).encode())
            # A sample that came late is not made up for: the next one is due on the grid.
            due_s += PERIOD_S * max(1, -(-(time.monotonic() - due_s) // PERIOD_S))
            ready, _, _ = select.select([sys.stdin], [], [], max(0.0, due_s - time.monotonic()))
            if ready:
                return


if __name__ == "__main__":
    # Ctrl-C reaches the whole process group; who started this one decides when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(sys.argv[1:])
