"""Reading cumulative counters that move in ticks, at the moment of a tick (no hardware here).

A counter that ticks every 20 to 200 ms shows the energy up to its last tick only. A reading
therefore watches for ticks, and refers every device to one moment:

    device A   --|---------------|---------------|----      the moment is the last device's tick;
    device B   --------|---------------|--------------      the others are interpolated between
    device C   ------------|---------------|----------      their ticks around it
    watching        ^      ^ t_s           ^ done
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from sweeper.engines import Clock
from sweeper.errors import MeterError

POLL_S = 0.001
"""Between looks. On an H200 (driver 580) a look itself takes 4 ms, the counter ticks every 100 ms,
and looking this often for seconds changes what it counts by less than 0.1 %."""
SHARP_S = 0.01
"""A tick is used when it fell between two looks no further apart; 10 ms are 0.1 % of 10 s. Where
looks take longer (one after the other at many GPUs), twice the shortest time between two."""
PERIOD_DOUBT = 0.02
"""How well a period is known, relatively, before `periods_s` is content."""
STUCK_S = 1.0
"""The slowest counters known tick every 200 ms (arXiv 2312.02741): this long is no period."""

Counters = Mapping[str, Callable[[], float]]
"""How to read each device's joules."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A counter went to `energy_j` at `t_s`, half way between two looks that are `width_s` apart.

    `number` counts all of its ticks that were seen, also those that were not sharp enough.
    """

    t_s: float
    energy_j: float
    number: int
    width_s: float = 0.0


class Watch:
    """Looks at counters as often as makes sense and notes when each one ticks."""

    def __init__(self, counters: Counters, clock: Clock) -> None:
        self._counters = counters
        self._clock = clock
        self._seen: dict[str, tuple[float, float]] = {}
        self._moved_s = dict.fromkeys(counters, clock.now())
        self._shortest_s = dict.fromkeys(counters, float("inf"))
        self._began_s = clock.now()
        self._ticked = dict.fromkeys(counters, 0)
        self.ticks: dict[str, list[Tick]] = {device: [] for device in counters}

    def until(self, done: Callable[[], bool]) -> None:
        """Look until `done()`.

        Raises:
            MeterError: a counter went down (`counter_reset`) or stood still for `STUCK_S`
                (`counter_stuck`), or could not be read.
        """
        while not done():
            for device, read in self._counters.items():
                self._look(device, read)
            self._clock.sleep(POLL_S)

    def _look(self, device: str, read: Callable[[], float]) -> None:
        before_s = self._clock.now()
        energy_j = read()
        after_s = self._clock.now()
        at_s = (before_s + after_s) / 2
        last_s, last_j = self._seen.get(device, (at_s, energy_j))
        self._seen[device] = at_s, energy_j
        width_s = at_s - last_s
        if width_s:
            self._shortest_s[device] = min(self._shortest_s[device], width_s)
        if energy_j < last_j:
            raise MeterError("counter_reset", f"{device} went from {last_j} J to {energy_j} J")
        if energy_j > last_j:
            self._moved_s[device] = after_s
            self._ticked[device] += 1
            if width_s <= max(SHARP_S, 2 * self._shortest_s[device]) or self._late():
                middle_s = (last_s + at_s) / 2
                self.ticks[device].append(Tick(middle_s, energy_j, self._ticked[device], width_s))
        elif after_s - self._moved_s[device] > STUCK_S:
            raise MeterError("counter_stuck", f"{device} stood at {energy_j} J for {STUCK_S} s")

    def _late(self) -> bool:
        """Whether the machine is too busy for sharp ticks, so that wide ones must do."""
        return self._clock.now() - self._began_s > STUCK_S


def read_aligned(counters: Counters, clock: Clock) -> tuple[float, dict[str, float]]:
    """One moment of the clock, and every counter's joules at that moment.

    One counter is read right at a tick, so its joules are exact and the moment is known to the
    millisecond. Of several, the moment is the tick of the one that ticks last; what the others had
    is interpolated between their ticks before and after it, which is off by at most a quarter of
    a period's energy where power jumps inside it. Takes up to one period for one counter, two for
    several.

    Raises:
        MeterError: as `Watch.until`.
    """
    watch = Watch(counters, clock)
    watch.until(lambda: all(watch.ticks.values()))
    t_s = max(ticks[-1].t_s for ticks in watch.ticks.values())
    watch.until(lambda: all(ticks[-1].t_s >= t_s for ticks in watch.ticks.values()))
    return t_s, {device: _at(t_s, ticks) for device, ticks in watch.ticks.items()}


def _at(t_s: float, ticks: list[Tick]) -> float:
    after = next(tick for tick in ticks if tick.t_s >= t_s)
    if after.t_s == t_s:
        return after.energy_j
    before = [tick for tick in ticks if tick.t_s < t_s][-1]
    part = (t_s - before.t_s) / (after.t_s - before.t_s)
    return before.energy_j + part * (after.energy_j - before.energy_j)


def periods_s(counters: Counters, clock: Clock) -> dict[str, float]:
    """The time between ticks of every counter, to within `PERIOD_DOUBT`.

    Watches for four ticks, or for as many as the time between two looks makes necessary. Of a
    counter that moves at every look the period is no longer than what is returned.

    Raises:
        MeterError: as `Watch.until`.
    """
    watch = Watch(counters, clock)
    watch.until(lambda: all(_doubt(ticks) <= PERIOD_DOUBT for ticks in watch.ticks.values()))
    return {device: period_s(ticks) for device, ticks in watch.ticks.items()}


def _doubt(ticks: Sequence[Tick]) -> float:
    """How far off a mean period can be, relatively, as its first and last tick are not sharp."""
    if len(ticks) < 4:
        return float("inf")
    first, last = ticks[0], ticks[-1]
    return (first.width_s + last.width_s) / 2 / (last.t_s - first.t_s)


def period_s(ticks: Sequence[Tick]) -> float:
    """The mean time between two ticks; one that nobody saw leaves a gap of several periods."""
    gaps = list(pairwise(ticks))
    usual_s = median((b.t_s - a.t_s) / (b.number - a.number) for a, b in gaps)
    return (ticks[-1].t_s - ticks[0].t_s) / sum(_periods_between(a, b, usual_s) for a, b in gaps)


def _periods_between(before: Tick, after: Tick, usual_s: float) -> int:
    """As many as were seen, or as even the shortest gap between the two has room for."""
    shortest_s = after.t_s - before.t_s - (before.width_s + after.width_s) / 2
    return max(after.number - before.number, round(shortest_s / usual_s))
