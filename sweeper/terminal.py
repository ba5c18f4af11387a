"""What the commands print: the answers as text, and the last words of a study."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sweeper.answers.best import Answer, answers
from sweeper.answers.criteria import minimizing, parse_where
from sweeper.answers.summary import answers_object
from sweeper.answers.table import table
from sweeper.dry_run import duration
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
) -> tuple[str, bool]:
    """The answers of studies as text or JSON, and whether a condition has no best.

    Several studies are put on one front with the objectives of the first. Metrics to minimise
    are the axes of a front, but for the best only stand before the study's objectives.
    """
    study = shelved[0].study
    if len(shelved) > 1:
        study = replace(study, name=" + ".join(each.study.name for each in shelved))
    records = [record for each in shelved for record in each.records]
    others = study.objectives if only_best else {}
    found = answers(
        records,
        study,
        objectives=minimizing(minimize, others) if minimize else None,
        where=parse_where(where),
    )
    unmet = any(answer.best is None for answer in found)
    if as_json:
        return json.dumps(answers_object(study.name, found)), unmet
    if only_best:
        found = tuple(_without_the_rest(answer) for answer in found)
    return table(study, records, found).rstrip(), unmet


def last_words(outcome: "Outcome") -> str:
    """The table of a study's answers, and where everything is."""
    lines = [
        "",
        table(outcome.study, outcome.records, outcome.answers),
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
    return replace(answer, group=replace(answer.group, results=kept))
