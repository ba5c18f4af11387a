"""A launch in a thread of the supervisor: for engines that need no process of their own."""

import queue
import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sweeper.errors import SweeperError
from sweeper.trial.assignment import Assignment, bench_for
from sweeper.trial.bench import KEPT
from sweeper.trial.protocol import run_launch

Event = dict[str, Any]

BREATH_S = 0.5
"""What follows an event so soon is told with it: each report has a price."""


class InlineLaunch:
    """Runs a launch in a thread, which waits after a window or a record until it is kept."""

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
        """Events up to the next that is waited for; none if nothing happens within `timeout_s`."""
        told: list[Event] = []
        try:
            told.append(self._next(timeout_s))
            while told[-1]["kind"] not in KEPT and not self.finished:
                told.append(self._next(BREATH_S))
        except queue.Empty:
            pass
        return told

    def kept(self, events: list[Event]) -> None:
        """Let the thread go on."""
        for event in events:
            if event["kind"] in KEPT:
                self._kept.release()

    def kill(self) -> None:
        """The thread ends at its next event."""
        self._cancelled.set()
        self._kept.release()

    def _next(self, timeout_s: float) -> Event:
        event = self._events.get(timeout=timeout_s)
        self.finished = event["kind"] in ("death", "launched")
        if event["kind"] == "phase":
            self._phase = event
        elif event["kind"] == "death":
            event = {**event, "phase": self._phase["phase"], "point": self._phase["point"]}
        return event

    def _emit(self, kind: str, fields: Mapping[str, Any]) -> None:
        self._events.put({"kind": kind, **fields})
        if kind in KEPT:
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
