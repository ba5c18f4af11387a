"""The study's loop: plan -> trials -> journal -> answers; a stopped study goes on where it was.

    plan(study, done) --trials--> cluster.run --events--> journal --tail--> MLflow
                                                             `--> answers

The journal is written before anything else hears of an event, and the trial goes on only then.
"""

import errno
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from sweeper.answers.best import Answer, answers
from sweeper.answers.figure import figure
from sweeper.answers.page import FILE as REPORT
from sweeper.answers.page import page, save
from sweeper.answers.summary import summary
from sweeper.answers.table import headline, table
from sweeper.cluster.attempts import next_attempt
from sweeper.cluster.progress import Progress
from sweeper.cluster.session import Session, connect
from sweeper.cluster.tuning import infeasible, run
from sweeper.errors import JournalError, MachineryError, PlaceError, StudyError
from sweeper.forecast import cost_on
from sweeper.gpu_data import gpu
from sweeper.keeper import Keeper
from sweeper.plan import NOMINAL, Cost, Plan, by_configuration, min_requests, plan
from sweeper.results.contents import FILE, Contents, read
from sweeper.results.files import writing
from sweeper.results.journal import Journal
from sweeper.results.record import Key, Record
from sweeper.results.tracking import Tracking, check
from sweeper.spec import Study
from sweeper.study import dump, unavailable
from sweeper.trial.bench import utc_now
from sweeper.trial.environment import changes, fingerprint

TRACKING_PATIENCE_S = 120.0
"""How long the end of a study waits for MLflow to have everything."""

FAREWELL_S = 5.0
"""The same after an interruption, when somebody waits for the prompt."""

Changed = Literal["stop", "remeasure", "mix"]
"""What to do when the environment is not the one that the journal's records were measured in."""
Retry = Literal["failed", "energy_invalid"]
Say = Callable[[str], None]


class Stop(Protocol):
    """Whether somebody asked for an orderly end."""

    def listen(self) -> None:
        """Hear Ctrl-C and SIGTERM from here on, whoever heard them before."""
        ...

    def is_set(self) -> bool:
        """Whether it was asked for."""
        ...


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the command line wants a study run."""

    root: Path
    changed: Changed = "stop"
    retry: Retry | None = None

    def folder(self, study: Study) -> Path:
        """Where a study's journal is."""
        return self.root / "studies" / study.name


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A study at its end: its records that stand, the answers, and the `--json` object."""

    study: Study
    folder: Path
    records: tuple[Record, ...]
    answers: tuple[Answer, ...]
    summary: dict[str, Any]
    behind: int
    interrupted: bool


def drive(study: Study, options: Options, say: Say, stop: Stop) -> Outcome:
    """Run a study, or go on with it, until every point has a verdict or `stop` is set.

    Raises:
        StudyError: the study asks for what is not there, or nothing is left of its axes.
        PlaceError: the cluster, the folder or the tracking server cannot be used.
        MachineryError: the cluster died, or the journal could no longer be written.
        JournalError: another driver has the study, its journal is damaged, or its environment
            changed and `options.changed` says to stop.
    """
    if missing := unavailable(study):
        raise StudyError(missing)
    points = len(plan(study).points)
    folder = options.folder(study)
    refuse_unwritable(folder)
    check(study.tracking.uri, options.root)
    started_s = time.monotonic()
    with ExitStack() as opened:
        # One that was begun is locked, and found damaged, before Ray starts; one that was not
        # leaves no folder where the cluster refuses it.
        begun = (folder / FILE).exists()
        journal = opened.enter_context(Journal.open(folder, dump(study))) if begun else None
        with connect(study.cluster, study.resources) as session:
            stop.listen()
            before = journal.contents if journal is not None else Contents()
            again = taken_back(before, session.environment(), folder, options)
            kept = before.accepted().keys() - {record.key for record in again}
            refuse_impossible(plan(study, done=kept), session)
            if journal is None:
                journal = opened.enter_context(Journal.open(folder, dump(study)))
            tracking = opened.enter_context(
                Tracking(study.tracking.uri, study.name, folder, options.root)
            )
            sit_down(journal, session, again)
            try:
                measure(study, folder, journal, session, say, stop)
            except PlaceError as error:
                # It was in order when the study began.
                raise MachineryError(str(error)) from error
        contents = read(folder / FILE)
        records = contents.standing()
        found = answers(records, study)
        text = page(study, contents, found)
        behind = publish(study, records, found, text, tracking, stop)
    report = save(text, folder)
    return Outcome(
        study=study,
        folder=folder,
        records=records,
        answers=found,
        summary=summary(
            study.name,
            records,
            found,
            points=points,
            wall_seconds=time.monotonic() - started_s,
            tracking_uri=tracking.public_uri,
            report=str(report),
        ),
        behind=behind,
        interrupted=stop.is_set(),
    )


def refuse_unwritable(folder: Path) -> None:
    """Whether a study's folder could be made and written; nothing is made.

    Raises:
        PlaceError: it could not; the message says what to do.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with writing(folder):
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def refuse_impossible(todo: Plan, session: Session) -> None:
    """Hold everything that is left to do against the cluster, before any GPU is held.

    Raises:
        PlaceError: a launch is wider than any node, or a node cannot launch an engine or have a
            model; the message names all that was found.
    """
    if refused := infeasible(todo.trials, session):
        way = (
            "take such values out of the study (engine.tensor_parallel and its like, resources), "
            "or use a cluster that has room"
        )
        raise PlaceError("\n".join(f"{reason}: {way}" for reason in sorted(set(refused.values()))))
    points = [point for launch in todo.launches for point in launch.points]
    each = [group[0].settings for group in by_configuration(points)]
    if faults := session.preflight(each):
        raise PlaceError("\n".join(faults))


def taken_back(
    before: Contents, environment: dict[str, Any], folder: Path, options: Options
) -> list[Record]:
    """The verdicts of sittings before that are to be measured again.

    Raises:
        JournalError: the environment is not that of the sittings before, and nobody said what to
            do about it.
    """
    known = before.sittings[-1]["environment"] if before.sittings else environment
    standing = before.accepted().values()
    again: list[Record] = []
    if standing and fingerprint(known) != fingerprint(environment):
        if options.changed == "stop":
            raise JournalError(
                f"{folder}: the environment changed since the journal began: "
                f"{'; '.join(changes(known, environment))}. Give --remeasure to measure "
                "everything again, or --mix to go on regardless"
            )
        if options.changed == "remeasure":
            again += standing
    if options.retry is not None:
        again += [record for record in standing if record.status == options.retry]
    return again


def sit_down(journal: Journal, session: Session, again: list[Record]) -> None:
    """Take back the verdicts that are to be measured again, and note this sitting."""
    for record in again:
        journal.supersede(record.key, record.attempt)
    environment = session.environment()
    journal.append(
        "sitting",
        {
            "started_at": utc_now(),
            "fingerprint": fingerprint(environment),
            "environment": environment,
            "nodes": [asdict(node) for node in session.nodes],
        },
    )


def measure(
    study: Study, folder: Path, journal: Journal, session: Session, say: Say, stop: Stop
) -> None:
    """Place every trial that is left, journal what it tells, until all are done."""
    before = read(folder / FILE)
    cost = _cost(study, session)
    todo = plan(study, done=before.accepted().keys(), devices=session.devices, cost=cost)
    progress = Progress(study, todo, before, folder, say)
    progress.begin()
    keeper = Keeper(study, journal, progress)
    trials = [replace(trial, attempt=next_attempt(trial, before)) for trial in todo.trials]
    run(trials, study=study, session=session, on_event=keeper.take, stop=stop.is_set)


def publish(
    study: Study,
    records: tuple[Record, ...],
    found: tuple[Answer, ...],
    report: str,
    tracking: Tracking,
    stop: Stop,
) -> int:
    """Bring MLflow up to date with the answers; how many records it lacks."""
    tracking.figures({REPORT: report.encode()})
    if (picture := figure(found, study)) is not None:
        tracking.figures({"front.png": picture})
    tracking.front(front_keys(records, found))
    tracking.note(headline(found), table(study, records, found))
    if stop.is_set():
        return tracking.finish(FAREWELL_S, "KILLED")
    return tracking.finish(TRACKING_PATIENCE_S)


def front_keys(records: tuple[Record, ...], found: tuple[Answer, ...]) -> list[Key]:
    """The keys of the records whose results are on a front."""
    ids = {result.id for answer in found for result in answer.front}
    return [record.key for record in records if record.id in ids and record.accepted]


def _cost(study: Study, session: Session) -> Cost:
    """What the roofline expects on the pool's GPUs, where all are of one known type."""
    types = {node.gpu_type for node in session.nodes}
    only = types.pop() if len(types) == 1 else None
    if only is None:
        return NOMINAL
    try:
        return cost_on(gpu(only), min_requests(study))
    except StudyError:
        return NOMINAL
