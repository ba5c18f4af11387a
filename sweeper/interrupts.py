"""Ctrl-C and SIGTERM, heard wherever a study is."""

import os
import signal
import threading
import time
from collections.abc import Callable

from sweeper.errors import EXIT_INTERRUPTED

END_PATIENCE_S = 20.0
"""An end that was asked for takes a few seconds; some who ask kill after thirty."""


class Interrupts:
    """Ctrl-C and SIGTERM ask for an orderly end; a second one does not wait for it.

    An end that takes longer than `patience_s` is not orderly any more: a SIGTERM to the whole
    process group ends Ray too, and whoever asks it then waits in vain. The process says
    `last_words`, puts the terminal in order (`leave`) and is gone, and its guardian ends what it
    started.
    """

    def __init__(
        self,
        last_words: str,
        patience_s: float = END_PATIENCE_S,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        self._asked = threading.Event()
        self._ender = threading.Thread(target=self._end, name="end", daemon=True)
        self._last_words = last_words
        self._patience_s = patience_s
        self._leave = leave

    def listen(self) -> None:
        """Hear both from here on; libraries that were started meanwhile may have taken them."""
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)
        if not self._ender.is_alive():
            self._ender.start()

    def is_set(self) -> bool:
        """Whether an end was asked for."""
        return self._asked.is_set()

    def _ask(self, number: int, frame: object) -> None:
        if self._asked.is_set():
            raise KeyboardInterrupt
        self._asked.set()

    def _end(self) -> None:
        self._asked.wait()
        time.sleep(self._patience_s)
        self._leave()
        # Past the locks of whoever prints: they may be what hangs.
        os.write(2, f"{self._last_words}\n".encode())
        os._exit(EXIT_INTERRUPTED)
