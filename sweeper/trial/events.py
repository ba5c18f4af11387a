"""The events of a window as they came, kept so that each of its numbers can be made again.

A window is one line of JSON; the windows of a record are such lines, gzipped, in one attachment (or
several, where one would be too long). A line holds columns:

    {"index": 0, "requests": {"index": .., "input_tokens": .., "output_tokens": ..},
     "kind": "aafft..", "t": .., "request": .., "tokens": .., "running": .., "detail": {..}}

`kind` has a letter of `LETTERS` for every event, `CHUNK` for tokens of one request alone. `t` are
the differences of the bit patterns of its time, read as 64-bit integers: no time is rounded, and
those of one step cost a byte. `request` has the differences of the requests' numbers, of the events
that name one; `tokens` and `running` are of the events of tokens of either kind; `detail` says why
an event by its place failed.
"""

import gzip
import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from sweeper.engines import Event, EventKind, Request
from sweeper.results.attachments import LIMIT_BYTES

LETTERS: Mapping[EventKind, str] = {
    "admitted": "a",
    "first_token": "f",
    "tokens": "t",
    "finished": "d",
    "failed": "x",
}
CHUNK = "c"
"""Of tokens that name their request."""


class EventLog:
    """Events in columns of plain numbers: inside a window nothing more is done than to add them."""

    def __init__(self) -> None:
        self._kinds: list[str] = []
        self._times_s = array("d")
        self._requests = array("q")
        self._tokens = array("q")
        self._running = array("q")
        self._details: dict[int, str] = {}

    def add(self, event: Event) -> None:
        """Keep one event."""
        if event.detail:
            self._details[len(self._kinds)] = event.detail
        self._times_s.append(event.t_s)
        if event.kind == "tokens":
            self._kinds.append(LETTERS["tokens"] if event.request is None else CHUNK)
            self._tokens.append(event.tokens)
            self._running.append(event.running)
        else:
            self._kinds.append(LETTERS[event.kind])
        if event.request is not None:
            self._requests.append(event.request)

    def line(self, index: int, requests: Mapping[int, Request]) -> bytes:
        """The line of a window, gzipped: one member of an attachment.

        `requests` are those that were sent, by number.
        """
        columns = {
            "index": index,
            "requests": {
                "index": _differences(list(requests)),
                "input_tokens": [len(each.prompt_token_ids) for each in requests.values()],
                "output_tokens": [each.output_tokens for each in requests.values()],
            },
            "kind": "".join(self._kinds),
            "t": _differences(array("q", self._times_s.tobytes())),
            "request": _differences(self._requests),
            "tokens": list(self._tokens),
            "running": list(self._running),
            "detail": self._details,
        }
        text = json.dumps(columns, separators=(",", ":")) + "\n"
        return gzip.compress(text.encode(), mtime=0)


def files(lines: Iterable[bytes], limit_bytes: int = LIMIT_BYTES) -> tuple[list[bytes], list[int]]:
    """Packed lines put together into files of at most `limit_bytes`, in order.

    Also the places of lines that no file can take: they are not kept, and nothing is thinned.
    """
    kept: list[bytes] = []
    lost = []
    for place, line in enumerate(lines):
        if len(line) > limit_bytes:
            lost.append(place)
        elif kept and len(kept[-1]) + len(line) <= limit_bytes:
            kept[-1] += line
        else:
            kept.append(line)
    return kept, lost


def _differences(numbers: Sequence[int]) -> list[int]:
    return [*numbers[:1], *(after - before for before, after in pairwise(numbers))]
