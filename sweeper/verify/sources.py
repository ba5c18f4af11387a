"""What a study's folder holds, as plain data: lines of the journal, and its attachments."""

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.errors import StudyError
from sweeper.verify.tally import Tally

Line = Mapping[str, Any]
JOURNAL, STUDY, ATTACHMENTS = "journal.jsonl", "study.yaml", "attachments"
VERDICTS = frozenset({"ok", "energy_invalid", "wrong_setting", "infeasible"})
KEY = ("id", "launch", "stage")
ATTEMPT = (*KEY, "attempt")
LEASE = ("trial_id", "attempt")
NEEDED: Mapping[str, tuple[str, ...]] = {
    "journal": ("journal",),
    "study": ("text",),
    "torn": (),
    "sitting": (),
    "trial": ("devices", *LEASE),
    "window": ("index", *KEY, *LEASE),
    "record": ("status", *KEY, *LEASE),
    "attachment": ("name", "role", "sha256"),
    "death": LEASE,
    "superseded": ATTEMPT,
    "ended": LEASE,
}
"""What no line of a kind may lack, to be found and told apart."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The lines of a journal by kind, and the attachments that are what their lines say."""

    lines: Sequence[Line]
    files: Mapping[str, bytes]
    torn_bytes: int

    def of(self, kind: str) -> Iterator[Line]:
        """The lines of a kind, in the order written."""
        return (line for line in self.lines if line.get("kind") == kind)

    def attached(self, role: str, record: Line) -> Iterator[bytes]:
        """The contents of the attachments of a role that are of a record."""
        for line in self.of("attachment"):
            named = [name for name in (*ATTEMPT, "trial_id", "configuration") if name in line]
            of_it = line["role"] == role and named and all(line[n] == record.get(n) for n in named)
            if of_it and line["name"] in self.files:
                yield gzip.decompress(self.files[line["name"]])


def read(folder: Path, tally: Tally) -> Sources:
    """Read a study's folder; what is not as the journal says is a difference.

    What stands after the last newline was never acknowledged and counts as not written.

    Raises:
        StudyError: there is no journal.
    """
    try:
        data = (folder / JOURNAL).read_bytes()
    except OSError as error:
        raise StudyError(f"{folder / JOURNAL} cannot be read: {error.strerror}") from error
    whole, newline, torn = data.rpartition(b"\n")
    lines = []
    for number, raw in enumerate((whole + newline).splitlines(), start=1):
        with tally.looking(f"{JOURNAL}, line {number}"):
            line = json.loads(raw.decode())
            lacking = [name for name in NEEDED[line["kind"]] if name not in line]
            where = f"{JOURNAL}, line {number}, a {line['kind']}"
            if tally.equal("journal lines", where, "what it lacks", lacking, []):
                lines.append(line)
    firsts = [line for line in lines if line.get("kind") == "journal"]
    if firsts != lines[:1]:
        tally.differ(JOURNAL, "its first line, and no other, is of kind journal")
    sources = Sources(lines=lines, files=_files(folder, lines, tally), torn_bytes=len(torn))
    _same_text(folder, sources, tally)
    return sources


def _files(folder: Path, lines: Sequence[Line], tally: Tally) -> dict[str, bytes]:
    """Every attachment that is there as noted; a later one of the same name replaced it."""
    noted = {line["name"]: line for line in lines if line.get("kind") == "attachment"}
    found = {}
    for name, line in noted.items():
        where = f"{ATTACHMENTS}/{name}"
        try:
            data = (folder / ATTACHMENTS / name).read_bytes()
        except OSError as error:
            tally.differ(where, f"cannot be read: {error.strerror}")
            continue
        tally.equal("attachments", where, "size", line.get("bytes"), len(data))
        digest = hashlib.sha256(data).hexdigest()
        if tally.equal("attachments", where, "sha256", line.get("sha256"), digest):
            found[name] = data
    return found


def _same_text(folder: Path, sources: Sources, tally: Tally) -> None:
    """The study's text on the disk is the last that the journal notes."""
    texts = [line["text"] for line in sources.of("study")]
    try:
        on_disk = (folder / STUDY).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        tally.differ(STUDY, "cannot be read")
        return
    tally.compared["study texts"] += 1
    if not texts or texts[-1] != on_disk:
        tally.differ(STUDY, f"is not the text that {JOURNAL} notes last")


def verdicts(sources: Sources) -> tuple[list[Line], list[Line]]:
    """The records that stand: first the verdicts, then the failures of keys without one.

    A `superseded` line takes back the records before it that have its key and attempt.
    """
    standing: list[Line] = []
    for line in sources.lines:
        if line.get("kind") == "record":
            standing.append(line)
        elif line.get("kind") == "superseded":
            taken = [line[name] for name in ATTEMPT]
            standing = [each for each in standing if [each[n] for n in ATTEMPT] != taken]
    accepted = [line for line in standing if line["status"] in VERDICTS]
    keys = {tuple(line[name] for name in KEY) for line in accepted}
    failed = [line for line in standing if tuple(line[name] for name in KEY) not in keys]
    return accepted, failed


def name_of(line: Line) -> str:
    """How a record or a window is called in a report."""
    name = f"{line.get('id')} launch {line.get('launch')} {line.get('stage')}"
    attempt = line.get("attempt")
    return f"{name} attempt {attempt}" if attempt else name
