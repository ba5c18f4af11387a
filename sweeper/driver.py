"""The study's loop: plan -> trials -> journal -> answers; a stopped study goes on where it was.

    plan(study, done) --trials--> cluster.run --events--> journal --tail--> MLflow
                                                             `--> answers

The journal is written before anything else hears of an event, and the trial goes on only then.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from sweeper.answers.best import Answer, answers
from sweeper.answers.claims import judged
from sweeper.answers.export import rows, table_bytes
from sweeper.answers.figure import figure
from sweeper.answers.page import FILE as REPORT
from sweeper.answers.page import page, save
from sweeper.answers.page_cost import wall_s
from sweeper.answers.page_figures import figures
from sweeper.answers.summary import held_gpu_seconds, summary
from sweeper.answers.table import headline, table
from sweeper.blocks import left, promise
from sweeper.cluster.attempts import next_attempt
from sweeper.cluster.session import Session, connect
from sweeper.cluster.tuning import infeasible, run
from sweeper.errors import JournalError, MachineryError, PlaceError, StudyError
from sweeper.forecast import PoolNode, cost_on
from sweeper.gpu_data import gpu
from sweeper.keeper import Keeper
from sweeper.plan import NOMINAL, Cost, Plan, by_configuration, min_requests, plan
from sweeper.progress.progress import Progress
from sweeper.progress.views import View
from sweeper.rehearsal import Course, course
from sweeper.results.contents import FILE, Contents, read
from sweeper.results.files import refuse_unwritable
from sweeper.results.journal import Journal
from sweeper.results.record import Key, Record
from sweeper.results.tracking import Tracking, check
from sweeper.search import Circumstances, Search, search_for
from sweeper.search.announced import Announced, budget_words
from sweeper.search.budget import Elapsed
from sweeper.search.finals import Finals, chosen_blocks
from sweeper.shelf import of_study
from sweeper.spec import Point, Study, Trial
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
    pool: tuple[PoolNode, ...] = ()
    """Nodes of a pretend cluster to run it on: the study is then a rehearsal."""

    def folder(self, study: Study) -> Path:
        """Where a study's journal is."""
        return self.root / "studies" / study.name


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A study at its end: its records that stand, the answers, and the `--json` object.

    `course` is of a rehearsal alone.
    """

    study: Study
    folder: Path
    records: tuple[Record, ...]
    answers: tuple[Answer, ...]
    summary: dict[str, Any]
    behind: int
    interrupted: bool
    course: Course | None


def drive(study: Study, options: Options, view: View, stop: Stop) -> Outcome:
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
        with place(study, options) as session:
            stop.listen()
            before = journal.contents if journal is not None else Contents()
            again = taken_back(of_study(before, study), session.environment(), folder, options)
            refuse_impossible(to_do(study, before, again), session)
            if journal is None:
                journal = opened.enter_context(Journal.open(folder, dump(study)))
            tracking = opened.enter_context(
                Tracking(study.tracking.uri, study.name, folder, options.root)
            )
            sit_down(journal, session, again)
            try:
                measure(study, folder, journal, session, view, stop)
            except PlaceError as error:
                # It was in order when the study began.
                raise MachineryError(str(error)) from error
        contents = of_study(read(folder / FILE), study)
        records = contents.standing()
        found = answers(records, study)
        text = page(study, contents, found)
        behind = publish(study, records, found, text, tracking, stop)
    report = save(text, figures(study, found), folder)
    rehearsal = course(study, contents, options.pool) if options.pool else None
    return Outcome(
        study=study,
        folder=folder,
        records=records,
        answers=found,
        summary=summary(
            study.name,
            records,
            found,
            judged(study, records),
            points=points,
            gpu_seconds=held_gpu_seconds(contents),
            wall_seconds=time.monotonic() - started_s,
            tracking_uri=tracking.public_uri,
            report=str(report),
        )
        | ({"rehearsal": asdict(rehearsal)} if rehearsal is not None else {}),
        behind=behind,
        interrupted=stop.is_set(),
        course=rehearsal,
    )


def to_do(study: Study, before: Contents, again: Sequence[Record]) -> Plan:
    """What is left of a study, as far as it is known: when all else is done, its blocks."""
    lost = {record.key for record in again}
    own = of_study(before, study).accepted()
    accepted = {key: record for key, record in own.items() if key not in lost}
    todo = plan(study, done=accepted.keys())
    if todo.trials:
        return todo
    screened = Contents(records=tuple(accepted.values()))
    return replace(todo, trials=left(chosen_blocks(study, screened), accepted))


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


def place(study: Study, options: Options) -> Session:
    """The cluster that a study runs on: one that it joins or starts, or a pretend one."""
    if not options.pool:
        return connect(study.cluster, study.resources)
    from sweeper.cluster.pretend import rehearse

    return rehearse(options.pool, study.resources)


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
    study: Study, folder: Path, journal: Journal, session: Session, view: View, stop: Stop
) -> None:
    """Place what the search asks for, journal what it tells, until nothing is left."""
    before = read(folder / FILE)
    own = of_study(before, study)
    done, cost = own.accepted().keys(), _cost(study, session)
    around = Circumstances(
        before=own, done=done, devices=session.devices, cost=cost, elapsed=_elapsed(own)
    )
    search = search_for(study, around)
    todo = plan(study, done=done, devices=session.devices, cost=cost)
    chosen = study.search.kind != "grid"
    progress = Progress(study, todo, own, folder, view, chosen=chosen)
    if chosen or isinstance(search, Finals):
        search = announced(search, study, progress, todo.points)
    with progress:
        keeper = Keeper(study, journal, progress, search, own.accepted().values())
        run(
            search,
            study=study,
            session=session,
            on_event=keeper.take,
            stop=stop.is_set,
            first_attempt=lambda trial: next_attempt(trial, before),
        )


def announced(
    search: Search, study: Study, progress: Progress, points: Sequence[Point]
) -> Announced:
    """A search that tells the progress what it asks for and may yet ask for.

    What a grid asks for the progress knows, but for the blocks that follow it.
    """
    grid = study.search.kind == "grid"
    budget = budget_words(study.search.budget)
    blocks = promise(study, points)

    def say(asked: Sequence[Trial]) -> None:
        told, then, more = asked, None, not search.finished
        if isinstance(search, Finals):
            then, more = None if search.chosen else blocks, search.searching
        if grid:
            told, more = [trial for trial in asked if trial.block], False
        progress.planned(told, more=more, budget=None if grid else budget, then=then)

    say(())
    return Announced(search, say)


def publish(
    study: Study,
    records: tuple[Record, ...],
    found: tuple[Answer, ...],
    report: str,
    tracking: Tracking,
    stop: Stop,
) -> int:
    """Bring MLflow up to date with the answers; how many records it lacks."""
    results = table_bytes(rows(records, found, judged(study, records)), ".csv")
    tracking.figures({REPORT: report.encode(), "results.csv": results, **figures(study, found)})
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


def _elapsed(before: Contents) -> Elapsed:
    """Seconds of this sitting and of those before it."""
    earlier_s, began_s = wall_s(before), time.monotonic()
    return lambda: earlier_s + time.monotonic() - began_s


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
