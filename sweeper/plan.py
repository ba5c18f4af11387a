"""From a study to what has to be done: points, launches, trials (pure).

    study --expand--> points --by configuration, in chunks--> launches --leases--> trials

The ids depend on what is measured and how, so a study that was stopped, widened or given other
limits finds its records again.
"""

import hashlib
import itertools
import json
import math
import operator
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper.decoding import beam_width
from sweeper.errors import StudyError
from sweeper.results.metrics import MIN_TAIL
from sweeper.results.record import Key
from sweeper.schema import lookup, tree, with_values
from sweeper.spec import (
    Axis,
    Launch,
    Point,
    QualitySpec,
    Settings,
    Sizes,
    Stage,
    Study,
    Trial,
    Values,
)

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_COMPARISON = re.compile(r"\s*(>=|<=|!=|>|<)\s*(.+?)\s*")
_PERCENTILE = re.compile(r"_p(\d\d)_s$")
NOMINAL_LOAD_S = 60.0
"""Assumed for a launch where nothing is known of the GPU; it only orders and chunks trials."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a launch and a point are expected to take, in seconds."""

    load_s: Callable[[Settings], float]
    point_s: Callable[[Settings], float]


def nominal_point_s(settings: Settings) -> float:
    """The windows of a point at their least length, and as much again around them."""
    return 2.0 * settings.measure.windows * settings.measure.min_window_s


NOMINAL = Cost(load_s=lambda settings: NOMINAL_LOAD_S, point_s=nominal_point_s)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a study comes to.

    `points` are all of the study, `trials` what is left to do. `excluded` counts combinations
    that the study's `exclude` took out.
    """

    points: tuple[Point, ...]
    trials: tuple[Trial, ...]
    excluded: int

    @property
    def launches(self) -> tuple[Launch, ...]:
        """The launches of all trials, in the order of the trials."""
        return tuple(launch for trial in self.trials for launch in trial.launches)


def plan(
    study: Study,
    *,
    done: Collection[Key] = frozenset(),
    devices: int | None = None,
    cost: Cost = NOMINAL,
) -> Plan:
    """Everything left to do, given the keys that have an accepted record.

    `devices` is how many GPUs there are to fill: where they hold two launches of a configuration
    or more, its points are cut into chunks so that none is longer than half of the time the pool
    needs at least (simulated in many mixes, that is within 1.2 of the best makespan).

    Raises:
        StudyError: nothing is left of the axes after `exclude`.
    """
    points, excluded = expand(study)
    if not points:
        raise StudyError(f"exclude: leaves none of {excluded} combinations; loosen an entry")
    trials: list[Trial] = []
    asked = min_requests(study)
    groups = by_configuration(points)
    area = sum(_area(group, cost) for group in groups) * study.settings.measure.launches
    for group in groups:
        limit_s = _limit_s(area, devices, group[0].settings.engine.gpus)
        sizes = sizes_of(group)
        for number in range(study.settings.measure.launches):
            left = [point for point in group if (point.id, number, "full") not in done]
            scorer = scorer_of(study) if number == 0 and len(left) == len(group) else None
            for chunk in chunks(left, limit_s, cost):
                trials.append(trial_of(chunk, number, "full", sizes, asked, cost, scorer))
                scorer = None
    return Plan(points=points, trials=largest_first(trials), excluded=excluded)


def expand(study: Study) -> tuple[tuple[Point, ...], int]:
    """The points of a study in the order of its axes, and how many combinations are excluded.

    Combinations that come to the same settings are one point.
    """
    found: dict[str, Point] = {}
    excluded = 0
    for condition in _product(study.conditions):
        for chosen in _product(study.axes):
            settings = with_values(study.settings, {**condition, **chosen})
            if any(holds(entry, settings) for entry in study.exclude):
                excluded += 1
                continue
            point = _point(settings, study.resources.accelerator, condition, chosen)
            found.setdefault(point.id, point)
    return tuple(found.values()), excluded


def holds(entry: Values, settings: Settings) -> bool:
    """Whether settings meet every clause of an exclusion: `{key: value}` or `{key: '>256'}`."""
    return all(_clause(wanted, lookup(settings, key)) for key, wanted in entry.items())


def by_configuration(points: Iterable[Point]) -> tuple[tuple[Point, ...], ...]:
    """Points that can share a launch, in order of first appearance."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(point.configuration, []).append(point)
    return tuple(tuple(group) for group in groups.values())


def sizes_of(points: Sequence[Point]) -> Sizes:
    """What a launch must know beforehand, from all points of its configuration."""
    workloads = [point.settings.workload for point in points]
    return Sizes(
        max_model_len=max(each.input_tokens + each.output_tokens for each in workloads),
        max_batch_size=max(each.batch_size for each in workloads),
        batch_sizes=tuple(sorted({each.batch_size for each in workloads})),
        beams=max(beam_width(each) for each in workloads),
    )


def chunks(
    points: Sequence[Point], limit_s: float | None, cost: Cost
) -> tuple[tuple[Point, ...], ...]:
    """Points of one configuration in as few launches as keep each within `limit_s`.

    A chunk is never shorter than its own load: splitting further would hold GPUs to load weights.
    """
    if not points:
        return ()
    work_s = [cost.point_s(point.settings) for point in points]
    load_s = cost.load_s(points[0].settings)
    count = 1
    if limit_s is not None:
        wanted = math.ceil(sum(work_s) / max(limit_s - load_s, load_s))
        count = max(1, min(wanted, len(points)))
    bins: list[list[int]] = [[] for _ in range(count)]
    filled_s = [0.0] * count
    for index in sorted(range(len(points)), key=lambda index: -work_s[index]):
        least = min(range(count), key=filled_s.__getitem__)
        bins[least].append(index)
        filled_s[least] += work_s[index]
    return tuple(tuple(points[index] for index in sorted(chunk)) for chunk in bins if chunk)


def largest_first(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """By GPU-seconds, the largest first; ties in the order given."""
    return tuple(sorted(trials, key=lambda trial: -trial.gpus * trial.expected_s))


def min_requests(study: Study) -> int:
    """Requests a point needs so that no percentile the study asks for is undersampled.

    1 where none is asked for: a percentile q needs n (1 - q) >= 5 samples.
    """
    asked = [
        int(match[1])
        for metric in (*study.objectives, *study.limits)
        if (match := _PERCENTILE.search(metric))
    ]
    return max((math.ceil(MIN_TAIL * 100 / (100 - percent)) for percent in asked), default=1)


def digest(value: Any, length: int = 12) -> str:
    """A short hash of plain data, the same for equal data whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def _point(settings: Settings, accelerator: str | None, condition: Values, chosen: Values) -> Point:
    whole = tree(settings)
    configuration = {
        "model": whole["model"],
        "engine": whole["engine"],
        "gpu": whole["gpu"],
        "accelerator": accelerator,
    }
    measured = {**whole, "accelerator": accelerator}
    if settings.replay is None:
        # A key of one meter is no part of what others measure.
        measured.pop("replay")
    measured["measure"] = {
        key: value
        for key, value in whole["measure"].items()
        if key not in ("launches", "finalists") and (key, value) != ("goodput", None)
    }
    return Point(
        id=digest(measured),
        configuration=digest(configuration),
        condition=dict(condition),
        chosen=dict(chosen),
        settings=settings,
    )


def scorer_of(study: Study) -> QualitySpec | None:
    """The scorer that each configuration is given to once, if the study has one."""
    return study.quality if isinstance(study.quality, QualitySpec) else None


def trial_of(
    points: Sequence[Point],
    number: int,
    stage: Stage,
    sizes: Sizes,
    asked: int,
    cost: Cost,
    scorer: QualitySpec | None = None,
) -> Trial:
    """One launch of points of a configuration in a lease of its own.

    `number` counts the configuration's launches; `asked` is `min_requests` of the study; `scorer`
    runs before it, as it does before one launch of each configuration.
    """
    identity = digest([number, stage, [point.id for point in points]], length=10)
    launch = Launch(
        number=number,
        stage=stage,
        sizes=sizes,
        points=tuple(points),
        min_requests=asked,
        seed=int(identity, 16),
        quality=scorer,
    )
    return Trial(
        id=identity,
        gpus=points[0].settings.engine.gpus,
        launches=(launch,),
        expected_s=expected_s((launch,), cost),
    )


def expected_s(launches: Iterable[Launch], cost: Cost) -> float:
    """How long a lease is held for launches, one after the other."""
    return sum(launch_s(launch.points, cost) for launch in launches)


def launch_s(points: Sequence[Point], cost: Cost) -> float:
    """How long a launch takes: loading, its points, and a window of its control at the end."""
    work_s = math.fsum(cost.point_s(point.settings) for point in points)
    windows = len(points) * points[0].settings.measure.repeats
    control_s = work_s / windows if len(points) > 1 else 0.0
    return cost.load_s(points[0].settings) + work_s + control_s


def _limit_s(area: float, devices: int | None, gpus: int) -> float | None:
    """Half of the time the pool needs at least; none where a launch has the pool to itself."""
    if devices is None or devices < 2 * gpus:
        return None
    return area / devices / 2


def _area(points: Sequence[Point], cost: Cost) -> float:
    seconds = cost.load_s(points[0].settings)
    seconds += sum(cost.point_s(point.settings) for point in points)
    return seconds * points[0].settings.engine.gpus


def _product(axes: Sequence[Axis]) -> Iterator[dict[str, Any]]:
    for combination in itertools.product(*(axis.choices for axis in axes)):
        yield {key: value for choice in combination for key, value in choice.items()}


def _clause(wanted: Any, value: Any) -> bool:
    match = _COMPARISON.fullmatch(wanted) if isinstance(wanted, str) else None
    if match is None:
        return bool(wanted == value)
    sign, text = match.groups()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return sign == "!=" and text != str(value)
    return COMPARISONS[sign](value, float(text))
