"""Whether a launch's processes take the memory of their node away."""

from collections.abc import Callable
from pathlib import Path
from resource import getpagesize

from sweeper.engines import host_memory
from sweeper.trial.guardian import PROC, members, processes

RESERVE_SHARE = 0.07
"""Of a node's memory. With less free Ray ends its workers (at 0.05 by default), Linux others."""
GROWN_BYTES = 2**30
"""A launch that has taken less than this since it was loaded is not who takes the memory."""


class MemoryWatch:
    """Finds a launch that grows until its node has no memory left.

    What an engine takes when it loads is its own affair: that is known from the outset, and judged
    by whoever loads. Not before a node's memory is nearly gone are its processes looked at.
    """

    def __init__(
        self,
        token: str,
        reserve_bytes: int | None = None,
        free_bytes: Callable[[], int] = host_memory.free_bytes,
    ) -> None:
        self._token = token
        self._reserve_bytes = reserve_bytes
        self._free_bytes = free_bytes
        self._loaded_bytes: int | None = None

    def loaded(self) -> None:
        """The engine is up: what it holds now is what it needs."""
        if self._reserve_bytes is None:
            self._reserve_bytes = round(RESERVE_SHARE * host_memory.total_bytes())
        self._loaded_bytes = held_bytes(self._token)

    def leak(self) -> str | None:
        """Why the launch is to be ended, if it is."""
        if self._loaded_bytes is None or self._reserve_bytes is None:
            return None
        free = self._free_bytes()
        if free >= self._reserve_bytes:
            return None
        grown = held_bytes(self._token) - self._loaded_bytes
        if grown < GROWN_BYTES:
            return None
        return (
            f"leak: its processes hold {grown / 2**30:.1f} GiB more than when the engine was "
            f"loaded, and {free / 2**30:.1f} GiB are left on the node, killed"
        )


def held_bytes(token: str) -> int:
    """Memory of a lease's processes that they do not share with files or each other."""
    return sum(_own_bytes(PROC / str(each.pid) / "statm") for each in members(processes(), token))


def _own_bytes(statm: Path) -> int:
    try:
        _, resident, shared, *_ = map(int, statm.read_text().split())
    except (OSError, ValueError):
        # It is gone, and holds nothing.
        return 0
    return (resident - shared) * getpagesize()
