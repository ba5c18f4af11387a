"""Every number of a study made again from what was read and seen, by code of its own.

    journal lines, attachments -> windows -> records -> results -> answers, each held against what
    readings, events                                               the journal, or sweeper, states

Nothing of the code that measured or answered is used here: neither trial/, results/ nor answers/.
What sweeper states of a study comes in as plain data. A difference means that the journal, an
attachment or a definition was changed, or that one of the two codes is wrong. It is no signature:
who makes everything anew, readings and events included, is not found out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sweeper.verify import answers, claims, ids, records
from sweeper.verify.budget import Budget, budget
from sweeper.verify.figures import Seen
from sweeper.verify.leases import check as check_leases
from sweeper.verify.pooling import Pooled, pooled
from sweeper.verify.sources import Line, Sources, name_of, read, verdicts
from sweeper.verify.tally import Tally

Stated = Callable[[], Mapping[str, Sequence[Mapping[str, Any]]]]
"""The `answers` and judged `claims` of a study, as `answers.stated` puts them; asked for when they
are needed."""


Launch = tuple[Any, ...]
"""What the records of one launch share."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of a verification; `counts` is how much there was of what."""

    study: str
    counts: Mapping[str, int]
    tally: Tally
    budgets: Sequence[Budget]

    @property
    def ok(self) -> bool:
        """Whether there is no difference."""
        return not self.tally.differences


def verify(folder: Path, stated: Stated) -> Report:
    """Make everything of the study in `folder` again and compare.

    Raises:
        StudyError: there is no journal.
    """
    tally = Tally()
    sources = read(folder, tally)
    texts = []
    for line in sources.of("study"):
        with tally.looking("a study's text in the journal"):
            texts.append(yaml.safe_load(line["text"]))
    accepted, failed = verdicts(sources)
    records.unique(accepted, tally)
    accelerators = list(dict.fromkeys(ids.get(each, "resources.accelerator") for each in texts))
    seen: dict[int, list[Seen]] = {}
    for record in sources.of("record"):
        with tally.looking(name_of(record)):
            seen[id(record)] = records.check(record, sources, accelerators, tally)
    check_leases(sources, tally)
    results: list[Pooled] = []
    if texts:
        with tally.looking("answers"):
            asked = ids.asked_for(texts[-1])
            results = pooled(record for record in accepted if record["id"] in asked)
            said = stated()
            answers.check(results, said["answers"], texts[-1], tally)
            claims.check(results, said["claims"], texts[-1], tally)
    budgets = []
    for result in results:
        with tally.looking(f"budget of {result.id}"):
            windows = [seen.get(id(each), []) for each in result.records]
            launched = {_launch(each) for each in result.records}
            drifts = [ratio for launch, ratio in _drifts(sources) if launch in launched]
            budgets.append(budget(result, windows, drifts))
    return Report(
        study=texts[-1]["name"] if texts else folder.name,
        counts=_counts(sources, accepted, failed),
        tally=tally,
        budgets=budgets,
    )


def _drifts(sources: Sources) -> Iterator[tuple[Launch, float]]:
    """What the control of each launch came to, as its record says, which was made again above."""
    for record in sources.of("record"):
        if (ratio := record["metrics"].get("energy_drift_ratio")) is not None:
            yield _launch(record), ratio


def _launch(record: Line) -> Launch:
    names = ("trial_id", "attempt", "configuration", "launch", "stage")
    return tuple(record[name] for name in names)


def _counts(
    sources: Sources, accepted: Sequence[Line], failed: Sequence[Line]
) -> Mapping[str, int]:
    return {
        "verdicts": len(accepted),
        "records of failures": len(failed),
        "records taken back": sum(1 for _ in sources.of("record")) - len(accepted) - len(failed),
        "windows": sum(1 for _ in sources.of("window")),
        "attachments": sum(1 for _ in sources.of("attachment")),
        "torn bytes": sources.torn_bytes,
    }
