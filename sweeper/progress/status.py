"""How far a study is, seen from outside: its journal, and what its driver last told of itself."""

import io
import json
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from sweeper.blocks import promise
from sweeper.cluster.attempts import keys
from sweeper.plan import plan
from sweeper.progress import note
from sweeper.progress.best import BestSoFar
from sweeper.progress.frame import Frame
from sweeper.progress.snapshot import STATUSES, Snapshot, Trouble
from sweeper.progress.state import TROUBLES, aged
from sweeper.progress.views import NARROWEST
from sweeper.progress.words import code, duration, first_code, first_line, many, origin
from sweeper.results.contents import FILE, Contents, read
from sweeper.results.journal import ATTACHMENTS
from sweeper.results.lock import holder
from sweeper.results.record import Energy
from sweeper.search.finals import chosen_blocks
from sweeper.shelf import begun
from sweeper.spec import Study
from sweeper.study import load

WIDTH = 100
"""Columns of a text that goes to no terminal."""
QUIET_S = 3 * note.SIGN_OF_LIFE_S
"""A driver that has told nothing for longer stands still, or its disk is slow."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A study as others find it.

    `driver` says who has it, since when; `age_s` is how long ago that driver last told of itself.
    `now` counts all sittings.
    """

    folder: Path
    state: Literal["running", "finishing", "interrupted", "ended"]
    driver: str | None
    age_s: float | None
    now: Snapshot

    @property
    def go_on(self) -> str | None:
        """The command that goes on with a study that nobody has, if there is anything to do."""
        if self.state == "interrupted" or (self.state == "ended" and self.now.counts["failed"]):
            return f"python -m sweeper {shlex.quote(str(self.folder))}"
        return None


def status_text(name: str, root: Path, *, as_json: bool) -> str:
    """What is known of a study by its YAML file or its folder.

    Raises:
        StudyError: there is none, or nothing of it was begun.
        JournalError: its journal is damaged.
    """
    seen = look(begun(name, root)[1])
    if as_json:
        found = {"folder": str(seen.folder), "state": seen.state, "driver": seen.driver}
        known = {"age_s": seen.age_s, "go_on": seen.go_on}
        return json.dumps({**found, **known, **seen.now.to_json()})
    width = max(shutil.get_terminal_size((WIDTH, 24)).columns, NARROWEST)
    paper = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    with paper.capture() as capture:
        paper.print(Frame(now=seen.now))
    return f"{_headline(seen)}\n{capture.get()}{_way_on(seen)}".rstrip()


def look(folder: Path) -> Seen:
    """A study's folder, in which another process may be writing."""
    driver = holder(folder)
    told = note.read(folder)
    # What another sitting left says nothing of this one.
    ours = told if told is not None and driver and driver.startswith(told.driver) else None
    age_s = _age_s(told.written_at) if told is not None else None
    live = aged(ours.progress, age_s or 0.0) if ours and ours.state == "running" else None
    now = so_far(load(folder), read(folder / FILE), folder, live)
    if driver is not None:
        over = ours is not None and ours.state != "running"
        return Seen(
            folder=folder,
            state="finishing" if over else "running",
            driver=driver,
            age_s=age_s if ours else None,
            now=now,
        )
    # A search ends when it asks for no more, which only its driver knew.
    over = now.left == 0 and (not now.more or (told is not None and told.state == "ended"))
    return Seen(
        folder=folder,
        state="ended" if over else "interrupted",
        driver=None,
        age_s=age_s,
        now=now,
    )


def so_far(study: Study, contents: Contents, folder: Path, live: Snapshot | None) -> Snapshot:
    """All sittings of a study, with what a driver tells of the launches that are under way."""
    planned = plan(study)
    kinds = {point.id: point.settings.engine.kind for point in planned.points}
    standing = [record for record in contents.standing() if record.id in kinds]
    verdicts = {record.key: record.status for record in standing}
    grid = study.search.kind == "grid"
    asked = {
        (point.id, number, "full")
        for point in planned.points
        for number in range(study.settings.measure.launches)
    }
    then = live.then if live is not None else None
    if grid and live is None:
        if asked <= verdicts.keys():
            made = chosen_blocks(study, contents)
            asked |= {key for block in made for key in keys(block)}
        else:
            then = promise(study, planned.points)
    best = BestSoFar(study)
    best.add(standing)
    counted = Counter(verdicts.values())
    held = live.under_way if live is not None else ()
    held_gpu_s = sum(each.gpus * each.held_s for each in held)
    return Snapshot(
        study=study.name,
        asked=len(asked | verdicts.keys())
        if grid and live is None
        else _asked(live, len(verdicts)),
        launches=live.launches if live is not None else 0,
        more=live.more if live is not None else not grid,
        budget=live.budget if live is not None else None,
        then=then,
        counts={status: counted[status] for status in STATUSES},
        under_way=held,
        leases=len(contents.trials),
        unended=max(0, len(contents.trials) - len(contents.ended) - len(held)),
        deaths=Counter(code(line["reason"]) for line in contents.deaths),
        discards=Counter(
            first_code(line["reasons"]) for line in contents.windows if line.get("energy_j") is None
        ),
        gpu_seconds=contents.gpu_seconds() + held_gpu_s,
        energy_j=_joules(contents.windows, kinds),
        share=live.share if live is not None and not live.before else None,
        left_s=live.left_s if live is not None else None,
        best=best.now(0.0),
        troubles=tuple(_troubles(contents, folder)),
    )


def _asked(live: Snapshot | None, verdicts: int) -> int:
    return verdicts if live is None else max(verdicts, live.asked + live.before)


def _joules(windows: Iterable[Mapping[str, Any]], kinds: Mapping[str, str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in windows:
        if (joules := line.get("energy_j")) is not None:
            told = line.get("energy")
            simulated = kinds.get(line["id"]) == "simulated"
            what = origin(Energy(**told) if told else None, simulated=simulated)
            found[what] = found.get(what, 0.0) + joules
    return found


def _troubles(contents: Contents, folder: Path) -> Iterable[Trouble]:
    """The last deaths, each with its log; then failures that were none."""
    logs = [line for line in contents.attachments if line["role"] == "engine_log"]
    died = [
        (line["trial_id"], line.get("attempt"), first_line(line["reason"]))
        for line in contents.deaths
    ]
    failed = [
        (record.trial_id, record.attempt, first_line(record.reason or ""))
        for record in contents.standing()
        if record.status == "failed"
    ]
    known = {(trial, reason) for trial, _, reason in died}
    others = [each for each in failed if (each[0], each[2]) not in known]
    for trial_id, attempt, reason in [*died, *others][-TROUBLES:]:
        of = (trial_id, attempt)
        mine = [log["name"] for log in logs if (log.get("trial_id"), log.get("attempt")) == of]
        yield Trouble(
            trial_id=trial_id,
            reason=reason,
            log=str(folder / ATTACHMENTS / mine[-1]) if mine else None,
        )


def _headline(seen: Seen) -> str:
    name = seen.now.study
    sign = f"; last sign of life {duration(seen.age_s)} ago" if seen.age_s is not None else ""
    match seen.state:
        case "running":
            slow = " (is it still at work?)" if (seen.age_s or 0.0) > QUIET_S else ""
            return f"{name} is being measured by {seen.driver}{sign}{slow}"
        case "finishing":
            return f"{name} is measured; {seen.driver} brings the page and MLflow up to date"
        case "interrupted":
            return f"{name} was interrupted: nobody is measuring it{sign}"
        case "ended":
            return f"{name} has ended"


def _way_on(seen: Seen) -> str:
    folder = shlex.quote(str(seen.folder))
    if seen.state == "ended" and seen.go_on:
        return f"{many(seen.now.counts['failed'], 'failure')}; measure again with: {seen.go_on}\n"
    if seen.go_on:
        return f"go on with: {seen.go_on}\n"
    return f"answers: python -m sweeper best {folder}\n" if seen.state == "ended" else ""


def _age_s(written_at: str) -> float:
    return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(written_at)).total_seconds())
