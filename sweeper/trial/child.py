"""The process in which a real engine, its workload and its window edges live.

    parent --stdin--> one line: the assignment; then one line per event it has kept
    child  --the descriptor it is told--> one JSON object per event

Standard output and error are the engine log. The child goes on after `window` and `record` only
when the parent says that they are kept; every few seconds a thread of its own tells how far the
engine has come, so that silence means an engine that stands still.
"""

import base64
import json
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from typing import IO, Any

from sweeper.errors import SweeperError
from sweeper.trial.assignment import Assignment, bench_for
from sweeper.trial.bench import KEPT
from sweeper.trial.protocol import run_launch

PROGRESS_PERIOD_S = 2.0


class Channel:
    """The line to the parent; safe to use from several threads."""

    def __init__(self, events: IO[str], kept: IO[bytes]) -> None:
        self._events = events
        self._kept = kept
        self._lock = threading.Lock()

    def send(self, kind: str, fields: Mapping[str, Any]) -> None:
        """One event; no waiting."""
        line = json.dumps({"kind": kind, **fields}, allow_nan=False)
        with self._lock:
            self._events.write(line + "\n")
            self._events.flush()

    def emit(self, kind: str, fields: Mapping[str, Any]) -> None:
        """One event; returns when it is kept.

        A parent that is gone ends this process: nobody is left to measure for.
        """
        self.send(kind, fields)
        if kind in KEPT and not self._kept.readline():
            os._exit(1)


def main() -> int:
    """Run one launch; 0 when every point has its verdict."""
    channel = Channel(os.fdopen(int(sys.argv[1]), "w"), sys.stdin.buffer)
    assignment: Assignment = pickle.loads(base64.b64decode(sys.stdin.buffer.readline()))
    try:
        bench = bench_for(assignment, channel.emit)
        stop = threading.Event()
        reporter = threading.Thread(
            target=_report, args=(channel, bench.engine.progress, stop), daemon=True
        )
        reporter.start()
        spent = run_launch(assignment.launch, bench)
        stop.set()
    except SweeperError as error:
        channel.send("death", {"reason": f"{type(error).__name__}: {error}"})
        return 1
    except Exception as error:
        traceback.print_exc()
        channel.send("death", {"reason": f"{type(error).__name__}: {error}"})
        return 1
    channel.send("launched", asdict(spent))
    return 0


def _report(channel: Channel, progress: Any, stop: threading.Event) -> None:
    while not stop.wait(PROGRESS_PERIOD_S):
        channel.send("progress", {"steps": progress()})


if __name__ == "__main__":
    sys.exit(main())
