"""`python -m sweeper.meters.sampler UUID...`: instant power at 10 Hz, until standard input ends.

Writes a line `seconds-of-CLOCK_MONOTONIC  place-of-the-UUID  watts` per device and sample. A
sample that fails leaves no line: a gap says more than a number that was never read. The last line
is `cost  CPU-seconds  seconds` of all the sampling, by the process's own accounting.
"""

import os
import resource
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
    parent, output = os.getppid(), sys.stdout.fileno()
    with nvml.session():
        readers = [nvml.power_reader(nvml.handle_of(device)) for device in devices]
        began_s = due_s = time.monotonic()
        began_cpu_s = cpu_s()
        ended = False
        while not ended and os.getppid() == parent:
            os.write(output, sample(readers).encode())
            due_s = next_due_s(due_s, time.monotonic())
            ended = bool(select.select([0], [], [], max(0.0, due_s - time.monotonic()))[0])
        cost = f"cost {cpu_s() - began_cpu_s:.6f} {time.monotonic() - began_s:.6f}\n"
        os.write(output, cost.encode())


def next_due_s(due_s: float, now_s: float) -> float:
    """On the grid of `PERIOD_S`: a sample that came late is not made up for."""
    return due_s + PERIOD_S * max(1.0, -(-(now_s - due_s) // PERIOD_S))


def cpu_s() -> float:
    """CPU seconds that this process has used, in user and in kernel mode."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    # Ctrl-C reaches the whole process group; who started this one decides when it ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(sys.argv[1:])
