"""The objects that `--json` prints (pure)."""

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sweeper.answers.best import Answer, Miss
from sweeper.answers.change import Change
from sweeper.answers.claim_words import claim_object
from sweeper.answers.claims import Judgement
from sweeper.answers.discards import Discards, discards_of
from sweeper.answers.drift import drift_object, drifts
from sweeper.answers.quality import is_unchecked
from sweeper.answers.results import Result, settled
from sweeper.answers.savings import Saving
from sweeper.results.contents import Contents
from sweeper.results.record import Record, Status

WORST_FIRST: tuple[Status, ...] = (
    "failed",
    "wrong_setting",
    "energy_invalid",
    "infeasible",
    "ok",
)
"""A point counts once, under the first of these that one of its launches came to."""


def summary(
    study: str,
    records: Sequence[Record],
    answers: Sequence[Answer],
    claims: Sequence[Judgement] = (),
    *,
    points: int,
    gpu_seconds: float,
    wall_seconds: float,
    tracking_uri: str | None,
    report: str | None = None,
) -> dict[str, Any]:
    """What a study came to; `points` are all that it plans, measured or not."""
    counted = counts(records)
    return {
        "study": study,
        "points": points,
        "ok": counted["ok"],
        "energy_invalid": counted["energy_invalid"],
        "wrong_setting": counted["wrong_setting"],
        "infeasible": counted["infeasible"],
        "failed": counted["failed"],
        "launches": launches(records),
        "gpu_seconds": gpu_seconds,
        "wall_seconds": wall_seconds,
        "discarded": discards_object(discards_of(records)),
        "answers": [answer_object(answer) for answer in answers],
        "claims": [claim_object(claim) for claim in claims],
        "report": report,
        "tracking_uri": tracking_uri,
    }


def answers_object(
    study: str,
    answers: Sequence[Answer],
    records: Iterable[Record],
    claims: Sequence[Judgement] = (),
    *,
    with_discards: bool = False,
) -> dict[str, Any]:
    """What `front --json` and `best --json` print.

    `records` are as measured; `with_discards` says that the answers count their discarded windows.
    """
    records = tuple(records)
    return {
        "study": study,
        "with_discards": with_discards,
        "discarded": discards_object(discards_of(records)),
        "drift": [drift_object(each) for each in drifts(records)],
        "answers": [answer_object(answer) for answer in answers],
        "claims": [claim_object(claim) for claim in claims],
    }


def discards_object(found: Discards) -> dict[str, Any]:
    """How many windows have no energy, how many of them tell joules all the same, and why."""
    return {"windows": found.windows, "usable": found.usable, "codes": dict(found.codes)}


def answer_object(answer: Answer) -> dict[str, Any]:
    """The front, the best and the reasons of one condition."""
    return {
        "condition": dict(answer.group.condition),
        "front": [
            entry(result) | {"ties": [each.id for each in ties]}
            for result, ties in zip(answer.front, answer.front_ties, strict=True)
        ],
        "best": (
            entry(answer.best) | {"ties": [each.id for each in answer.ties]}
            if answer.best
            else None
        ),
        "why": answer.why,
        "nearest_miss": _miss(answer.nearest_miss) if answer.nearest_miss else None,
        "savings": [saving_object(saving) for saving in answer.savings],
    }


def saving_object(saving: Saving) -> dict[str, Any]:
    """A result against its baseline, by metric."""
    return {
        "id": saving.result.id,
        "baseline": saving.baseline.id,
        "changes": {metric: change_object(each) for metric, each in saving.changes.items()},
    }


def change_object(change: Change) -> dict[str, Any]:
    """A ratio to the baseline. An interval and p are there only where launches give them."""
    uncertainty = {
        "ci95_low": change.low,
        "ci95_high": change.high,
        "p": change.p,
        "p_adjusted": change.p_adjusted,
        "adjustment": change.adjustment,
        "comparisons": change.family,
    }
    return {
        "ratio": change.ratio,
        "paired": change.paired,
        "blocks": change.blocks,
        "launches": list(change.launches),
        "boards": list(change.boards),
        "systematic": change.systematic,
        "significant": change.significant,
        **(uncertainty if change.p is not None else {}),
    }


def entry(result: Result) -> dict[str, Any]:
    """A result on a front. `undersampled` and `quality` are there only where they warn."""
    energy = result.energy
    warnings: dict[str, Any] = {}
    if result.undersampled:
        warnings["undersampled"] = list(result.undersampled)
    if is_unchecked(result):
        warnings["quality"] = "unchecked"
    return {
        "id": result.id,
        "config": dict(result.config),
        "metrics": dict(result.metrics),
        "energy": energy
        and {
            "source": energy.source,
            "measured": energy.measured,
            "scope": energy.scope,
            "systematic": energy.systematic,
        },
        "launches": result.launches,
        "gpus": result.gpus,
        "launch_command": result.launch_command,
        **warnings,
    }


def counts(records: Iterable[Record]) -> Counter[Status]:
    """How many points came to what."""
    points: dict[str, set[Status]] = {}
    for record in settled(records):
        points.setdefault(record.id, set()).add(record.status)
    return Counter(
        next(status for status in WORST_FIRST if status in found) for found in points.values()
    )


def launches(records: Iterable[Record]) -> int:
    """How many engine starts the records come from, failed ones included."""
    return len({_start(record) for record in records})


def held_gpu_seconds(contents: Contents) -> float:
    """GPU-seconds of the leases whose end is known; from the records where none is."""
    return contents.gpu_seconds() if contents.ended else gpu_seconds(contents.standing())


def gpu_seconds(records: Iterable[Record]) -> float:
    """GPUs times seconds of the real clock from the first start to the last end of each launch."""
    spans: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        spans.setdefault(_start(record), []).append(record)
    return sum(
        span[0].gpus
        * (
            max(datetime.fromisoformat(record.ended_at) for record in span)
            - min(datetime.fromisoformat(record.started_at) for record in span)
        ).total_seconds()
        for span in spans.values()
    )


def _start(record: Record) -> tuple[object, ...]:
    return (
        record.trial_id,
        record.attempt,
        record.configuration,
        record.launch,
        record.stage,
    )


def _miss(miss: Miss) -> dict[str, Any]:
    worst = miss.worst
    found: dict[str, Any] = {**entry(miss.result), "reason": miss.reason}
    if worst is not None:
        found |= {
            "limit": {
                "metric": worst.limit.metric,
                "bound": worst.limit.bound,
                "kind": "upper" if worst.limit.upper else "lower",
            },
            "value": worst.value,
            "excess": worst.excess,
        }
    return found
