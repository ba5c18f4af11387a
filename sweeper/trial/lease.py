"""The supervisor of a trial: runs its launches one after the other, and ends them surely.

A launch gets the first of the lease's devices that it needs, which are the same for all launches of
its width; the others are idle meanwhile, and its records name them (`idle_gpus`).

A real engine works in a child process, with its own group, log and guardian; a simulated one in a
thread. Either way the supervisor hands on events, says when they are kept, and notices silence.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sweeper.engines import engine_traits
from sweeper.spec import Launch, Trial
from sweeper.trial.assignment import Assignment
from sweeper.trial.bench import utc_now
from sweeper.trial.inline import InlineLaunch
from sweeper.trial.process import ProcessLaunch

Event = dict[str, Any]


class RunningLaunch(Protocol):
    """One launch under way."""

    finished: bool

    def start(self) -> None:
        """Begin."""
        ...

    def events(self, timeout_s: float) -> list[Event]:
        """The events since last asked; waits at most `timeout_s` for the first."""
        ...

    def kept(self, events: list[Event]) -> None:
        """These events are safe: the launch may go on."""
        ...

    def kill(self) -> None:
        """End it and all of its descendants; may be called twice."""
        ...


class Lease:
    """A trial on its devices.

    `place` is what the records say of the node; `scratch` takes the engine logs while they are
    written. Nothing is started before `start`.
    """

    def __init__(
        self,
        trial: Trial,
        devices: tuple[str, ...],
        study: str,
        scratch: Path,
        place: Mapping[str, Any],
    ) -> None:
        self._trial = trial
        self._devices = devices
        self._study = study
        self._scratch = scratch
        self._place = place
        self._left = list(trial.launches)
        self._running: RunningLaunch | None = None
        self._began_s = 0.0
        self._own: list[Event] = []
        self._unkept: list[Event] = []
        self._launched: list[Event] = []

    @property
    def finished(self) -> bool:
        """Whether every launch has ended, everything was told, and their events are kept."""
        return self._running is None and not (self._left or self._own or self._unkept)

    def start(self) -> None:
        """Begin with the first launch."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        self._began_s = time.monotonic()
        held = {"devices": list(self._devices), "started_at": utc_now(), **self._place}
        self._own.append({"kind": "trial", "stage": self._left[0].stage, **held})
        self._next()

    def events(self, timeout_s: float) -> list[Event]:
        """Events since the last call, at most `timeout_s` later; may be none."""
        if self._own:
            own, self._own = self._own, []
            return own
        told = self._running.events(timeout_s) if self._running is not None else []
        self._unkept += told
        return told

    def acknowledge(self) -> None:
        """All events so far are kept: the launch may go on, or the next may start."""
        unkept, self._unkept = self._unkept, []
        if self._running is None:
            return
        self._running.kept(unkept)
        if self._running.finished:
            self._running.kill()
            self._running = None
            self._launched += [event for event in unkept if event["kind"] == "launched"]
            died = any(event["kind"] == "death" for event in unkept)
            if died:
                self._left.clear()
            self._next()
            if self._running is None:
                self._own.append(self._ended(died=died))

    def kill(self) -> None:
        """End what runs, with all of its descendants; nothing further starts."""
        self._left.clear()
        if self._running is not None:
            self._running.kill()
            self._running = None

    def _ended(self, *, died: bool) -> Event:
        """What the lease took; its joules are those of its launches, unknown where one died.

        What GPUs used while they were idle is not in them.
        """
        held_s = time.monotonic() - self._began_s
        # Time of a simulation goes by on its own clock, faster than ours.
        seconds = max(held_s, sum(event["seconds"] for event in self._launched))
        joules = [event["energy_j"] for event in self._launched]
        known = bool(joules) and not died and None not in joules
        origins = [
            {name: event[name] for name in ("source", "measured", "scope")}
            for event in self._launched
        ]
        # Joules of different meters are never added.
        known = known and all(origin == origins[0] for origin in origins)
        return {
            "kind": "ended",
            "readings": [event["readings"] for event in self._launched],
            "seconds": seconds,
            "gpu_seconds": seconds * len(self._devices),
            "energy_j": sum(joules) if known else None,
            "energy": origins[0] if known else None,
        }

    def _next(self) -> None:
        if self._left:
            self._running = self._launch(self._left.pop(0))
            self._running.start()

    def _launch(self, launch: Launch) -> RunningLaunch:
        used, idle = self._devices[: launch.gpus], self._devices[launch.gpus :]
        assignment = Assignment(
            launch=launch,
            study=self._study,
            trial_id=self._trial.id,
            attempt=self._trial.attempt,
            devices=used,
            place={**self._place, "idle_gpus": list(idle)},
        )
        settings = assignment.settings
        if engine_traits(settings.engine.kind).isolated(settings):
            return ProcessLaunch(assignment, self._scratch)
        return InlineLaunch(assignment)
