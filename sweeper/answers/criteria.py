"""What a study or a command line asks of results: limits and objectives (pure)."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from sweeper.answers.results import Result
from sweeper.answers.units import quantity
from sweeper.errors import StudyError
from sweeper.results.metrics import METRICS, higher_is_better
from sweeper.spec import Direction, Study

_WHERE = re.compile(r"\s*(\w+)\s*(<=|>=)\s*(\S+)\s*")

Basis = Literal["interval", "value", "undersampled", "missing"]


@dataclass(frozen=True)
class Limit:
    """A bound on a metric: from above, or from below."""

    metric: str
    bound: float
    upper: bool

    def __str__(self) -> str:
        sign = "<=" if self.upper else ">="
        return f"{self.metric} {sign} {quantity(self.bound, self.metric)}"


@dataclass(frozen=True)
class Verdict:
    """Whether a result meets a limit, and by what that was judged.

    `value` is the end of the interval nearest the limit, or the mean where there is no interval.
    `excess` is how far it is beyond the bound, as a fraction of the bound (0 where it is not), and
    `None` where the metric is missing.
    """

    limit: Limit
    ok: bool
    basis: Basis
    value: float | None
    excess: float | None


def judge(result: Result, limit: Limit) -> Verdict:
    """A result against a limit, with the end of its interval that is worse.

    A metric that is missing, or that has too few samples for what it claims, meets no limit.
    """
    mean = result.value(limit.metric)
    if mean is None:
        return Verdict(limit, False, "missing", None, None)
    interval = result.interval(limit.metric)
    value = mean if interval is None else interval[1 if limit.upper else 0]
    over = value - limit.bound if limit.upper else limit.bound - value
    excess = max(0.0, over) / (abs(limit.bound) or 1.0)
    if limit.metric in result.undersampled:
        return Verdict(limit, False, "undersampled", value, excess)
    return Verdict(limit, over <= 0, "value" if interval is None else "interval", value, excess)


def meets(result: Result, limits: Iterable[Limit]) -> bool:
    """Whether a result meets every limit."""
    return all(judge(result, limit).ok for limit in limits)


def study_limits(study: Study, where: Sequence[Limit] = ()) -> tuple[Limit, ...]:
    """The limits of a study, and further ones, which replace those on the same side of a metric.

    A study's number is the most that a metric may be, or the least where more is better (rates).
    """
    given = [
        Limit(metric, bound, upper=not higher_is_better(metric))
        for metric, bound in study.limits.items()
    ]
    return tuple({(limit.metric, limit.upper): limit for limit in (*given, *where)}.values())


def parse_where(texts: Iterable[str]) -> tuple[Limit, ...]:
    """Limits written as `METRIC<=X` or `METRIC>=X`, X in SI units.

    Raises:
        StudyError: naming every text that is not one, or that names no metric.
    """
    limits, faults = [], []
    for text in texts:
        match = _WHERE.fullmatch(text)
        bound = _number(match[3]) if match else None
        if match is None or bound is None:
            faults.append(f"--where {text!r}: write METRIC<=X or METRIC>=X, with X a number")
        elif match[1] not in METRICS:
            faults.append(f"--where {text!r}: {_unknown(match[1])}")
        else:
            limits.append(Limit(match[1], bound, upper=match[2] == "<="))
    if faults:
        raise StudyError(faults)
    return tuple(limits)


def minimizing(metrics: Sequence[str], others: Mapping[str, Direction]) -> dict[str, Direction]:
    """Objectives that minimise `metrics` before `others`, which keep their direction.

    Raises:
        StudyError: naming every one that is no metric.
    """
    faults = [f"--minimize {name}: {_unknown(name)}" for name in metrics if name not in METRICS]
    if faults:
        raise StudyError(faults)
    first: dict[str, Direction] = dict.fromkeys(metrics, "min")
    return first | {name: others[name] for name in others if name not in first}


def _unknown(metric: str) -> str:
    close = difflib.get_close_matches(metric, METRICS, n=3) or sorted(METRICS)
    return f"no such metric; did you mean {', '.join(close)}?"


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
