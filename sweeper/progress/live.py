"""The live view of a terminal: what is under way stays at its foot, finished lines move up."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live

from sweeper.progress.frame import Frame
from sweeper.progress.views import Look, PlainView, View, lively

REFRESH_HZ = 2.0
LINES_ABOVE = 3
"""Lines of the screen that are left to what was said last."""
LEAST_HEIGHT = 6
MARGIN = 4
"""Columns where a terminal may write ^C, twice, without going on below."""
SHOW_CURSOR = b"\x1b[?25h\r\n"


class LiveView:
    """Draws on `stream`, which is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._console = Console(file=stream, highlight=False)
        self._live = False

    def say(self, line: str, *, passing: bool = False) -> None:
        if not passing or not self._live:
            self._console.print(line, markup=False, emoji=False, soft_wrap=True)

    @contextmanager
    def watching(self, look: Look) -> Iterator[None]:
        live = Live(
            _Foot(look, lambda: self._live),
            console=self._console,
            refresh_per_second=REFRESH_HZ,
            # What others print goes above the view, unless it goes to a file.
            redirect_stderr=sys.stderr.isatty(),
        )
        self._live = True
        with live:
            try:
                yield
            finally:
                self._live = False

    def leave(self) -> None:
        if self._live:
            # Without the locks of whoever draws: they may be what hangs.
            os.write(self._stream.fileno(), SHOW_CURSOR)


class _Foot:
    """What a look gives at the moment it is drawn; at the end without what is under way."""

    def __init__(self, look: Look, live: Callable[[], bool]) -> None:
        self._look = look
        self._live = live

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now = self._look()
        height = min(max(console.height - LINES_ABOVE, LEAST_HEIGHT), console.height)
        frame = Frame(now=now if self._live() else replace(now, under_way=()), height=height)
        yield from console.render(frame, options.update_width(options.max_width - MARGIN))


def view_for(stream: TextIO, environment: Mapping[str, str]) -> View:
    """A live view where `stream` can show one, else plain lines."""
    columns = shutil.get_terminal_size().columns
    if lively(stream, environment, columns):
        return LiveView(stream)
    return PlainView(lambda line: print(line, file=stream, flush=True))
