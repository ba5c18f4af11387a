"""When a point has been run long enough for its windows to count."""

from collections.abc import Sequence

from sweeper.spec import WarmupSpec
from sweeper.trial.windows import spread

STEADY_SPREAD = 0.05
"""Two batches in a row whose times differ by less, relatively, end the warm-up."""


def settled(durations_s: Sequence[float], warmup: WarmupSpec, visited: bool) -> bool:
    """Whether batches that took `durations_s` were enough.

    On the first visit at least `min_batches`, then until two in a row take the same time, at most
    `max_batches`; on later visits one batch.
    """
    count = len(durations_s)
    if visited:
        return count >= 1
    if count >= warmup.max_batches:
        return True
    return count >= warmup.min_batches and spread(durations_s[-2:]) <= STEADY_SPREAD
