"""The NVML stand-in: a small libnvidia-ml.so.1 whose GPUs follow a scenario.

Build it once, write a scenario, and give `environment(...)` to processes before they start: their
pynvml then finds it in the place of the driver's library. `preload` does it for a process that
runs already. With a `clock` (`virtual.py`) the scenario's time is that clock's, not the machine's.
"""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.nvml_standin.scenario import (
    GPU_LOST,
    NO_PERMISSION,
    NOT_SUPPORTED,
    Board,
    Fault,
    Gpu,
    Process,
    Scenario,
    Violation,
    boards_of,
)

__all__ = [
    "GPU_LOST",
    "LIBRARY",
    "NOT_SUPPORTED",
    "NO_PERMISSION",
    "Board",
    "Fault",
    "Gpu",
    "Process",
    "Scenario",
    "Violation",
    "boards_of",
    "build",
    "compiler",
    "environment",
    "preload",
]

LIBRARY = "libnvidia-ml.so.1"
SOURCES = ("nvml.c", "state.c", "boards.c", "events.c", "world.c")


def compiler() -> str | None:
    """The C compiler of this machine, if it has one."""
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")


def build(folder: Path) -> Path:
    """Compile the library into `folder`, which is returned.

    Raises:
        FileNotFoundError: there is no C compiler.
    """
    command = compiler()
    if command is None:
        raise FileNotFoundError("no C compiler (cc or gcc)")
    here = Path(__file__).parent
    flags = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    linked = [f"-Wl,-soname,{LIBRARY}", "-Wl,-Bsymbolic", "-o", str(folder / LIBRARY)]
    sources = [str(here / name) for name in SOURCES]
    subprocess.run([command, *flags, *linked, *sources, "-lm", "-lpthread"], check=True)
    return folder


def environment(
    library: Path, scenario: Path, base: Mapping[str, str], clock: Path | None = None
) -> dict[str, str]:
    """`base` and what a process needs to find the stand-in, its scenario and its clock."""
    places = [str(library), base.get("LD_LIBRARY_PATH", "")]
    return {
        **base,
        "LD_LIBRARY_PATH": os.pathsep.join(place for place in places if place),
        "SWEEPER_NVML_SCENARIO": str(scenario),
        "SWEEPER_NVML_CLOCK": str(clock or ""),
    }


def preload(library: Path) -> None:
    """Make this process use the stand-in too.

    The loader reads LD_LIBRARY_PATH only when a process starts, but takes a library that is
    already loaded under the wanted name. The scenario is read whenever NVML is initialised.
    """
    ctypes.CDLL(str(library / LIBRARY))
