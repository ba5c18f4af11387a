"""Whether the engines' libraries load on this node: each engine's in a process of its own.

`python -m sweeper.engines.loading LIBRARY...` imports them and says on the last line of its output,
in JSON, how many GPUs torch can compute on. A broken build may end the process that imports it.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sweeper
from sweeper.engines import EXTRAS, engine_traits
from sweeper.engines.access import absent
from sweeper.spec import EngineKind

LIMIT_S = 12.0
"""Seconds for all of them, twice what they take on two idle cores; what takes longer is unknown."""
LAST_LOOK_S = 0.2


class Attempt:
    """Imports the libraries of every engine, beside whatever else is done until `results`."""

    def __init__(self, kinds: Sequence[EngineKind] = tuple(EXTRAS)) -> None:
        self._libraries = {kind: tuple(engine_traits(kind).libraries) for kind in kinds}
        self._children: dict[EngineKind, subprocess.Popen[str]] = {}
        self._until_s = 0.0

    def start(self, limit_s: float = LIMIT_S) -> None:
        """Start a process for each engine whose libraries are installed."""
        self._until_s = time.monotonic() + limit_s
        for kind, libraries in self._libraries.items():
            if not absent(libraries):
                self._children[kind] = _importing(libraries)

    def results(self) -> dict[str, dict[str, Any]]:
        """What became of each engine, as plain data.

        `missing` libraries are not installed. `loads` is `None` where the limit passed first, and
        otherwise comes with `gpus`, how many torch can compute on, or `said`, what went wrong.
        """
        return {kind: self._result(kind) for kind in self._libraries}

    def _result(self, kind: EngineKind) -> dict[str, Any]:
        found: dict[str, Any] = {
            "needs_gpu": engine_traits(kind).needs_gpu,
            "missing": absent(self._libraries[kind]),
            "loads": False,
        }
        child = self._children.get(kind)
        if child is None:
            return found
        try:
            out, err = child.communicate(timeout=max(LAST_LOOK_S, self._until_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return found | {"loads": None}
        if child.returncode == 0:
            return found | {"loads": True, **json.loads(out.strip().splitlines()[-1])}
        last = (err.strip().splitlines() or [""])[-1]
        return found | {"said": last or f"its process ended with status {child.returncode}"}


def _importing(libraries: Sequence[str]) -> subprocess.Popen[str]:
    home = str(Path(sweeper.__file__).parent.parent)
    places = [home, os.environ.get("PYTHONPATH", "")]
    return subprocess.Popen(
        [sys.executable, "-m", "sweeper.engines.loading", *libraries],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))},
    )


def main(libraries: Sequence[str]) -> None:
    """Import them, and say what torch sees."""
    for library in libraries:
        importlib.import_module(library)
    found = {}
    if "torch" in libraries:
        import torch

        found["gpus"] = torch.cuda.device_count() if torch.cuda.is_available() else 0
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
