"""GPUs that a lease holds and its launch does not use: their counters, at the edges of windows."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError
from sweeper.meters import Reading, nvml


class IdleNvidia:
    """NVML's counters, read once each.

    Nobody waits for their ticks, as that would keep the edge of a window waiting: a reading is
    behind by up to a tick, at either edge, of a power that hardly changes (0.1 s of 30 s).
    """

    def __init__(self, idle: Sequence[str], clock: Clock, engine: Engine | None = None) -> None:
        self._idle = tuple(idle)
        self._clock = clock
        self._handles: dict[str, nvml.Handle] = {}
        self._session: Any = None

    def open(self) -> Mapping[str, Any]:
        """The UUIDs; none is no fault.

        Raises:
            MeterError: a GPU is unknown, sliced, lost or has no counter.
        """
        self.close()
        session = nvml.session()
        session.__enter__()
        self._session = session
        try:
            self._handles = {uuid: nvml.handle_of(uuid) for uuid in self._idle}
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
        joules = {uuid: nvml.energy_j(uuid, handle) for uuid, handle in self._handles.items()}
        return Reading(t_s=(before_s + self._clock.now()) / 2, energy_j=joules)

    def close(self) -> None:
        """Let go of NVML; may be called twice."""
        self._handles = {}
        if self._session is not None:
            self._session.__exit__(None, None, None)
            self._session = None
