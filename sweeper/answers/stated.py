"""What the answers of a study state, as plain data, for who checks them."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from sweeper.answers.best import Answer, answers
from sweeper.answers.claims import Judgement, judged
from sweeper.shelf import open_study
from sweeper.spec import Study


def stated_in(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The `answers` of the study in `folder`, with all results, and its judged `claims`.

    Raises:
        StudyError: the text of the study is wrong, or nothing was measured.
        JournalError: the journal is damaged.
    """
    shelved = open_study(str(folder), folder.parent)
    study, records = shelved.study, shelved.records
    return {
        "answers": [_answer(answer) for answer in answers(records, study)],
        "claims": [claim_as_stated(each, study) for each in judged(study, records)],
    }


def claim_as_stated(judgement: Judgement, study: Study) -> dict[str, Any]:
    """A judgement; `claim` is its place in the study's `expect`, the ids those of what decided."""
    return {
        "claim": [each is judgement.claim for each in study.expect].index(True),
        "condition": dict(judgement.condition),
        "verdict": judgement.verdict,
        "id": judgement.result.id if judgement.result else None,
        "baseline": judgement.against.id if judgement.against else None,
        "change": asdict(judgement.change) if judgement.change else None,
    }


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
