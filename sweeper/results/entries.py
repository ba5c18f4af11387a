"""What MLflow is to hold of a journal (pure): its entries, and a record as rows of MLflow.

The journal is read line by line into a ledger. An entry says where its record stands in the file,
not what is in it: the record is read again when it is written, and forgotten.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sweeper.errors import SweeperError
from sweeper.results.attachments import OF, belongs
from sweeper.results.contents import Line, attempt_of, lines
from sweeper.results.note import NOTE, record_note
from sweeper.results.record import ACCEPTED, Key, Record

RECORD = "record"
SUPERSEDED = "superseded"
STUDY = "study.yaml"
ARTIFACTS = {"power_trace": "power.parquet", "engine_log": "engine.log.gz"}
"""What an attachment is called in MLflow, by its role; any other keeps its name."""

_PARAM_LENGTH = 6000
_TAG_LENGTH = 1000
_KEY_LENGTH = 250


class RefusedError(SweeperError):
    """The store will not take this whatever is done: trying again is of no use."""


@dataclass(kw_only=True)
class Entry:
    """One record on its way: what is wanted of it, each with the digest of its content."""

    tag: str
    key: Key
    verdict: bool
    fields: Mapping[str, Any]
    start: int
    end: int
    failures: int = 0
    wanted: dict[str, str] = field(default_factory=lambda: {RECORD: "1"})
    attachments: dict[str, Line] = field(default_factory=dict)

    def attach(self, line: Line) -> None:
        """Want an attachment of this record; a later one of the same name replaces it."""
        name = artifact_name(line)
        self.attachments[name] = line
        self.wanted[name] = line["sha256"][:12]


class Ledger:
    """Everything of one journal that MLflow should hold, as far as it was read."""

    def __init__(self) -> None:
        self.offset = 0
        self.journal: str | None = None
        self.study_text: str | None = None
        self.entries: list[Entry] = []
        self.attachments: dict[str, Line] = {}
        self._by_attempt: dict[tuple[Any, ...], list[Entry]] = {}

    def take(self, data: bytes) -> None:
        """Go on reading: `data` is whole lines, from `offset` on."""
        for raw, line in zip(data.splitlines(keepends=True), lines(data), strict=True):
            start, self.offset = self.offset, self.offset + len(raw)
            match line["kind"]:
                case "journal":
                    self.journal = line["journal"]
                case "study":
                    self.study_text = line["text"]
                case "record":
                    self._record(line, start)
                case "attachment":
                    self._attachment(line)
                case "superseded":
                    for entry in self._by_attempt.get(attempt_of(line), ()):
                        entry.wanted[SUPERSEDED] = "1"

    def standing(self) -> dict[Key, Entry]:
        """The entry of each key that counts, as `Contents.accepted` has it."""
        found: dict[Key, Entry] = {}
        for entry in self.entries:
            if entry.verdict and SUPERSEDED not in entry.wanted:
                found.setdefault(entry.key, entry)
        return found

    def _record(self, line: Line, start: int) -> None:
        key = (line["id"], line["launch"], line["stage"])
        same = self._by_attempt.setdefault(attempt_of(line), [])
        again = f"#{len(same) + 1}" if same else ""
        entry = Entry(
            tag="/".join(str(part) for part in attempt_of(line)) + again,
            key=key,
            verdict=line.get("status") in ACCEPTED,
            fields={name: line.get(name) for name in OF},
            start=start,
            end=self.offset,
        )
        for attachment in self.attachments.values():
            if belongs(attachment, entry.fields):
                entry.attach(attachment)
        same.append(entry)
        self.entries.append(entry)

    def _attachment(self, line: Line) -> None:
        self.attachments[line["name"]] = line
        for entry in self.entries:
            if belongs(line, entry.fields):
                entry.attach(line)

    def of_study(self) -> Iterator[Line]:
        """The attachments that are of no record in particular."""
        return (line for line in self.attachments.values() if not any(of in line for of in OF))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A record as MLflow keeps it; times are milliseconds since 1970."""

    name: str
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    started_ms: int
    ended_ms: int
    failed: bool


def row_of(record: Record, tag: str) -> Row:
    """What MLflow is told of a record, which it finds again by `tag`."""
    known = {
        "sweeper.key": tag,
        "sweeper.role": RECORD,
        "point": record.id,
        "configuration": record.configuration,
        "launch": record.launch,
        "stage": record.stage,
        "attempt": record.attempt,
        "trial": record.trial_id,
        "status": record.status,
        "reason": record.reason,
        "engine": record.config.get("engine.kind"),
        "convention": record.convention,
        "gpus": record.gpus,
        "launch_command": record.launch_command,
        "mlflow.source.name": "sweeper",
    }
    if record.energy is not None:
        known |= {"measured": record.energy.measured, "energy_source": record.energy.source}
    load = {} if record.load_s is None else {"load_s": record.load_s}
    return Row(
        name=_name(record),
        tags={
            **{key: _cut(_text(v), _TAG_LENGTH) for key, v in known.items() if v is not None},
            NOTE: record_note(record),
        },
        params={
            _param_key(key): _cut(_text(value), _PARAM_LENGTH)
            for key, value in _flat(record.config)
        },
        metrics={**record.metrics, **load},
        started_ms=_milliseconds(record.started_at),
        ended_ms=_milliseconds(record.ended_at),
        failed=not record.accepted,
    )


def artifact_name(line: Line) -> str:
    """What an attachment is called in MLflow."""
    name: str = line["name"]
    return ARTIFACTS.get(line["role"], name)


def digest(data: bytes) -> str:
    """Tells one content from another."""
    return hashlib.sha256(data).hexdigest()[:12]


def _name(record: Record) -> str:
    """The keys that the study moved, each by the last words that tell it from the others."""
    moved = {**record.chosen, **record.condition}
    last = [key.rpartition(".")[2] for key in moved]
    words = [
        f"{name if last.count(name) == 1 else key}={_text(value)}"
        for (key, value), name in zip(moved.items(), last, strict=True)
    ] or [record.id]
    words += [f"launch={record.launch}"] if record.launch else []
    words += [f"stage={record.stage}"] if record.stage != "full" else []
    words += [f"attempt={record.attempt}"] if record.attempt else []
    return _cut(" ".join(words), _KEY_LENGTH)


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _param_key(key: str) -> str:
    """`key` in the alphabet of MLflow's keys, which must also do as relative paths."""
    parts = re.sub(r"[^\w.\- :/]", "_", key, flags=re.ASCII).split("/")
    kept = "_".join(part for part in parts if part).lstrip(".")
    return _cut(kept or "_", _KEY_LENGTH)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _milliseconds(when: str) -> int:
    moment = datetime.fromisoformat(when)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)
