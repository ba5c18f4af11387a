"""What the commands print: the answers as text, and the last words of a study."""

import json
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeper.answers.best import Answer, answers
from sweeper.answers.claims import judged
from sweeper.answers.criteria import minimizing, parse_where
from sweeper.answers.discards import discards_of, with_discards
from sweeper.answers.summary import answers_object
from sweeper.answers.table import WIDTH, table
from sweeper.dry_run import duration
from sweeper.results.record import Record
from sweeper.shelf import Shelved

if TYPE_CHECKING:
    from sweeper.driver import Outcome  # which would bring Ray
    from sweeper.rehearsal import Course


def answers_text(
    shelved: Sequence[Shelved],
    *,
    only_best: bool,
    minimize: Sequence[str],
    where: Sequence[str],
    as_json: bool,
    discarded: bool = False,
) -> tuple[str, bool]:
    """The answers of studies as text or JSON, and whether a condition has no best.

    Several studies are put on one front with the objectives of the first. Metrics to minimise
    are the axes of a front, but for the best only stand before the study's objectives. `discarded`
    counts the windows whose energy was discarded, where their readings tell joules.
    """
    study = shelved[0].study
    if len(shelved) > 1:
        study = replace(study, name=" + ".join(each.study.name for each in shelved))
    measured = [record for each in shelved for record in each.records]
    records = with_discards(measured) if discarded else tuple(measured)
    others = study.objectives if only_best else {}
    found = answers(
        records,
        study,
        objectives=minimizing(minimize, others) if minimize else None,
        where=parse_where(where),
    )
    unmet = any(answer.best is None for answer in found)
    if as_json:
        told = answers_object(
            study.name, found, measured, judged(study, records), with_discards=discarded
        )
        return json.dumps(told), unmet
    if only_best:
        found = tuple(_without_the_rest(answer) for answer in found)
    lead = f"{_WITH_DISCARDS}\n\n" if discarded else ""
    return lead + table(study, records, found).rstrip() + _discarded(measured, discarded), unmet


_WITH_DISCARDS = (
    "WITH DISCARDED WINDOWS INCLUDED: joules that were judged not to be those of the work"
)


def _discarded(records: Sequence[Record], included: bool) -> str:
    """How many windows have no energy, why, and how to see the answer with them."""
    found = discards_of(records)
    if not found.windows:
        return ""
    codes = ", ".join(f"{count} {code}" for code, count in found.codes.items())
    lines = textwrap.wrap(f"windows without energy: {found.windows} ({codes})", WIDTH)
    if included:
        lines.append(f"included here: {found.usable}, whose readings still tell joules")
    elif found.usable:
        lines.append(f"--with-discards includes {found.usable}, whose readings still tell joules")
    return "\n".join(["", "", *lines])


def last_words(outcome: "Outcome") -> str:
    """The table of a study's answers, and where everything is."""
    lines = [
        "",
        table(outcome.study, outcome.records, outcome.answers).rstrip()
        + _discarded(outcome.records, False)
        + "\n",
        f"report   {outcome.summary['report']}",
        f"records  {outcome.folder}",
        f"MLflow   {_how_to_see(outcome.summary['tracking_uri'])}",
        f"         there: Model training, {outcome.study.name}; sort by a metric to list records",
    ]
    if outcome.course is not None:
        lines[1:1] = [*course_lines(outcome.course), ""]
    if outcome.behind:
        lines.append(
            f"         {outcome.behind} records behind; the same command brings it up to date"
        )
    return "\n".join(lines)


def course_lines(course: "Course") -> list[str]:
    """What a rehearsal came to."""
    without = f", without {course.unmetered} leases that died" if course.unmetered else ""
    return [
        f"rehearsed on {course.pool}, simulated and not measured:",
        f"  time      {duration(course.makespan_s)}",
        f"  GPUs      {course.gpu_seconds / 3600:.2f} GPU-hours",
        f"  energy    {course.energy_j / 3.6e6:.2f} kWh, loading and waiting included{without}",
    ]


def _how_to_see(uri: str) -> str:
    return uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {uri}"


def _without_the_rest(answer: Answer) -> Answer:
    kept = (answer.best,) if answer.best is not None else ()
    saved = tuple(each for each in answer.savings if each.result in kept)
    return replace(answer, group=replace(answer.group, results=kept), savings=saved)
