"""A log as another instrument writes it: a small process that adds rows to a CSV file.

As a program: `log_writer.py FILE UNIT CLOCK DEVICE=WATTS...`; it writes twenty rows a second for
each device, and ends with its input.
"""

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PERIOD_S = 0.05


@contextmanager
def written(
    file: Path, watts: Mapping[str, float], *, unit: str = "watts", clock: str = "monotonic"
) -> Iterator[Path]:
    """The log, with rows until the end of the block."""
    devices = [f"{device}={power_w}" for device, power_w in watts.items()]
    writer = subprocess.Popen(
        [sys.executable, __file__, str(file), unit, clock, *devices],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    with writer:
        writer.stdout.readline()
        yield file
        writer.stdin.close()
        writer.wait(10.0)


def main() -> None:
    name, unit, clock, *devices = sys.argv[1:]
    power_w = {
        device: float(watts) for device, _, watts in (each.partition("=") for each in devices)
    }
    now = time.time if clock == "utc" else time.monotonic
    began_s = now()
    with Path(name).open("a", buffering=1) as log:
        log.write(f"t_s,note,device,{unit}\n")
        told = False
        while True:
            for device, watts in power_w.items():
                t_s = now()
                value = watts if unit == "watts" else watts * (t_s - began_s)
                log.write(f"{t_s:.6f},,{device},{value:.6f}\n")
            if not told:
                told = os.write(1, b"going\n") > 0
            if select.select([sys.stdin], [], [], PERIOD_S)[0]:
                return


if __name__ == "__main__":
    main()
