"""What the answers of a study state, as plain data, for who checks them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweeper.answers.best import Answer, answers
from sweeper.shelf import open_study


def stated_in(folder: Path) -> list[dict[str, Any]]:
    """Every answer of the study in `folder`, with all of its results.

    Raises:
        StudyError: the text of the study is wrong, or nothing was measured.
        JournalError: the journal is damaged.
    """
    shelved = open_study(str(folder), folder.parent)
    return [_answer(answer) for answer in answers(shelved.records, shelved.study)]


def _answer(answer: Answer) -> dict[str, Any]:
    group = answer.group
    return {
        "condition": dict(group.condition),
        "convention": group.convention,
        "provenance": group.provenance,
        "source": group.source,
        "scope": group.scope,
        "objectives": dict(answer.objectives),
        "limits": [
            {"metric": limit.metric, "bound": limit.bound, "upper": limit.upper}
            for limit in answer.limits
        ],
        "front": [result.id for result in answer.front],
        "best": answer.best.id if answer.best else None,
        "results": [
            {
                "id": result.id,
                "stage": result.stage,
                "launches": result.launches,
                "gpus": result.gpus,
                "metrics": dict(result.metrics),
                "undersampled": list(result.undersampled),
            }
            for result in group.results
        ],
        "savings": [
            {
                "id": saving.result.id,
                "baseline": saving.baseline.id,
                "changes": {metric: asdict(each) for metric, each in saving.changes.items()},
            }
            for saving in answer.savings
        ],
    }
