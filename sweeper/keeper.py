"""What trials tell goes into the journal first, then to the search and the progress."""

import base64
from collections.abc import Iterable, Mapping
from typing import Any

from sweeper.cluster.attempts import keys
from sweeper.progress.progress import Progress
from sweeper.results.attachments import OF
from sweeper.results.journal import Journal
from sweeper.results.record import Record
from sweeper.search import Search
from sweeper.spec import Study, Trial
from sweeper.trial.recorder import failed_record

JOURNALLED = frozenset({"trial", "window", "record", "death", "ended"})


class Keeper:
    """Takes the events of all trials, one at a time."""

    def __init__(
        self,
        study: Study,
        journal: Journal,
        progress: Progress,
        search: Search,
        accepted: Iterable[Record] = (),
    ) -> None:
        """`accepted` are the verdicts of earlier sittings that count."""
        self._study = study
        self._journal = journal
        self._progress = progress
        self._search = search
        self._compared = {each.key: each.attempt for each in accepted if each.stage == "final"}

    def take(self, trial: Trial, event: Mapping[str, Any]) -> None:
        """Keep one event; when this returns it is on the disk.

        Raises:
            PlaceError: the journal cannot be written.
        """
        kind = event["kind"]
        fields = {name: value for name, value in event.items() if name != "kind"}
        of = {"trial_id": trial.id, "attempt": trial.attempt}
        if kind == "given_up":
            self._give_up(trial, fields["points"], fields["reason"])
            return
        if kind == "attachment":
            data = base64.b64decode(fields["data"])
            of |= {name: fields[name] for name in OF if name in fields}
            self._journal.attach(fields["name"], data, role=fields["role"], of=of)
        elif kind in JOURNALLED:
            if kind == "trial" and trial.block:
                self._take_back(trial)
            self._journal.append(kind, {**of, **fields})
        if kind == "record":
            self._conclude(Record.from_json(fields))
            return
        if kind == "ended":
            self._search.ended(trial, fields)
        self._progress.event(trial, event)

    def _take_back(self, block: Trial) -> None:
        """A block is measured again as a whole: what an earlier lease came to no longer counts."""
        for key in keys(block):
            if (attempt := self._compared.pop(key, None)) is not None:
                self._journal.supersede(key, attempt)

    def _conclude(self, record: Record) -> None:
        if record.stage == "final" and record.accepted:
            self._compared[record.key] = record.attempt
        self._search.tell(record)
        self._progress.record(record)

    def _give_up(self, trial: Trial, points: list[str], reason: str) -> None:
        for launch in trial.launches:
            for point in launch.points:
                if point.id in points:
                    record = failed_record(self._study.name, trial, launch, point, reason, {})
                    self._journal.append("record", record.to_json())
                    self._conclude(record)
