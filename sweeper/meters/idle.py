"""GPUs that a lease holds and its launch does not use: their counters, at the edges of windows."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError
from sweeper.meters import Reading


class IdleGpus(ABC):
    """Counters of one library, read once each.

    Nobody waits for their ticks, as that would keep the edge of a window waiting: a reading is
    behind by up to a tick, at either edge, of a power that hardly changes (0.1 s of 30 s).
    """

    def __init__(self, idle: Sequence[str], clock: Clock, engine: Engine | None = None) -> None:
        self._idle = tuple(idle)
        self._clock = clock
        self._handles: Mapping[str, Any] = {}
        self._session: AbstractContextManager[None] | None = None

    @abstractmethod
    def library(self) -> AbstractContextManager[None]:
        """The library, held open."""

    @abstractmethod
    def handles(self, names: Sequence[str]) -> Mapping[str, Any]:
        """What the library calls the GPUs of these names."""

    @abstractmethod
    def energy_j(self, name: str, handle: Any) -> float:
        """The counter of one of them."""

    def open(self) -> Mapping[str, Any]:
        """The names; none is no fault.

        Raises:
            MeterError: there is no library, or a GPU is unknown, lost or has no counter.
        """
        self.close()
        session = self.library()
        session.__enter__()
        self._session = session
        try:
            self._handles = self.handles(self._idle)
            self.read()
        except MeterError:
            self.close()
            raise
        return {"counted": list(self._idle)}

    def read(self) -> Reading:
        """Joules of every idle GPU.

        Raises:
            MeterError: `not_open`, or a counter cannot be read.
        """
        if self._session is None:
            raise MeterError("not_open", "the counters were closed, or never opened")
        before_s = self._clock.now()
        joules = {name: self.energy_j(name, handle) for name, handle in self._handles.items()}
        return Reading(t_s=(before_s + self._clock.now()) / 2, energy_j=joules)

    def close(self) -> None:
        """Let go of the library; may be called twice."""
        self._handles = {}
        if self._session is not None:
            self._session.__exit__(None, None, None)
            self._session = None
