"""Trials out, events in: joins the pool's accounting with what happens after a death.

Nothing here knows of Ray: `next` names a trial and its place, `hear` takes what its lease tells,
`close` says that the lease is over. Events go to `on_event` one by one, in order, and only what it
has taken counts.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sweeper.cluster.attempts import (
    Course,
    Death,
    begun,
    died,
    keys,
    named,
    record_key,
    recorded,
    remaining,
    restricted,
)
from sweeper.cluster.pool import Place, Pool, Request, Room
from sweeper.results.record import Key
from sweeper.search import Search
from sweeper.spec import ResourcesSpec, Trial

Event = dict[str, Any]
OnEvent = Callable[[Trial, Event], None]
FirstAttempt = Callable[[Trial], int]
"""`first_attempt(trial)`: the number of the first attempt that earlier sittings did not make."""

HOMELESS_S = 300.0
"""How long a trial waits for a node that could hold it, when none is there any more."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a lease may take to begin, and be silent once it has."""

    begin_s: float = 300.0
    silence_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A trial (what is left of it) and where it goes."""

    id: str
    trial: Trial
    place: Place


@dataclass
class _Running:
    lease: Lease
    launch: int = 0
    point: str | None = None
    death: Event | None = None


class Dispatcher:
    """Decides which trial starts where, and keeps each one's course until nothing is left of it."""

    def __init__(
        self,
        search: Search,
        pool: Pool,
        resources: ResourcesSpec,
        on_event: OnEvent,
        first_attempt: FirstAttempt,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.pool = pool
        self._search = search
        self._first_attempt = first_attempt
        self._resources = resources
        self._on_event = on_event
        self._clock = clock
        self._courses: dict[str, Course] = {}
        self._waiting: dict[str, Trial] = {}
        self._running: dict[str, _Running] = {}
        self._homeless_s: dict[str, float] = {}

    @property
    def finished(self) -> bool:
        """Whether every trial is done or given up, and the search has no other."""
        return not self._waiting and not self._running and self._search.finished

    def next(self, free: Mapping[str, Room] | None = None) -> Lease | None:
        """The next trial to start now (`free` as in `Pool.admit`); `None` when none can."""
        place = self.pool.admit(self._clock(), free)
        while place is None and self._ask():
            place = self.pool.admit(self._clock(), free)
        if place is None:
            self._evict()
            return None
        trial = self._waiting.pop(place.request.id)
        self._courses[trial.id] = begun(self._courses[trial.id])
        lease = Lease(id=f"{trial.id}.{trial.attempt}", trial=trial, place=place)
        self._running[lease.id] = _Running(lease=lease)
        return lease

    def hear(self, lease_id: str, events: Sequence[Event]) -> None:
        """Pass on what a lease tells, in order."""
        running = self._running[lease_id]
        trial = running.lease.trial
        for told in events:
            event = told
            if event["kind"] == "death":
                event = {"node_id": running.lease.place.node.id, **told}
            self._on_event(trial, event)
            match event["kind"]:
                case "phase":
                    running.point = event.get("point")
                case "record":
                    course = recorded(self._courses[trial.id], event)
                    self._courses[trial.id] = course
                    if record_key(event)[0] == running.point:
                        running.point = None
                case "launched":
                    running.launch += 1
                    running.point = None
                case "death":
                    running.death = event

    def close(self, lease_id: str, lost: str | None = None) -> None:
        """The lease is over: by itself, or `lost`, which says what became of it."""
        running = self._running[lease_id]
        if lost is not None and running.death is None:
            death = {"kind": "death", "reason": lost, "point": running.point, "log_tail": ""}
            self.hear(lease_id, [death])
        trial = running.lease.trial
        course = self._courses[trial.id]
        before = course.given_up
        if running.death is not None:
            course = died(course, self._death(running, running.death))
        self._end(lease_id, course, before, failed_only=running.death is None)

    def withdraw(self, lease_id: str) -> None:
        """The lease never began: the trial waits again, and nothing counts against it."""
        trial = self._running[lease_id].lease.trial
        course = self._courses[trial.id]
        self._release(lease_id)
        self._courses[trial.id] = replace(course, attempts=course.attempts - 1)
        self._submit(trial)

    def _ask(self) -> bool:
        """Ask the search for more, unless those that wait could use whatever is idle.

        What it names may be too wide for what is idle now: it waits, and others go past it.
        """
        idle = self.pool.idle
        if not idle or len(self._waiting) >= idle or self._search.finished:
            return False
        asked = self._search.ask(idle, len(self._waiting) + len(self._running))
        for trial in asked:
            numbered = replace(trial, attempt=self._first_attempt(trial))
            self._courses[trial.id] = Course(trial=numbered)
            self._submit(numbered)
        return bool(asked)

    def _death(self, running: _Running, event: Event) -> Death:
        under_way = running.lease.trial.launches[running.launch : running.launch + 1]
        point = event.get("point") or running.point
        key: Key | None = None
        if point is not None and under_way:
            key = (str(point), under_way[0].number, under_way[0].stage)
        return Death(
            node_id=running.lease.place.node.id,
            reason=event["reason"],
            point=key,
            launch=named(under_way[0]) if under_way else None,
        )

    def _end(
        self, lease_id: str, course: Course, before: frozenset[Key], *, failed_only: bool
    ) -> None:
        self._release(lease_id)
        self._courses[course.trial.id] = course
        lost = course.given_up - before - course.accepted
        if lost:
            self._give_up(course, lost, course.deaths[-1].reason)
        left = remaining(course, failed_only=failed_only)
        if left is not None:
            self._submit(left)

    def _release(self, lease_id: str) -> None:
        running = self._running.pop(lease_id)
        self.pool.release(running.lease.trial.id)

    def _submit(self, trial: Trial) -> None:
        asked = self._resources
        self._waiting[trial.id] = trial
        request = Request(
            id=trial.id,
            width=trial.gpus,
            expected_s=trial.expected_s,
            cpus=None if asked.cpus == "auto" else asked.cpus,
            avoided=self._courses[trial.id].avoided,
            whole_node=asked.exclusive_node,
        )
        self.pool.submit(request, self._clock())

    def _evict(self) -> None:
        now_s = self._clock()
        homeless = self.pool.homeless()
        self._homeless_s = {name: self._homeless_s.get(name, now_s) for name in homeless}
        for name, since_s in self._homeless_s.items():
            if now_s - since_s > HOMELESS_S:
                trial = self._waiting.pop(name)
                self.pool.withdraw(name)
                reason = f"no node that could hold {trial.gpus} GPUs for {HOMELESS_S:.0f} s"
                self._give_up(self._courses[name], frozenset(keys(trial)), reason)

    def _give_up(self, course: Course, lost: frozenset[Key], reason: str) -> None:
        attempt = course.trial.attempt + max(0, course.attempts - 1)
        trial = restricted(course.trial, lost, attempt=attempt)
        points = sorted({point for point, _, _ in lost})
        self._on_event(trial, {"kind": "given_up", "points": points, "reason": reason})
