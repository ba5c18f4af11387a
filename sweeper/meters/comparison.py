"""What a GPU's energy counter is worth: how often it ticks, and whether it agrees with the power.

Both come from the board's sensors, so over the same seconds the counter should go up by the
integral of the instant power. Their ratio finds counters that miss energy or count it twice; it
says nothing of the gain error that both have in common.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from sweeper.engines import Clock
from sweeper.meters.counter import Tick, Watch

SAMPLE_S = 0.02
"""Between samples of the power, which boards renew every 20 to 100 ms (arXiv 2312.02741)."""
FEWEST_TICKS = 4

Sample = tuple[float, float]
"""(seconds, watts)."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A counter and the power of its device, watched together.

    `period_s` is the time between two ticks of the counter; where looking takes longer than that,
    it is the time between two looks. From one tick to another, `duration_s` later, the counter went
    up by `counter_j` and the power integrates to `power_j`.
    """

    period_s: float
    duration_s: float
    counter_j: float
    power_j: float

    @property
    def ratio(self) -> float | None:
        """The counter's joules in the power's; `None` where the device told no power."""
        return self.counter_j / self.power_j if self.power_j > 0 else None


def compare(
    device: str,
    counter_j: Callable[[], float],
    power_w: Callable[[], float],
    clock: Clock,
    seconds: float,
) -> Comparison:
    """Watch one device for `seconds`, longer where its counter has hardly ticked by then.

    Raises:
        MeterError: the counter stands still or goes down, or one of the two cannot be read.
    """
    samples: list[Sample] = []
    watch = Watch({device: counter_j}, clock)
    ticks = watch.ticks[device]
    ends_s = clock.now() + seconds

    def sampled() -> bool:
        at_s = clock.now()
        if not samples or at_s - samples[-1][0] >= SAMPLE_S:
            watts = power_w()
            samples.append(((at_s + clock.now()) / 2, watts))
        return at_s >= ends_s and len(ticks) >= FEWEST_TICKS

    watch.until(sampled)
    first, last = ticks[0], ticks[-1]
    return Comparison(
        period_s=period_s(ticks),
        duration_s=last.t_s - first.t_s,
        counter_j=last.energy_j - first.energy_j,
        power_j=integral(samples, first.t_s, last.t_s),
    )


def period_s(ticks: Sequence[Tick]) -> float:
    """The time between two ticks; a tick that nobody saw leaves a gap of several periods."""
    gaps = [after.t_s - before.t_s for before, after in pairwise(ticks)]
    usual_s = median(gaps)
    return sum(gaps) / sum(max(1, round(gap / usual_s)) for gap in gaps)


def integral(samples: Sequence[Sample], from_s: float, until_s: float) -> float:
    """Joules between two moments of a power that goes straight from sample to sample.

    Before the first sample and after the last one it is as there.
    """
    times = [t_s for t_s, _ in samples]
    inside = samples[bisect_right(times, from_s) : bisect_left(times, until_s)]
    line = [(from_s, _at(samples, times, from_s)), *inside, (until_s, _at(samples, times, until_s))]
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(line))


def _at(samples: Sequence[Sample], times: Sequence[float], t_s: float) -> float:
    place = bisect_right(times, t_s)
    if place in {0, len(samples)}:
        return samples[min(place, len(samples) - 1)][1]
    (before_s, before_w), (after_s, after_w) = samples[place - 1 : place + 1]
    return before_w + (after_w - before_w) * (t_s - before_s) / (after_s - before_s)
