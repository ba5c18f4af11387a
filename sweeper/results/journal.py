"""The journal of a study: every window and record on the disk before anything else sees it.

    mlruns/studies/NAME/
        study.yaml        the study as resolved, for people; each text is in the journal too
        journal.jsonl     the truth, one line after the other (results/contents.py)
        attachments/      power traces, engine logs
        progress.json     what its driver last told of itself (progress/note.py), a view
        lock              held by the one driver that writes (results/lock.py)

A study's text may change between sittings: records are found by the id of their point, so those
that still apply count and the others stay where they are. The journal notes every new text.
"""

import hashlib
import json
import math
import os
import threading
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sweeper.errors import JournalError, PlaceError
from sweeper.results import lock
from sweeper.results.addresses import without_credentials
from sweeper.results.attachments import LIMIT_BYTES, OF, Role, file_name
from sweeper.results.contents import (
    FILE,
    VERSION,
    Contents,
    line_fault,
    parse,
    whole_bytes,
)
from sweeper.results.files import remove_leftovers, sync_folder, write_whole, writing
from sweeper.results.record import Key

ATTACHMENTS = "attachments"
STUDY = "study.yaml"


class Journal:
    """A journal open for writing, held by this driver alone; made by `Journal.open`.

    `append` and `attach` may be called from any thread. A context manager that closes.
    """

    def __init__(self, folder: Path, contents: Contents, descriptor: int, held: ExitStack) -> None:
        self.folder = folder
        self._contents = contents
        self._size = -1
        self._descriptor = descriptor
        self._held = held
        self._writing = threading.Lock()
        self._unusable: str | None = None

    @classmethod
    def open(cls, folder: Path, study_text: str) -> Self:
        """Begin the journal in `folder`, or go on with it; a torn last line is cut away.

        Credentials in addresses are taken out of `study_text`.

        Raises:
            PlaceError: the folder cannot be written.
            JournalError: another driver holds it (the message names it), or it is damaged.
        """
        study_text = without_credentials(study_text)
        with ExitStack() as opening:
            with writing(folder):
                folder.mkdir(parents=True, exist_ok=True)
            opening.callback(os.close, lock.take(folder))
            path = folder / FILE
            with writing(path):
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
                opening.callback(os.close, descriptor)
                data = path.read_bytes()
            contents = parse(data, str(path))
            with writing(path):
                os.ftruncate(descriptor, whole_bytes(data))
                sync_folder(folder)
                for place in (folder, folder / ATTACHMENTS):
                    remove_leftovers(place)
            journal = cls(folder, contents, descriptor, opening.pop_all())
        try:
            journal._begin(study_text, contents)
        except BaseException:
            journal.close()
            raise
        return journal

    def _begin(self, study_text: str, contents: Contents) -> None:
        if contents.journal is None:
            identity = {"journal": uuid.uuid4().hex, "version": VERSION, "begun_at": _now()}
            self.append("journal", identity)
        if contents.torn_bytes:
            self.append("torn", {"bytes": contents.torn_bytes, "at": _now()})
        if not contents.studies or contents.studies[-1]["text"] != study_text:
            self.append("study", {"text": study_text, "at": _now()})
        path = self.folder / STUDY
        with writing(path):
            current = path.read_bytes() if path.exists() else None
        if current != study_text.encode():
            write_whole(path, study_text.encode())

    @property
    def contents(self) -> Contents:
        """Everything that the journal tells now; `torn_bytes` is what opening it cut away."""
        path = self.folder / FILE
        size = path.stat().st_size
        if size != self._size:
            torn_bytes = self._contents.torn_bytes
            self._contents = replace(parse(path.read_bytes(), str(path)), torn_bytes=torn_bytes)
            self._size = size
        return self._contents

    def append(self, kind: str, fields: Mapping[str, Any]) -> None:
        """Write one line; it is on the disk when this returns, or not in the journal at all.

        Raises:
            JournalError: the kind is unknown, or a value has no place in JSON, such as NaN.
            PlaceError: it cannot be written, for example because the disk is full.
        """
        data = _encoded(kind, fields)
        with self._writing, writing(self.folder / FILE):
            if self._unusable is not None:
                raise PlaceError(f"{self.folder / FILE} {self._unusable}")
            end = os.fstat(self._descriptor).st_size
            try:
                _write(self._descriptor, data)
                os.fsync(self._descriptor)
            except BaseException:
                self._take_back(end)
                raise

    def supersede(self, key: Key, attempt: int) -> None:
        """From here on the records of this key and attempt so far no longer count."""
        point, launch, stage = key
        fields = {"id": point, "launch": launch, "stage": stage, "attempt": attempt}
        self.append("superseded", fields)

    def attach(
        self, name: str, data: bytes, *, role: Role = "file", of: Mapping[str, Any] | None = None
    ) -> str:
        """Keep a compressed file beside the journal and note it; its name there is returned.

        `of` names fields of the records it is of, such as `{"trial_id": .., "attempt": ..}`;
        without, it is of the study.

        Raises:
            JournalError: it is larger than 8 MiB, or `of` names what no record has.
            PlaceError: it cannot be written.
        """
        of = of or {}
        if len(data) > LIMIT_BYTES:
            raise JournalError(
                f"attachment {name} has {len(data)} bytes, the limit is {LIMIT_BYTES}"
            )
        if unknown := sorted(set(of) - set(OF)):
            raise JournalError(f"an attachment can be of {', '.join(OF)}, not {', '.join(unknown)}")
        stored = file_name(name)
        write_whole(self.folder / ATTACHMENTS / stored, data)
        digest = hashlib.sha256(data).hexdigest()
        about = {"name": stored, "role": role, "bytes": len(data), "sha256": digest}
        self.append("attachment", about | dict(of))
        return stored

    def close(self) -> None:
        """Let go of the lock; may be called twice."""
        with self._writing:
            self._unusable = "is closed"
            self._held.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _take_back(self, end: int) -> None:
        # A line after a torn one would glue to it: without the cut nothing may follow.
        try:
            os.ftruncate(self._descriptor, end)
        except OSError:
            self._unusable = "could not be written and is given up"


def _encoded(kind: str, fields: Mapping[str, Any]) -> bytes:
    if "kind" in fields:
        raise JournalError(f"a {kind} line cannot have a field named kind")
    line = {"kind": kind, **fields}
    if fault := line_fault(line):
        raise JournalError(f"not journalled: {fault}")
    try:
        text = json.dumps(line, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        where = _unfit(fields) or str(error)
        raise JournalError(f"a {kind} cannot be journalled: {where}") from error
    return without_credentials(text).encode() + b"\n"


def _unfit(value: Any, path: str = "") -> str | None:
    if isinstance(value, Mapping):
        parts = [(f"{path}.{key}" if path else str(key), item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        parts = [(f"{path}[{index}]", item) for index, item in enumerate(value)]
    elif isinstance(value, float) and not math.isfinite(value):
        return f"{path} is {value}, which is no number: leave out what is not known"
    elif value is None or isinstance(value, str | int | float):
        return None
    else:
        return f"{path} is a {type(value).__name__}, not plain data"
    return next((fault for part, item in parts if (fault := _unfit(item, part))), None)


def _write(descriptor: int, data: bytes) -> None:
    # One call writes a whole line, unless the disk fills up in its middle: the next one says so.
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
