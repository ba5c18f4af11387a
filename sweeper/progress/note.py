"""progress.json in a study's folder: what a driver last told of itself, for others to read.

A view, and a moment old: the journal is the truth. One object: `version`, `journal`, `driver`
(process and host), `state` (`running`, `ended`, `interrupted`, `failed`), `started_at`,
`written_at` (UTC) and `progress`, the fields of a `Snapshot`.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sweeper.errors import PlaceError
from sweeper.progress.snapshot import Snapshot
from sweeper.results.files import write_whole
from sweeper.results.lock import this_process
from sweeper.trial.bench import utc_now

FILE = "progress.json"
VERSION = 1
PERIOD_S = 1.0
"""It is written at most so often, while something happens."""
SIGN_OF_LIFE_S = 10.0
"""And at least so often."""

Ending = Literal["running", "ended", "interrupted", "failed"]


@dataclass(frozen=True, kw_only=True)
class Note:
    """A progress.json as read."""

    driver: str
    state: Ending
    written_at: str
    progress: Snapshot


def read(folder: Path) -> Note | None:
    """The note in a study's folder; `None` where there is none that this sweeper understands."""
    try:
        data = json.loads((folder / FILE).read_bytes())
        if data["version"] != VERSION:
            return None
        return Note(
            driver=data["driver"],
            state=data["state"],
            written_at=data["written_at"],
            progress=Snapshot.from_json(data["progress"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


class NoteWriter:
    """Keeps progress.json up with `look`, in a thread of its own."""

    def __init__(
        self,
        folder: Path,
        look: Callable[[], Snapshot],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._look = look
        self._clock = clock
        self._started_at = utc_now()
        self._written_s: float | None = None
        self._news = True
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def start(self) -> None:
        """Begin with a first note."""
        self.tick()
        self._thread.start()

    def news(self) -> None:
        """Something happened."""
        self._news = True

    def finish(self, state: Ending) -> None:
        """The last note."""
        self._over.set()
        self._thread.join()
        self._write(state)

    def tick(self) -> None:
        """Write when it is time to."""
        now_s = self._clock()
        age_s = SIGN_OF_LIFE_S if self._written_s is None else now_s - self._written_s
        if age_s >= SIGN_OF_LIFE_S or (self._news and age_s >= PERIOD_S):
            self._news = False
            self._written_s = now_s
            self._write("running")

    def _run(self) -> None:
        while not self._over.wait(PERIOD_S):
            self.tick()

    def _write(self, state: Ending) -> None:
        note = {
            "version": VERSION,
            "driver": this_process(),
            "state": state,
            "started_at": self._started_at,
            "written_at": utc_now(),
            "progress": self._look().to_json(),
        }
        try:
            write_whole(self._folder / FILE, json.dumps(note).encode(), lasting=False)
        except PlaceError:
            # The journal is on the same disk, and what ails it is told there.
            return
