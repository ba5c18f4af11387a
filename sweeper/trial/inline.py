"""A launch in a thread of the supervisor: for engines that need no process of their own."""

import queue
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sweeper.errors import SweeperError
from sweeper.trial.assignment import Assignment, bench_for
from sweeper.trial.protocol import run_launch

Event = dict[str, Any]


class InlineLaunch:
    """Runs a launch in a thread, which waits after each event until it is kept."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._kept = threading.Semaphore(0)
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._phase: Event = {"phase": "start", "point": None}
        self.finished = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def events(self, timeout_s: float) -> list[Event]:
        """The next event, or none within `timeout_s`."""
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return []
        self.finished = event["kind"] in ("death", "launched")
        if event["kind"] == "phase":
            self._phase = event
        elif event["kind"] == "death":
            event = {**event, "phase": self._phase["phase"], "point": self._phase["point"]}
        return [event]

    def kept(self, events: list[Event]) -> None:
        """Let the thread go on."""
        for _ in events:
            self._kept.release()

    def kill(self) -> None:
        """The thread ends at its next event."""
        self._cancelled.set()
        self._kept.release()

    def _emit(self, kind: str, fields: Mapping[str, Any]) -> None:
        self._events.put({"kind": kind, **fields})
        self._kept.acquire()
        if self._cancelled.is_set():
            raise _Cancelled

    def _run(self) -> None:
        try:
            spent = run_launch(self._assignment.launch, bench_for(self._assignment, self._emit))
        except _Cancelled:
            return
        except SweeperError as error:
            self._events.put({"kind": "death", "reason": f"{type(error).__name__}: {error}"})
            return
        except Exception as error:  # A defect of ours must end the launch, not hang the lease.
            self._events.put({"kind": "death", "reason": f"{type(error).__name__}: {error}"})
            return
        self._events.put({"kind": "launched", **asdict(spent)})


class _Cancelled(BaseException):
    """The lease ended while the launch was under way."""
