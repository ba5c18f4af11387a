"""Attachments: compressed files beside the journal, and how an engine log becomes one.

An attachment's line in the journal says of what it is: it belongs to every record that has the
values named there (`{"trial_id": .., "attempt": ..}`: all records of that trial), and to the study
as a whole where none is named.
"""

import gzip
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Literal

LIMIT_BYTES = 8 * 2**20
"""The most that one attachment may have."""
OF = ("trial_id", "attempt", "configuration", "launch", "stage", "id")
"""What an attachment may say it is of: fields of a record."""
Role = Literal["power_trace", "engine_log", "events", "file"]
"""`power_trace` is the format of `results/power.py`, `engine_log` gzipped text, `events` that of
`trial/events.py`, of the windows of one record."""

_NAME_LENGTH = 120
_CUT = b"\n[... the middle of this log was cut out, it was too long ...]\n"


def file_name(name: str) -> str:
    """`name` as a file name anywhere; different names stay different."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[-_NAME_LENGTH:].lstrip(".")
    if plain == name != "":
        return plain
    return f"{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}_{plain}"


def belongs(attachment: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Whether an attachment's line is of this record; both as plain data."""
    named = [field for field in OF if field in attachment]
    return bool(named) and all(attachment[field] == record.get(field) for field in named)


def pack_log(log: bytes, limit_bytes: int = LIMIT_BYTES) -> bytes:
    """A log, gzipped; of one that would be too long the start and the end, which says so."""
    packed = gzip.compress(log, mtime=0)
    kept = len(log)
    while len(packed) > limit_bytes and kept > 0:
        kept //= 2
        head = kept // 8
        packed = gzip.compress(log[:head] + _CUT + log[len(log) - (kept - head) :], mtime=0)
    return packed
