"""The dispatcher in the roles that Tune has for it: searcher, callback, scheduler, stopper.

The searcher releases only what fits now, so Tune's own order never decides anything. The callback
hands on what leases tell. The scheduler is the only one whom Tune asks at every step: it watches
for leases that fell silent or never began.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.tune.callback import Callback
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from sweeper.cluster.actor import Task
from sweeper.cluster.dispatch import Dispatcher, Patience
from sweeper.cluster.session import Session
from sweeper.errors import PlaceError

REFRESH_S = 1.0
"""How old what is known of the cluster may be when a trial is placed."""


@dataclass
class _Watched:
    lease_id: str
    node_id: str
    heard_s: float
    began: bool = False
    over: bool = False
    killed: str | None = None


class Desk:
    """What the roles share: which of Tune's trials is which lease, and what went wrong."""

    def __init__(
        self,
        *,
        dispatcher: Dispatcher,
        session: Session,
        study: str,
        stop: Callable[[], bool],
        lease_class: str,
        patience: Patience,
    ) -> None:
        self.dispatcher = dispatcher
        self.session = session
        self.study = study
        self.stop = stop
        self.lease_class = lease_class
        self.patience = patience
        self.watched: dict[str, _Watched] = {}
        self.living: frozenset[str] = frozenset(node.id for node in session.nodes)
        self.actors: dict[str, Any] = {}
        self.error: BaseException | None = None
        self._looked_s = -REFRESH_S
        self._idle = False

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """Tune writes down everything that it could be restored with, which we never do."""
        return object, ()

    def look(self) -> None:
        """Learn at most once a second which nodes live."""
        now_s = time.monotonic()
        if now_s - self._looked_s < REFRESH_S:
            return
        self._looked_s = now_s
        nodes = self.session.living()
        if not nodes and self.session.started:
            self.error = PlaceError(
                "Ray, which was started here, has died, perhaps for want of memory: the same "
                "command starts it again and goes on"
            )
            raise self.error
        self.living = frozenset(node.id for node in nodes)
        self.dispatcher.pool.update(nodes)
        self._idle = False

    def next(self, tune_id: str) -> Task | None:
        """The next task to start now, for a trial that Tune will know by `tune_id`."""
        self.look()
        if self._idle:
            return None
        lease = self.dispatcher.next(self.session.free())
        if lease is None:
            self._idle = True
            return None
        node = lease.place.node
        self.watched[tune_id] = _Watched(lease.id, node.id, time.monotonic())
        return Task(
            trial=lease.trial,
            study=self.study,
            node_id=node.id,
            host=node.host,
            cpus=lease.place.cpus,
            gpus=lease.place.width if node.gpus else 0,
            lease_class=self.lease_class,
            whole_node=lease.place.request.whole_node,
        )

    def heard(self, tune_id: str, events: list[dict[str, Any]]) -> None:
        """A lease renewed itself, and told this; what goes wrong in telling ends everything."""
        watched = self.watched[tune_id]
        try:
            self.dispatcher.hear(watched.lease_id, events)
        except BaseException as error:
            self.error = error
            raise
        watched.heard_s = time.monotonic()

    def over(self, tune_id: str, lost: str | None = None) -> None:
        """A lease ended: in its own time, lost, or before it began."""
        watched = self.watched[tune_id]
        if watched.over:
            return
        watched.over = True
        self._idle = False
        try:
            if lost is None and not watched.began:
                self.dispatcher.withdraw(watched.lease_id)
            else:
                self.dispatcher.close(watched.lease_id, watched.killed or lost)
        except BaseException as error:
            self.error = error
            raise


class OneSearcher(Searcher):
    """Releases the trials that fit now, until none is left or it is time to stop."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """A task, nothing for now, or the end."""
        if self._desk.dispatcher.finished or self._desk.stop():
            return str(self.FINISHED)
        task = self._desk.next(trial_id)
        return None if task is None else {"task": task}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """An end in its own time, or one before its beginning; the callback hears of errors."""
        if not error:
            self._desk.over(trial_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is what a study goes on from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, likewise."""


class Hearing(Callback):
    """Hands on what leases tell."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def on_trial_start(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """The actor is up."""
        watched = self._desk.watched[trial.trial_id]
        watched.began = True
        watched.heard_s = time.monotonic()
        self._desk.actors[trial.trial_id] = trial.temporary_state.ray_actor

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **info: Any,
    ) -> None:
        """A step returned; Tune keeps the last result, but need not keep what it told."""
        events = json.loads(result.pop("events"))
        self._desk.heard(trial.trial_id, events)

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """The lease ended."""
        self._desk.actors.pop(trial.trial_id, None)

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any
    ) -> None:
        """The actor is gone."""
        self._desk.actors.pop(trial.trial_id, None)
        self._desk.over(trial.trial_id, lost=f"lost: {_told(trial)}")


def _told(trial: TuneTrial) -> str:
    """What Tune wrote down of an error: the exception itself, or what is said of a dead actor."""
    try:
        text = Path(trial.error_file).read_text(errors="replace")
    except (OSError, TypeError):
        return "the actor is gone"
    lines = [line.strip() for line in text.splitlines() if line.strip()][1:]
    raised = any(line.startswith("Traceback") or "ray::" in line for line in lines[:2])
    return (lines or ["the actor is gone"])[-1 if raised else 0][:500]


class Stopping(Stopper):
    """Ends everything when it is asked to."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never one trial alone."""
        return False

    def stop_all(self) -> bool:
        """Whether to end now."""
        return self._desk.stop()


class Watching(FIFOScheduler):
    """Ends leases that fell silent, and takes back those that never began."""

    def __init__(self, desk: Desk) -> None:
        super().__init__()
        self._desk = desk
        self._looked_s = 0.0

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Never a choice: pending trials start by themselves."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= REFRESH_S:
            self._looked_s = now_s
            self._desk.look()
            for trial in list(tune_controller.get_live_trials()):
                self._watch(tune_controller, trial, now_s)
        return None

    def _watch(self, controller: Any, trial: TuneTrial, now_s: float) -> None:
        watched = self._desk.watched.get(trial.trial_id)
        if watched is None or watched.over:
            return
        silent_s = now_s - watched.heard_s
        if trial.status == TuneTrial.PENDING:
            gone = watched.node_id not in self._desk.living
            if gone or silent_s > self._desk.patience.begin_s:
                controller.stop_trial(trial)
        elif silent_s > self._desk.patience.silence_s and watched.killed is None:
            watched.killed = f"lost: its supervisor was silent for {silent_s:.0f} s"
            if trial.temporary_state.ray_actor is not None:
                ray.kill(trial.temporary_state.ray_actor)
