"""MLflow, filled from the journal by a thread: a view that can be away, late, and made again.

    journal.jsonl --tail--> ledger: what MLflow is to hold --what it lacks--> MlflowStore

Nothing waits for it but `finish`. An error is kept for whoever asks, the thread tries again after a
while, and it first asks the store what is there: a study that was killed, or whose MLflow was
away, is completed by the next sitting without anything being written twice.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from sweeper.results.addresses import Place, check, place_of, without_credentials
from sweeper.results.attachments import file_name
from sweeper.results.contents import FILE, lines, whole_bytes
from sweeper.results.mirror import Mirror
from sweeper.results.note import study_note
from sweeper.results.record import Key

if TYPE_CHECKING:
    from sweeper.results.mlflow_store import MlflowStore

__all__ = ["Tracking", "check"]

Ending = Literal["FINISHED", "FAILED", "KILLED"]
"""How MLflow says that a study ended: `KILLED` is an interruption."""
Connect = Callable[[Place, str, str, str], "MlflowStore"]
"""`connect(place, study, journal, folder)`: see `MlflowStore.connect`."""

POLL_S = 1.0
FIRST_RETRY_S = 2.0
LAST_RETRY_S = 60.0
EXIT_PATIENCE_S = 5.0

_SETTINGS: Mapping[str, str] = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # of mlflow and alembic: every error reaches us as one
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # standard output may be the --json object's
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # the default of 7 takes four minutes to fail
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Set in the environment before mlflow is imported, where the user has not."""

_log = logging.getLogger(__name__)


def connect_mlflow(place: Place, study: str, journal: str, folder: str) -> "MlflowStore":
    """The study's runs in MLflow, whose import takes seconds and must find its settings."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    from sweeper.results.mlflow_store import MlflowStore

    return MlflowStore.connect(place, study, journal, folder)


class Tracking:
    """Keeps MLflow up with a journal, in a thread of its own.

    A context manager: leaving it without `finish` gives MLflow a few seconds more.
    """

    def __init__(
        self,
        uri: str | None,
        study: str,
        folder: Path,
        root: Path,
        *,
        connect: Connect = connect_mlflow,
        poll_s: float = POLL_S,
        first_retry_s: float = FIRST_RETRY_S,
    ) -> None:
        """`folder` is the journal's, `root` holds the default store; `uri` as in the study."""
        self._place = place_of(uri, root)
        self._study = study
        self._folder = folder
        self._mirror = Mirror(folder)
        self._connect = connect
        self._poll_s = poll_s
        self._first_retry_s = first_retry_s
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._store: MlflowStore | None = None
        self._wishes = threading.Lock()
        self._front: frozenset[Key] | None = None
        self._figures: dict[str, bytes] = {}
        self._note: str | None = None
        self._ending: Ending = "FINISHED"
        self._finishing = threading.Event()
        self._abandoned = threading.Event()
        self._news = threading.Event()
        self.trouble: str | None = None
        """What last went wrong, until it works again; without credentials."""

    @property
    def public_uri(self) -> str:
        """Where MLflow's records are, without credentials."""
        return self._place.public_uri

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def front(self, keys: Iterable[Key]) -> None:
        """From now on these records, and no others, carry the tag `front` = `true`."""
        with self._wishes:
            self._front = frozenset(keys)
        self._news.set()

    def figures(self, figures: Mapping[str, bytes]) -> None:
        """Files for the study itself by name, such as `front.png`; the same name replaces."""
        with self._wishes:
            self._figures |= {f"figures/{file_name(name)}": data for name, data in figures.items()}
        self._news.set()

    def note(self, headline: str, text: str) -> None:
        """What the study's page says of it: the best, say, and the table of its answers."""
        with self._wishes:
            self._note = study_note(headline, text)
        self._news.set()

    def finish(self, timeout_s: float, ending: Ending = "FINISHED") -> int:
        """Write what is left, say that the study is over, and stop; at most `timeout_s`.

        Returns how many records MLflow lacks; `trouble` says why.
        """
        self._ending = ending
        self._finishing.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        self._abandoned.set()
        return self._journalled() - self._mirror.complete

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._finishing.is_set():
            self.finish(EXIT_PATIENCE_S, "FAILED" if error is not None else "FINISHED")

    def _journalled(self) -> int:
        path = self._folder / FILE
        data = path.read_bytes() if path.exists() else b""
        return sum(line["kind"] == "record" for line in lines(data[: whole_bytes(data)]))

    def _run(self) -> None:
        retry_s = self._first_retry_s
        while not self._abandoned.is_set():
            finishing = self._finishing.is_set()
            self._news.clear()
            try:
                self._keep_up()
                if finishing:
                    if self._store is not None and not self._abandoned.is_set():
                        self._store.end(self._store.parent, self._ending)
                    return
            except Exception as error:
                # MLflow away is no reason for a study to stop, whatever it raises.
                self._store = None
                self._say(error)
                self._pause(retry_s)
                retry_s = min(2 * retry_s, LAST_RETRY_S)
            else:
                retry_s = self._first_retry_s
                if not self._finishing.is_set():
                    self._news.wait(self._poll_s)

    def _keep_up(self) -> None:
        self._mirror.read()
        journal = self._mirror.journal
        if journal is None:
            return
        if self._store is None:
            self._store = self._connect(self._place, self._study, journal, self._folder.name)
        with self._wishes:
            front, figures, note = self._front, dict(self._figures), self._note
        self._mirror.update(self._store, front, figures, note, self._abandoned.is_set)
        self.trouble = self._mirror.refusal

    def _pause(self, retry_s: float) -> None:
        if self._finishing.is_set():
            self._abandoned.wait(self._first_retry_s)
        else:
            self._finishing.wait(retry_s)

    def _say(self, error: Exception) -> None:
        text = without_credentials(f"{type(error).__name__}: {error}".splitlines()[0])[:300]
        if self.trouble is None:
            _log.warning("MLflow at %s is away: %s", self.public_uri, text)
        self.trouble = text
