"""Clocks of a launch: the machine's, one without waiting, and one that waits for a fraction."""

import time

from sweeper.engines import Clock
from sweeper.spec import Settings


class RealClock:
    """The machine's monotonic clock, which all processes of a machine share."""

    def now(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(max(seconds, 0.0))


class VirtualClock:
    """Time that passes only by `sleep`, at once."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> None:
        self._now_s += max(seconds, 0.0)


class ScaledClock:
    """Time that passes only by `sleep`, each second of it taking `scale` real ones.

    Real time lost elsewhere is caught up, so a slow reader does not stretch what it reads.
    """

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._now_s = 0.0
        self._started_s: float | None = None

    def now(self) -> float:
        return self._now_s

    def sleep(self, seconds: float) -> None:
        if self._started_s is None:
            self._started_s = time.monotonic()
        self._now_s += max(seconds, 0.0)
        ahead_s = self._started_s + self._now_s * self._scale - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)


def clock_for(settings: Settings) -> Clock:
    """The clock of a launch: real, but for a simulated engine whatever its options say.

    Raises:
        StudyError: the options of a simulated engine are wrong.
    """
    if settings.engine.kind != "simulated":
        return RealClock()
    from sweeper.engines.simulated_options import read_options

    scale = read_options(settings).time_scale
    if scale == 0:
        return VirtualClock()
    return RealClock() if scale == 1 else ScaledClock(scale)
