"""How a study under way is shown: one live view where there is a terminal, else plain lines."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from sweeper.progress.snapshot import Snapshot

Look = Callable[[], Snapshot]
Say = Callable[[str], None]

DUMB = frozenset({"", "dumb", "unknown"})
"""What TERM is where a cursor cannot be moved."""
NARROWEST = 60
"""Columns that a live view needs."""


class View(Protocol):
    """Where a study's progress goes."""

    def say(self, line: str, *, passing: bool = False) -> None:
        """Show a line that stays. One that is `passing` tells what a live view shows anyhow."""
        ...

    def watching(self, look: Look) -> AbstractContextManager[None]:
        """While this lasts, a live view shows what `look` gives, from a thread of its own."""
        ...

    def leave(self) -> None:
        """Put the terminal in order at once: the process is about to end without cleaning up."""
        ...


class PlainView:
    """Plain lines, handed to `say`."""

    def __init__(self, say: Say) -> None:
        self._say = say

    def say(self, line: str, *, passing: bool = False) -> None:
        self._say(line)

    @contextmanager
    def watching(self, look: Look) -> Iterator[None]:
        yield

    def leave(self) -> None:
        pass


def lively(stream: TextIO, environment: Mapping[str, str], columns: int) -> bool:
    """Whether a stream is a terminal on which a live view can be drawn, and a person looks at it.

    Colours are another matter: with NO_COLOR set a live view has none.
    """
    return (
        stream.isatty()
        and environment.get("TERM", "") not in DUMB
        and not environment.get("CI")
        and columns >= NARROWEST
    )
