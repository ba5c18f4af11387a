"""Brings a store up with a journal: what the journal tells and the store lacks is written."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.errors import SweeperError
from sweeper.results.addresses import without_credentials
from sweeper.results.contents import FILE, lines, whole_bytes
from sweeper.results.entries import (
    RECORD,
    STUDY,
    SUPERSEDED,
    Entry,
    Ledger,
    RefusedError,
    artifact_name,
    digest,
    row_of,
)
from sweeper.results.journal import ATTACHMENTS
from sweeper.results.note import NOTE
from sweeper.results.power import trace_parquet
from sweeper.results.record import Key, Record

if TYPE_CHECKING:
    from sweeper.results.mlflow_store import MlflowStore


class Mirror:
    """A journal as far as it was read, and how much of it a store has; for one thread.

    `complete` counts the records of which the store has everything. `refusal` says what it would
    not take.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ledger = Ledger()
        self._refused: dict[tuple[str, str], str] = {}
        self.complete = 0

    @property
    def journal(self) -> str | None:
        """Which journal this is, once that was read."""
        return self._ledger.journal

    @property
    def refusal(self) -> str | None:
        """The first thing that the store refused."""
        return next(iter(self._refused.values()), None)

    def read(self) -> None:
        """Read what is new in the journal."""
        self._ledger.take(self._bytes(self._ledger.offset, None))

    def update(
        self,
        store: "MlflowStore",
        front: frozenset[Key] | None,
        figures: Mapping[str, bytes],
        note: str | None,
        stopped: Callable[[], bool],
    ) -> None:
        """Write what `store` lacks; whatever it raises, the rest can be written later.

        `front` are the records to tag so, `None` leaves the tags; `figures` and `note` go to the
        study.
        """
        # What failed goes last: one record that a store chokes on does not keep the others out.
        for entry in sorted(self._ledger.entries, key=lambda entry: entry.failures):
            for what in list(self._possible(store, entry)):
                if stopped():
                    return
                self._bring(store, entry, what)
        self.complete = sum(not _lacks(store, entry) for entry in self._ledger.entries)
        self._bring_study(store, figures)
        if note is not None and store.parent.done.get(NOTE) != digest(note.encode()):
            store.tag(store.parent, NOTE, note)
            store.done(store.parent, NOTE, digest(note.encode()))
        if front is not None:
            self._bring_front(store, front)

    def _possible(self, store: "MlflowStore", entry: Entry) -> Iterator[str]:
        for what in _lacks(store, entry):
            if not {(entry.tag, RECORD), (entry.tag, what)} & self._refused.keys():
                yield what

    def _bring(self, store: "MlflowStore", entry: Entry, what: str) -> None:
        try:
            if what == RECORD:
                self._bring_record(store, entry)
            elif what == SUPERSEDED:
                store.tag(store.children[entry.tag], SUPERSEDED, "true")
            else:
                self._bring_attachment(store, entry, what)
            store.done(store.children[entry.tag], what, entry.wanted[what])
        except SweeperError as error:
            self._refused[entry.tag, what] = without_credentials(f"{what} of {entry.tag}: {error}")
        except Exception:
            entry.failures += 1
            raise

    def _bring_record(self, store: "MlflowStore", entry: Entry) -> None:
        row = row_of(self._record(entry), entry.tag)
        child = store.children.get(entry.tag) or store.add(entry.tag, row)
        store.fill(child, row)
        store.upload(child, "record.json", self._bytes(entry.start, entry.end))
        store.end(child, "FAILED" if row.failed else "FINISHED", row.ended_ms)

    def _bring_attachment(self, store: "MlflowStore", entry: Entry, what: str) -> None:
        line = entry.attachments[what]
        data = self._attachment(line["name"])
        if line["role"] == "power_trace":
            windows = self._record(entry).windows
            if not windows:
                return
            spans = [(window.index, window.started_s, window.ended_s) for window in windows]
            data = trace_parquet(data, spans)
        store.upload(store.children[entry.tag], what, data)

    def _bring_study(self, store: "MlflowStore", figures: Mapping[str, bytes]) -> None:
        has = store.parent.done
        files = dict(figures)
        if self._ledger.study_text is not None:
            files[STUDY] = self._ledger.study_text.encode()
        for name, data in files.items():
            if has.get(name) != digest(data):
                store.upload(store.parent, name, data)
                store.done(store.parent, name, digest(data))
        for line in self._ledger.of_study():
            name = artifact_name(line)
            if has.get(name) != line["sha256"]:
                store.upload(store.parent, name, self._attachment(line["name"]))
                store.done(store.parent, name, line["sha256"])

    def _bring_front(self, store: "MlflowStore", front: frozenset[Key]) -> None:
        standing = self._ledger.standing()
        wanted = {standing[key].tag for key in front if key in standing}
        for tag, child in store.children.items():
            if child.front != (tag in wanted):
                store.set_front(child, tag in wanted)

    def _record(self, entry: Entry) -> Record:
        (line,) = lines(self._bytes(entry.start, entry.end))
        return Record.from_json(line)

    def _bytes(self, start: int, end: int | None) -> bytes:
        with (self._folder / FILE).open("rb") as file:
            file.seek(start)
            data = file.read() if end is None else file.read(end - start)
        return data[: whole_bytes(data)]

    def _attachment(self, name: str) -> bytes:
        try:
            return (self._folder / ATTACHMENTS / name).read_bytes()
        except FileNotFoundError as error:
            raise RefusedError(f"attachment {name} is gone") from error


def _lacks(store: "MlflowStore", entry: Entry) -> list[str]:
    child = store.children.get(entry.tag)
    done = child.done if child else {}
    return [what for what, content in entry.wanted.items() if done.get(what) != content]
