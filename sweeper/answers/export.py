"""The results as a table for other programs, CSV or Parquet (pure but for `save`).

A row for each result, then one for each point without any: what became of it, and no numbers. What
is not known is null, in CSV an empty field; it is never NaN and never zero.
"""

import io
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from sweeper.answers.best import Answer
from sweeper.answers.change import Change
from sweeper.answers.claims import Judgement
from sweeper.answers.quality import is_unchecked
from sweeper.answers.results import STAGES, Result, canonical, order, settled
from sweeper.answers.summary import WORST_FIRST
from sweeper.errors import StudyError
from sweeper.results.files import write_whole
from sweeper.results.record import Record, Status

SUFFIXES = (".csv", ".parquet")
FACTS: Mapping[str, type] = {
    "study": str,
    "id": str,
    "stage": str,
    "status": str,
    "reason": str,
    "condition": str,
    "provenance": str,
    "energy_source": str,
    "energy_measured": bool,
    "energy_method": str,
    "energy_scope": str,
    "energy_systematic": float,
    "on_front": bool,
    "best": bool,
    "quality": str,
    "front_ties": str,
    "baseline": str,
    "undersampled": str,
    "claims": str,
    "convention": str,
    "gpus": int,
    "launches": int,
    **{f"launches_{status}": int for status in get_args(Status)},
}
"""The columns before settings and metrics; every table has them."""

CHANGES: Mapping[str, type] = {
    "ratio": float,
    "ratio_ci95_low": float,
    "ratio_ci95_high": float,
    "ratio_paired": bool,
    "ratio_blocks": int,
    "ratio_launches": int,
    "ratio_baseline_launches": int,
    "ratio_boards": int,
    "ratio_baseline_boards": int,
    "ratio_systematic": float,
    "ratio_p": float,
    "ratio_p_adjusted": float,
    "ratio_adjustment": str,
    "ratio_comparisons": int,
    "ratio_significant": bool,
}
"""The columns of a metric's change from the baseline, each after the metric's name."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A result or a point without one: `facts` by the names of `FACTS`, settings, metrics.

    `changes` from the baseline are by metric, each by the names of `CHANGES`.
    """

    facts: Mapping[str, Any]
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    changes: Mapping[str, Mapping[str, Any]]
    launch_command: str | None


def save(
    path: Path,
    records: Iterable[Record],
    answers: Sequence[Answer],
    claims: Sequence[Judgement] = (),
) -> Path:
    """Write the table; where it is. What stood there before stays until the new one is whole.

    Raises:
        StudyError: the name says neither CSV nor Parquet.
        PlaceError: the file cannot be written.
    """
    if path.suffix not in SUFFIXES:
        raise StudyError(f"--to {path}: the name of a table ends in {' or '.join(SUFFIXES)}")
    write_whole(path, table_bytes(rows(records, answers, claims), path.suffix))
    return path


def rows(
    records: Iterable[Record], answers: Sequence[Answer], claims: Sequence[Judgement] = ()
) -> list[Row]:
    """A row for each result of the answers, in their order, then one for each other point.

    `status` is `ok` where a launch was, else the gravest; `launches_ok` and its like count every
    launch of the point and stage, `launches` those that the numbers are of. `claims` are those that
    were decided by the result against another: metric, what was published, and the verdict.
    """
    points: dict[str, list[Record]] = {}
    for record in settled(records):
        points.setdefault(record.id, []).append(record)
    found = [
        _with_numbers(_bare(points[result.id], result.stage), result, answer, claims)
        for answer in answers
        for result in answer.group.results
    ]
    shown = {row.facts["id"] for row in found}
    others = [made for name, made in points.items() if name not in shown]
    others.sort(key=lambda made: (order(made[0].condition), order(made[0].chosen), made[0].id))
    return [*found, *(_bare(made, min(_stages(made), key=STAGES.index)) for made in others)]


def _stages(made: Iterable[Record]) -> set[str]:
    return {record.stage for record in made}


def _bare(point: Sequence[Record], stage: str) -> Row:
    """What is known of a point apart from numbers."""
    made = [record for record in point if record.stage == stage]
    first = made[0]
    counted = Counter(record.status for record in made)
    reasons = dict.fromkeys(record.reason for record in made if record.reason)
    facts = {
        "study": first.study,
        "id": first.id,
        "stage": stage,
        "status": "ok" if counted["ok"] else next(each for each in WORST_FIRST if counted[each]),
        "reason": "; ".join(reasons) or None,
        "condition": canonical(dict(first.condition)),
        "on_front": False,
        "best": False,
        "convention": first.convention,
        "gpus": first.gpus,
        "launches": 0,
        **{f"launches_{status}": counted[status] for status in get_args(Status)},
    }
    return Row(facts=facts, settings=first.config, metrics={}, changes={}, launch_command=None)


def _with_numbers(bare: Row, result: Result, answer: Answer, claims: Sequence[Judgement]) -> Row:
    energy = result.energy
    origin = energy and {
        "energy_source": energy.source,
        "energy_measured": energy.measured,
        "energy_method": energy.method,
        "energy_scope": energy.scope,
        "energy_systematic": energy.systematic,
    }
    ties = [
        tied for shown, tied in zip(answer.front, answer.front_ties, strict=True) if shown is result
    ]
    saving = next((each for each in answer.savings if each.result is result), None)
    facts = {
        **bare.facts,
        **(origin or {}),
        "provenance": result.provenance,
        "on_front": any(result is each for each in answer.front),
        "best": result is answer.best,
        "quality": "unchecked" if is_unchecked(result) else None,
        "front_ties": " ".join(each.id for tied in ties for each in tied) or None,
        "baseline": saving.baseline.id if saving else None,
        "undersampled": " ".join(result.undersampled) or None,
        "claims": "; ".join(
            f"{each.claim.metric} {each.claim.change}: {each.verdict}"
            for each in claims
            if each.result is not None and each.result.id == result.id
        )
        or None,
        "launches": result.launches,
    }
    return Row(
        facts=facts,
        settings=bare.settings,
        metrics=result.metrics,
        changes={metric: _cells(each) for metric, each in saving.changes.items()} if saving else {},
        launch_command=result.launch_command,
    )


def _cells(change: Change) -> dict[str, Any]:
    return {
        "ratio": change.ratio,
        "ratio_ci95_low": change.low,
        "ratio_ci95_high": change.high,
        "ratio_paired": change.paired,
        "ratio_blocks": change.blocks,
        "ratio_launches": change.launches[0],
        "ratio_baseline_launches": change.launches[1],
        "ratio_boards": change.boards[0],
        "ratio_baseline_boards": change.boards[1],
        "ratio_systematic": change.systematic,
        "ratio_p": change.p,
        "ratio_p_adjusted": change.p_adjusted,
        "ratio_adjustment": change.adjustment,
        "ratio_comparisons": change.family or None,
        "ratio_significant": change.significant,
    }


def table_bytes(rows: Sequence[Row], suffix: str) -> bytes:
    """Rows as a file of the format that `suffix` names.

    Settings stand under their dotted names, mappings and lists as JSON; metrics under their names,
    with `_ci95_low`, `_ci95_high` or `_sd_windows` behind them, in SI units. A column of `CHANGES`
    is there where a result has it.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    types = {str: pa.string(), bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
    columns = {
        name: pa.array([_plain(row.facts.get(name)) for row in rows], types[kind])
        for name, kind in FACTS.items()
    }
    for name in dict.fromkeys(name for row in rows for name in row.settings):
        kind, cells = _alike([_plain(row.settings.get(name)) for row in rows])
        columns[name] = pa.array(cells, types[kind])
    for name in sorted({name for row in rows for name in row.metrics}):
        columns[name] = pa.array([_plain(row.metrics.get(name)) for row in rows], pa.float64())
    for metric in sorted({metric for row in rows for metric in row.changes}):
        for name, kind in CHANGES.items():
            cells = [_plain(row.changes.get(metric, {}).get(name)) for row in rows]
            if any(cell is not None for cell in cells):
                columns[f"{metric}_{name}"] = pa.array(cells, types[kind])
    columns["launch_command"] = pa.array([row.launch_command for row in rows], pa.string())
    file = io.BytesIO()
    write = csv.write_csv if suffix == ".csv" else parquet.write_table
    write(pa.table(columns), file)
    return file.getvalue()


def _alike(values: Sequence[Any]) -> tuple[type, list[Any]]:
    """Settings of one key as cells of one type: as they are where all are alike, else as text."""
    known = {type(value) for value in values if value is not None}
    wide = any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in values)
    for kind in () if wide else (bool, int, float):
        if known and known <= ({int, float} if kind is float else {kind}):
            return kind, list(values)
    return str, [
        value if value is None or isinstance(value, str) else canonical(value) for value in values
    ]


def _plain(value: Any) -> Any:
    """A cell; a number that is not finite says nothing."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
