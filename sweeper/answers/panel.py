"""What a picture of an answer shows: which metrics, which series (pure)."""

from collections.abc import Iterable, Sequence

from sweeper.answers.best import Answer
from sweeper.answers.results import Result
from sweeper.answers.table import brief, plain
from sweeper.results.metrics import is_energy


def series(results: Iterable[Result]) -> dict[str, list[Result]]:
    """Results by all their choices but the one with the most values, which runs along a line."""
    members = list(results)
    key = running(members)
    found: dict[str, list[Result]] = {}
    for result in members:
        rest = {name: value for name, value in result.chosen.items() if name != key}
        found.setdefault(brief(rest), []).append(result)
    return found


def running(results: Sequence[Result]) -> str | None:
    """The choice with the most values among results."""
    values: dict[str, set[str]] = {}
    for result in results:
        for key, value in result.chosen.items():
            values.setdefault(key, set()).add(plain(value))
    return max(values, key=lambda key: len(values[key]), default=None)


def axes_of(answer: Answer) -> tuple[str, str] | None:
    """The metrics to draw by: an energy along x where there is one, against the next objective."""
    names = sorted(answer.objectives, key=lambda metric: not is_energy(metric))
    if len(names) < 2:
        names += [name for name in ("latency_mean_s", "output_tokens_per_s") if name not in names]
    x, y = names[:2]
    known = any(place_of(result, x, y) for result in answer.group.results)
    return (x, y) if known else None


def place_of(result: Result, x: str, y: str) -> tuple[float, float] | None:
    """Where a result is drawn; `None` where a metric is not known."""
    across, up = result.value(x), result.value(y)
    return None if across is None or up is None else (across, up)
