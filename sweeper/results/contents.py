"""What a journal tells: its lines read, and which records count (pure but for `read`).

A line is one flat JSON object with its `kind`:

    journal      first line: which journal this is, and the version of its lines
    study        the study's text from here on
    torn         a driver died in mid-line; so many bytes were cut away
    sitting      a driver started: time, fingerprint, versions
    trial        a lease began: trial_id, stage, node, GPUs
    window       one closed window: its record's key and energy beside the fields of `Window`
    record       `Record.to_json`
    attachment   a file beside the journal, and of what it is
    death        a launch died: why, and the end of its log
    superseded   the records of this key and attempt so far no longer count
    ended        a lease ended: seconds, gpu_seconds, energy_j of all of it, of what (energy), and
                 the readings of each launch that these are made of

A journal grows at its end only. What stands after the last newline was never acknowledged and
counts as not written.
"""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, Self

from sweeper.errors import JournalError
from sweeper.results.record import Key, Record

VERSION = 2
FILE = "journal.jsonl"
Line = Mapping[str, Any]

KINDS: Mapping[str, tuple[str, ...]] = {
    "journal": ("journal", "version"),
    "study": ("text",),
    "torn": ("bytes",),
    "sitting": (),
    "trial": ("trial_id",),
    "window": ("id", "launch", "stage", "reasons"),
    "record": ("id", "launch", "stage", "attempt"),
    "attachment": ("name", "role", "sha256"),
    "death": ("trial_id", "reason"),
    "superseded": ("id", "launch", "stage", "attempt"),
    "ended": ("trial_id",),
}
"""The kinds of lines, and the fields that none may lack."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "journal": (str,),
    "text": (str,),
    "id": (str,),
    "launch": (int,),
    "stage": (str,),
    "attempt": (int,),
    "trial_id": (str,),
    "name": (str,),
    "role": (str,),
    "sha256": (str,),
    "reasons": (list,),
    "seconds": (int, float),
    "gpu_seconds": (int, float, type(None)),
    "energy_j": (int, float, type(None)),
}


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A journal as read, every kind in the order written.

    `journal` identifies it. `superseded` are positions in `records`. `torn_bytes` is what stood
    after the last newline.
    """

    journal: str | None = None
    records: tuple[Record, ...] = ()
    superseded: frozenset[int] = frozenset()
    studies: tuple[Line, ...] = ()
    sittings: tuple[Line, ...] = ()
    trials: tuple[Line, ...] = ()
    windows: tuple[Line, ...] = ()
    attachments: tuple[Line, ...] = ()
    deaths: tuple[Line, ...] = ()
    ended: tuple[Line, ...] = ()
    torn_bytes: int = 0

    def accepted(self) -> dict[Key, Record]:
        """The one record of each key that counts: the first verdict that is not superseded."""
        found: dict[Key, Record] = {}
        for record in self._verdicts():
            found.setdefault(record.key, record)
        return found

    def standing(self) -> tuple[Record, ...]:
        """What is known of each key: its accepted record, else its last attempt, in journal order.

        Attempts that were superseded count as not made.
        """
        found: dict[Key, Record] = {}
        for position, record in enumerate(self.records):
            if position not in self.superseded:
                before = found.get(record.key)
                if before is None or not before.accepted:
                    found.pop(record.key, None)
                    found[record.key] = record
        return tuple(found.values())

    def only(self, ids: Collection[str]) -> Self:
        """The same without the records and windows of other points."""
        kept = [place for place, record in enumerate(self.records) if record.id in ids]
        return replace(
            self._of_records(kept),
            windows=tuple(line for line in self.windows if line["id"] in ids),
        )

    def without(self, stage: str) -> Self:
        """The same without the records, windows and leases of one stage."""
        kept = [place for place, record in enumerate(self.records) if record.stage != stage]
        leases = {_lease(line) for line in self.trials if line.get("stage") == stage}
        return replace(
            self._of_records(kept),
            windows=tuple(line for line in self.windows if line["stage"] != stage),
            trials=tuple(line for line in self.trials if _lease(line) not in leases),
            ended=tuple(line for line in self.ended if _lease(line) not in leases),
        )

    def environment(self) -> Mapping[str, Any] | None:
        """The environment that the latest sitting found, where one is noted."""
        known = (line["environment"] for line in reversed(self.sittings) if "environment" in line)
        return next(known, None)

    @property
    def duplicates(self) -> int:
        """Verdicts that do not count because their key had one already."""
        return sum(1 for _ in self._verdicts()) - len(self.accepted())

    def gpu_seconds(self) -> float:
        """GPU-seconds of the leases whose end was written and which knew."""
        known = (line.get("gpu_seconds") for line in self.ended)
        return math.fsum(value for value in known if value is not None)

    def _of_records(self, kept: Sequence[int]) -> Self:
        """The same with the records at these places alone."""
        return replace(
            self,
            records=tuple(self.records[place] for place in kept),
            superseded=frozenset(new for new, old in enumerate(kept) if old in self.superseded),
        )

    def _verdicts(self) -> Iterator[Record]:
        for position, record in enumerate(self.records):
            if record.accepted and position not in self.superseded:
                yield record


def read(path: Path) -> Contents:
    """The journal at `path`, which another process may be writing.

    Raises:
        JournalError: there is none, or it is damaged; the message names the line.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise JournalError(f"{path} does not exist: nothing was measured there yet") from error
    except OSError as error:
        raise JournalError(f"cannot read {path}: {error.strerror}") from error
    return parse(data, str(path))


def parse(data: bytes, name: str = FILE) -> Contents:
    """The journal that `data` holds; `name` is for messages.

    Raises:
        JournalError: a line is damaged, of an unknown kind or of another version.
    """
    whole = whole_bytes(data)
    found: dict[str, list[Line]] = {kind: [] for kind in KINDS}
    records: list[Record] = []
    superseded: set[int] = set()
    by_attempt: dict[tuple[Any, ...], list[int]] = {}
    for number, line in enumerate(lines(data[:whole], name), start=1):
        kind = line["kind"]
        found[kind].append(line)
        if (number == 1) != (kind == "journal"):
            _damaged(name, number, "a journal's first line, and no other, is of kind journal")
        if kind == "journal" and line["version"] != VERSION:
            raise JournalError(
                f"{name} is of version {line['version']!r}, this sweeper reads {VERSION}: "
                "use the sweeper that wrote it"
            )
        if kind == "record":
            by_attempt.setdefault(attempt_of(line), []).append(len(records))
            records.append(_record(line, name, number))
        elif kind == "superseded":
            superseded.update(by_attempt.get(attempt_of(line), ()))
    return Contents(
        journal=found["journal"][0]["journal"] if found["journal"] else None,
        records=tuple(records),
        superseded=frozenset(superseded),
        studies=tuple(found["study"]),
        sittings=tuple(found["sitting"]),
        trials=tuple(found["trial"]),
        windows=tuple(found["window"]),
        attachments=tuple(found["attachment"]),
        deaths=tuple(found["death"]),
        ended=tuple(found["ended"]),
        torn_bytes=len(data) - whole,
    )


def whole_bytes(data: bytes) -> int:
    """How much of `data` is whole lines."""
    return data.rfind(b"\n") + 1


def lines(data: bytes, name: str = FILE, first: int = 1) -> Iterator[Line]:
    """The lines of `data`, which holds whole ones; the first has the number `first`."""
    for number, raw in enumerate(data.split(b"\n")[:-1], start=first):
        try:
            line = json.loads(raw.decode(), parse_constant=_not_finite)
        except ValueError as error:
            _damaged(name, number, str(error))
        if not isinstance(line, dict):
            _damaged(name, number, "not an object")
        if fault := line_fault(line):
            _damaged(name, number, fault)
        yield line


def line_fault(line: Line) -> str | None:
    """What is wrong with the kind and the fields of a line, if anything."""
    kind = line.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        return f"unknown kind {kind!r}; this sweeper knows {', '.join(KINDS)}"
    for field in KINDS[kind]:
        if field not in line:
            return f"a {kind} without {field}"
    for field, types in _TYPES.items():
        if field in line and not isinstance(line[field], types):
            return f"{field} of a {kind} cannot be {line[field]!r}"
    return None


def attempt_of(line: Line) -> tuple[Any, ...]:
    """The key and the attempt that a `record` or `superseded` line names."""
    return line["id"], line["launch"], line["stage"], line["attempt"]


def _lease(line: Line) -> tuple[Any, ...]:
    return line["trial_id"], line.get("attempt")


def _record(line: Line, name: str, number: int) -> Record:
    try:
        return Record.from_json(line)
    except JournalError as error:
        raise JournalError(f"{name}, line {number}: {error}") from error


def _not_finite(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _damaged(name: str, number: int, why: str) -> NoReturn:
    raise JournalError(
        f"{name}, line {number} is damaged: {why}. Put back a copy of the file, or take the line "
        "out: what it told is then measured again"
    )
