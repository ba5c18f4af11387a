"""Ray Tune, set up so that everything it decides by itself is switched off."""

import logging
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from sweeper.cluster.dispatch import Dispatcher, FirstAttempt, OnEvent, Patience
from sweeper.cluster.pool import Node, Pool
from sweeper.cluster.session import Session
from sweeper.engines import engine_traits
from sweeper.search import Search
from sweeper.spec import ResourcesSpec, Study, Trial

LEASE_CLASS = "sweeper.trial.lease:Lease"
PATIENCE = Patience()
FAREWELL_S = 5.0
"""How long actors are given to end their leases when a study stops."""

TUNE_ENVIRONMENT = {
    "TUNE_MAX_PENDING_TRIALS_PG": "1000000",  # else a custom searcher has one trial pending
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "15",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


def infeasible(
    trials: Sequence[Trial], session: Session, elastic: int | None = None
) -> dict[str, str]:
    """The trials that this cluster can never hold, by id, each with the reason.

    `elastic` is the width of the widest node that an autoscaling cluster may add.
    """
    reasons = {}
    for trial in trials:
        reason = _refusal(trial, session.nodes, session.resources, elastic or 0)
        if reason is not None:
            reasons[trial.id] = reason
    return reasons


def run(
    search: Search,
    *,
    study: Study,
    session: Session,
    on_event: OnEvent,
    stop: Callable[[], bool],
    first_attempt: FirstAttempt = lambda trial: trial.attempt,
    lease_class: str = LEASE_CLASS,
    patience: Patience = PATIENCE,
) -> None:
    """Place what a search asks for, hand on what it tells, until all is done or given up.

    `on_event(trial, event)` runs in this process, one event at a time and in order; a lease goes
    on only when it has returned. Beside what leases tell there are `death`s of actors and nodes,
    and `given_up` (`points`, `reason`), whose trial holds exactly the launches and points that
    will not be tried again. When `stop()` becomes true every lease is ended, with all of its
    processes, and this returns.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed and nobody else handles it; all leases are ended.
        Exception: whatever `on_event` raised; all leases are ended.
    """
    os.environ.update(TUNE_ENVIRONMENT)
    from ray import tune

    from sweeper.cluster.actor import LeaseActor
    from sweeper.cluster.searcher import Desk, Hearing, OneSearcher, Stopping, Watching

    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    pool = Pool(session.nodes, max_gpus=session.resources.max_gpus)
    dispatcher = Dispatcher(search, pool, session.resources, on_event, first_attempt)
    if dispatcher.finished:
        return
    scratch = tempfile.mkdtemp(prefix="sweeper-tune-")
    with _interruptions() as interrupted:

        def stopped() -> bool:
            return interrupted.is_set() or stop()

        desk = Desk(
            dispatcher=dispatcher,
            session=session,
            study=study.name,
            stop=stopped,
            lease_class=lease_class,
            patience=patience,
        )
        try:
            tuner = tune.Tuner(
                LeaseActor,
                tune_config=tune.TuneConfig(
                    search_alg=OneSearcher(desk),
                    scheduler=Watching(desk),
                    num_samples=-1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="study",
                    storage_path=scratch,
                    callbacks=[Hearing(desk)],
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    failure_config=tune.FailureConfig(max_failures=0),
                    stop=Stopping(desk),
                    verbose=0,
                ),
            )
            tuner.fit()
        except Exception:
            if desk.error is not None:
                raise desk.error from None
            raise
        finally:
            _farewell(list(desk.actors.values()))
            shutil.rmtree(scratch, ignore_errors=True)
        if interrupted.is_set():
            raise KeyboardInterrupt


def _refusal(
    trial: Trial, nodes: Sequence[Node], resources: ResourcesSpec, elastic: int
) -> str | None:
    widest = max((len(node.devices) for node in nodes), default=0)
    if not any(node.gpus for node in nodes) and not elastic:
        kind = trial.launches[0].points[0].settings.engine.kind
        if trial.gpus > 1 or engine_traits(kind).needs_gpu:
            return f"{trial.gpus} GPUs for one launch of {kind}, on a cluster that has none"
    if trial.gpus > max(widest, elastic):
        return f"{trial.gpus} GPUs for one launch, on {max(widest, elastic)}-GPU nodes"
    if resources.max_gpus is not None and trial.gpus > resources.max_gpus:
        return f"{trial.gpus} GPUs for one launch, with resources.max_gpus at {resources.max_gpus}"
    if resources.exclusive_node and resources.max_gpus is not None and not elastic:
        fitting = [len(node.devices) for node in nodes if len(node.devices) >= trial.gpus]
        if min(fitting, default=0) > resources.max_gpus:
            return (
                f"resources.exclusive_node: nodes of {min(fitting)} GPUs, "
                f"with resources.max_gpus at {resources.max_gpus}"
            )
    most = max((node.cpus for node in nodes if len(node.devices) >= trial.gpus), default=0.0)
    if resources.cpus != "auto" and resources.cpus > most and not elastic:
        return f"resources.cpus: {resources.cpus} CPUs, on nodes with at most {most:g} free"
    return None


@contextmanager
def _interruptions() -> Iterator[threading.Event]:
    """Ctrl-C sets an event instead of landing in the middle of Tune; a second one is raised."""
    event = threading.Event()
    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if ours else None

    def interrupt(number: int, frame: Any) -> None:
        if event.is_set():
            signal.default_int_handler(number, frame)
        event.set()

    if before is not signal.default_int_handler:
        yield event
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def _farewell(actors: Sequence[Any]) -> None:
    """End the leases of actors that are still there, kindly and then for good."""
    asked = []
    for actor in actors:
        try:
            asked.append(actor.stop.remote())
        except Exception:  # It is gone already, and its guardian with what it had.
            continue
    if asked:
        ray.wait(asked, num_returns=len(asked), timeout=FAREWELL_S)
    for actor in actors:
        ray.kill(actor)
