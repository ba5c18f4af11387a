"""A tree as Linux has it under /sys/class/powercap, of real files that a small process advances.

As a program: `powercap_tree.py ROOT` with the zones as JSON in its first line of input; it writes
every counter a hundred times a second, and ends with its input.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

PERIOD_S = 0.01


@dataclass(frozen=True, kw_only=True)
class Zone:
    """A counter of constant power; one without watts stands still.

    It shows `start_uj` at the moment 0 of CLOCK_MONOTONIC, and begins anew at `range_uj`.
    """

    folder: str
    name: str
    watts: float = 0.0
    start_uj: int = 0
    range_uj: int = 262_143_328_850

    def raw_uj(self, t_s: float) -> int:
        return (self.start_uj + round(self.watts * t_s * 1e6)) % self.range_uj

    def joules(self, from_s: float, until_s: float) -> float:
        return self.watts * (until_s - from_s)


TWO_SOCKETS = (
    Zone(folder="intel-rapl:0", name="package-0", watts=150.0),
    Zone(folder="intel-rapl:0:0", name="core", watts=90.0),
    Zone(folder="intel-rapl:0:1", name="dram", watts=12.0),
    Zone(folder="intel-rapl:1", name="package-1", watts=70.0),
    Zone(folder="intel-rapl:1:0", name="dram", watts=8.0),
    Zone(folder="intel-rapl:2", name="psys", watts=400.0),
    Zone(folder="intel-rapl-mmio:0", name="package-0", watts=150.0),
    Zone(folder="intel-rapl-mmio:0:0", name="dram", watts=12.0),
)
"""A server of Intel's with every way to count something twice."""


def write(root: Path, zones: Sequence[Zone], t_s: float) -> None:
    """The counters as they stand at a moment; whoever reads meanwhile sees the old or the new."""
    for zone in zones:
        folder = root / zone.folder
        (folder / "energy_uj.new").write_text(f"{zone.raw_uj(t_s)}\n")
        (folder / "energy_uj.new").replace(folder / "energy_uj")


def build(root: Path, zones: Sequence[Zone]) -> Path:
    """The tree at this moment, standing still."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "intel-rapl").mkdir(exist_ok=True)
    for zone in zones:
        (root / zone.folder).mkdir()
        (root / zone.folder / "name").write_text(f"{zone.name}\n")
        (root / zone.folder / "max_energy_range_uj").write_text(f"{zone.range_uj}\n")
    write(root, zones, time.monotonic())
    return root


@contextmanager
def running(root: Path, zones: Sequence[Zone]) -> Iterator[Path]:
    """The tree, advanced by a process until the end of the block."""
    build(root, zones)
    writer = subprocess.Popen(
        [sys.executable, __file__, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    with writer:
        writer.stdin.write(json.dumps([asdict(zone) for zone in zones]).encode() + b"\n")
        writer.stdin.flush()
        writer.stdout.readline()
        yield root
        writer.stdin.close()
        writer.wait(10.0)


def main() -> None:
    root = Path(sys.argv[1])
    zones = [Zone(**given) for given in json.loads(sys.stdin.readline())]
    write(root, zones, time.monotonic())
    os.write(1, b"going\n")
    while not select.select([sys.stdin], [], [], PERIOD_S)[0]:
        write(root, zones, time.monotonic())


if __name__ == "__main__":
    main()
