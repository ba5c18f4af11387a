"""What an engine held of its device's memory, and how it is told that there was too little."""

from collections.abc import Callable

SENTENCES = 2
"""What was asked for and what was free; torch's advice and its cache's state follow."""


class PeakMemory:
    """The most bytes that work which succeeded has held.

    An allocator's own peak also counts a batch that did not fit, which fills the device just
    before it fails. `read` tells the most bytes held since `reset` was called.
    """

    def __init__(self, read: Callable[[], int], reset: Callable[[], None]) -> None:
        self._read = read
        self._reset = reset
        self.most_bytes = 0

    def keep(self) -> None:
        """What was done since the last `forget` succeeded."""
        self.most_bytes = max(self.most_bytes, self._read())

    def forget(self) -> None:
        """What was done since the last `keep` does not count."""
        self._reset()


def shortage(error: Exception) -> str:
    """Why memory ran out, in as few words as say it, the same for the same request."""
    said = str(error).strip().partition("\n")[0] or type(error).__name__
    sentences = said.removeprefix("CUDA out of memory. ").split(". ")
    return ". ".join(sentences[:SENTENCES]).rstrip(".")
