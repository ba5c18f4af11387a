"""A sitting of a study as it is told: to a view, and to progress.json."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sweeper.plan import Plan
from sweeper.progress.note import Ending, NoteWriter
from sweeper.progress.snapshot import Snapshot
from sweeper.progress.state import State
from sweeper.progress.views import View
from sweeper.progress.words import beginning, first_line, many, place, summary, verdict
from sweeper.results.contents import Contents
from sweeper.results.record import Record
from sweeper.spec import Study, Trial


class Progress:
    """Says a line or two whenever something is worth knowing; inside a `with` also shows it live.

    `folder` is the study's. What is counted is this sitting's; joules are those of its windows.
    May be asked from any thread. Where a search chooses among the plan's points, nothing of the
    plan is to be done until `planned` says so.
    """

    def __init__(
        self,
        study: Study,
        plan: Plan,
        before: Contents,
        folder: Path,
        view: View,
        clock: Callable[[], float] = time.monotonic,
        *,
        chosen: bool = False,
    ) -> None:
        self._view = view
        self._clock = clock
        self._points = len(plan.points) * study.settings.measure.launches
        left = sum(len(launch.points) for launch in plan.launches)
        self._state = State(study, before.accepted().values(), self._points - left, folder)
        self._state.planned(() if chosen else plan.trials, more=chosen)
        self._lock = threading.Lock()
        self._note = NoteWriter(folder, self.snapshot, clock)
        self._opened = ExitStack()

    def __enter__(self) -> Self:
        """Say what there is to do, and keep the view and progress.json up to date from here on."""
        self._view.say(beginning(self.snapshot(), self._points))
        self._note.start()
        self._opened.enter_context(self._view.watching(self.snapshot))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._opened.close()
        self._note.finish(self._ending(kind))

    def planned(
        self,
        trials: Sequence[Trial],
        *,
        more: bool = False,
        budget: str | None = None,
        then: str | None = None,
    ) -> None:
        """Further trials are to be done; `more`, `budget` and `then` as in `State.planned`."""
        with self._lock:
            self._state.planned(trials, more=more, budget=budget, then=then)
        self._note.news()
        blocks = sum(trial.block for trial in trials)
        points = sum(len(launch.points) for trial in trials for launch in trial.launches)
        if blocks:
            left = f"{many(points, 'more point')} to measure"
            self._view.say(f"  finalists in {many(blocks, 'block')}: {left}")
        elif points:
            self._view.say(f"  {many(points, 'more point')} to measure", passing=True)

    def event(self, trial: Trial, event: Mapping[str, Any]) -> None:
        """Take an event that is no record."""
        with self._lock:
            self._state.event(trial, event, self._clock())
            log = self._state.log(trial.id)
        self._note.news()
        match event["kind"]:
            case "phase" if event["phase"] == "load":
                self._view.say(self._loading(trial), passing=True)
            case "death":
                self._view.say(f"  {trial.id}: {first_line(event['reason'])}{_at(log)}")

    def record(self, record: Record) -> None:
        """Take a record: a point has its verdict, or was given up."""
        with self._lock:
            now_s = self._clock()
            self._state.record(record, now_s)
            best = self._state.best_for(record, now_s)
            now = self._state.snapshot(now_s)
            log = self._state.log(record.trial_id) if record.status == "failed" else None
        self._note.news()
        number = str(now.done) if now.more else f"{now.done}/{now.asked}"
        self._view.say(f"  [{number}] {verdict(record)}{_at(log)}")
        self._view.say(f"      {summary(now, best)}", passing=True)

    def snapshot(self) -> Snapshot:
        """What it has come to so far."""
        with self._lock:
            return self._state.snapshot(self._clock())

    def _loading(self, trial: Trial) -> str:
        again = f", attempt {trial.attempt + 1}" if trial.attempt else ""
        held = [each for each in self.snapshot().under_way if each.trial_id == trial.id]
        where = f" on {place(held[0])}" if held else ""
        return f"  {trial.id}: loading{where}{again}"

    def _ending(self, kind: type[BaseException] | None) -> Ending:
        if kind is not None:
            return "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        now = self.snapshot()
        return "interrupted" if now.left or now.then else "ended"


def _at(log: str | None) -> str:
    return f"; log: {log}" if log is not None else ""
