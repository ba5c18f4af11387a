"""Latency against energy as SVG in the page, once for a wide and once for a narrow one (pure).

Every mark is a link to its row of the table, so that it can be reached without a mouse and works
without a script. Colours are classes: the style sheet has them for light, dark and print.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from sweeper.answers.best import Answer
from sweeper.answers.criteria import meets
from sweeper.answers.markup import Html, element, join
from sweeper.answers.page_drawing import COLOURS, SHAPES, STAR, area, line, move, path, px, words
from sweeper.answers.page_labels import box_at, room
from sweeper.answers.page_legend import legend
from sweeper.answers.page_scale import Scale, scale
from sweeper.answers.page_words import figure_of, limit_text, misses, title_of
from sweeper.answers.panel import axes_of, place_of, running, series
from sweeper.answers.results import Result
from sweeper.answers.table import doubt, plain
from sweeper.answers.units import CAVEAT, digits, exponent, label, prefixed, quantity

LABELLED = 14
"""With more results on a front than this, only its ends, knee and best are labelled."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """A plot's size and margins in pixels, and how many ticks have room."""

    name: str
    width: int
    height: int
    left: int
    ticks: tuple[int, int]
    right: int = 14
    top: int = 26
    top_of_caveat: int = 26
    bottom: int = 46


WIDE = Size(name="wide", width=800, height=470, left=66, ticks=(9, 8))
NARROW = Size(
    name="narrow", width=350, height=350, left=52, ticks=(6, 7), right=10, top_of_caveat=42
)


@dataclass(frozen=True, kw_only=True)
class Plane:
    """The two axes of one drawing."""

    answer: Answer
    size: Size
    metrics: tuple[str, str]
    scales: tuple[Scale, Scale]
    powers: tuple[int, int]
    known: tuple[Result, ...]

    def at(self, result: Result) -> tuple[float, float]:
        """Where a result is drawn."""
        x, y = (result.metrics[metric] for metric in self.metrics)
        return self.scales[0].pixel(x), self.scales[1].pixel(y)


def plots(answer: Answer, name: str, described: str) -> Html | None:
    """Both drawings with their legend; `None` where no result has two metrics to be drawn by.

    `name` begins the ids of the rows that marks lead to; `described` is the id of a heading.
    """
    metrics = axes_of(answer)
    if metrics is None:
        return None
    drawings = [_svg(answer, metrics, size, name, described) for size in (WIDE, NARROW)]
    tip = element("div", class_="tip", hidden=True, aria_hidden="true")
    return element("div", *drawings, tip, legend(answer, metrics), class_="plot")


def _svg(answer: Answer, metrics: tuple[str, str], size: Size, name: str, described: str) -> Html:
    return element(
        "svg",
        drawing(answer, metrics, size, name),
        viewBox=f"0 0 {size.width} {size.height}",
        class_=size.name,
        role="group",
        aria_labelledby=described,
        font_size=12,
    )


def drawing(answer: Answer, metrics: tuple[str, str], size: Size, name: str | None) -> Html:
    """What a plot shows, drawn from 0, 0; without a `name` its marks lead nowhere."""
    if CAVEAT[answer.group.provenance]:
        size = replace(size, top=size.top_of_caveat)
    known = tuple(each for each in answer.group.results if place_of(each, *metrics))
    plane = Plane(
        answer=answer,
        size=size,
        metrics=metrics,
        scales=(
            _scale(answer, known, metrics[0], size.left, size.width - size.right),
            _scale(answer, known, metrics[1], size.height - size.bottom, size.top),
        ),
        powers=(_power(known, metrics[0]), _power(known, metrics[1])),
        known=known,
    )
    return join(
        _frame(plane),
        _watermark(plane),
        _limits(plane),
        _lines(plane),
        _front(plane),
        _marks(plane, name),
        _labels(plane),
    )


def _power(known: Sequence[Result], metric: str) -> int:
    return exponent([result.metrics[metric] for result in known], metric)


def _scale(answer: Answer, known: Sequence[Result], metric: str, start: float, end: float) -> Scale:
    values = [result.metrics[metric] for result in known]
    ends = [
        edge
        for result in known
        for edge in result.interval(metric) or ()
        if edge > 0.5 * result.metrics[metric]
    ]
    bounds = [limit.bound for limit in answer.limits if limit.metric == metric]
    return scale([*values, *ends], bounds, start, end)


def _frame(plane: Plane) -> Html:
    """Grid, ticks, and what the axes are."""
    size, (x, y) = plane.size, plane.scales
    across, up = (
        [(each, digits(each, power)) for each in axis.ticks(most)]
        for axis, power, most in zip(plane.scales, plane.powers, size.ticks, strict=True)
    )
    parts = []
    for value, _ in across:
        parts.append(line(x.pixel(value), y.start, x.pixel(value), y.end, "grid"))
    for value, _ in up:
        parts.append(line(x.start, y.pixel(value), x.end, y.pixel(value), "grid"))
    parts.append(line(x.start, y.start, x.end, y.start, "axis"))
    parts.append(line(x.start, y.start, x.start, y.end, "axis"))
    for value, _ in across:
        text = _tick(value, plane.powers[0])
        parts.append(words(text, x.pixel(value), y.start + 17, "tick", "middle"))
    for value, _ in up:
        text = _tick(value, plane.powers[1])
        parts.append(words(text, x.start - 7, y.pixel(value) + 4, "tick", "end"))
    names = [_axis_name(plane, index) for index in (0, 1)]
    middle = (x.start + x.end) / 2 if size.name == "wide" else size.width / 2
    parts.append(words(names[0], middle, size.height - 8, "name", "middle"))
    parts.append(words(names[1], size.left - 56 if size.name == "wide" else 2, 14, "name", "start"))
    return element("g", parts, class_="frame", aria_hidden="true")


def _tick(value: float, power: int) -> str:
    return f"{value / 10.0**power:,.10g}"


def _axis_name(plane: Plane, index: int) -> str:
    metric = plane.metrics[index]
    kind = doubt(plane.answer.group, metric)
    arrow = ("\N{LEFTWARDS ARROW}", "\N{DOWNWARDS ARROW}")[index]
    if plane.answer.objectives.get(metric) == "max":
        arrow = ("\N{RIGHTWARDS ARROW}", "\N{UPWARDS ARROW}")[index]
    better = (
        f" {arrow} better"
        if metric in plane.answer.objectives and plane.size.name == "wide"
        else ""
    )
    said = f" ({kind})" if kind else ""
    return f"{label(metric)} [{prefixed(metric, plane.powers[index])}]{said}{better}"


def _watermark(plane: Plane) -> Html | None:
    caveat = CAVEAT[plane.answer.group.provenance]
    if not caveat:
        return None
    x, y = plane.scales
    middle = f"{px((x.start + x.end) / 2)} {px((y.start + y.end) / 2)}"
    size = 0.6 * (x.end - x.start) / len(plane.answer.group.provenance)
    return element(
        "g",
        element(
            "text",
            plane.answer.group.provenance.upper(),
            class_="watermark",
            font_size=px(1.5 * size),
            text_anchor="middle",
            transform=f"translate({middle}) rotate(-24)",
            dy="0.35em",
        ),
        words(caveat.upper(), x.end, plane.size.top - 12, "caveat", "end"),
        aria_hidden="true",
    )


def _limits(plane: Plane) -> Html:
    """What lies beyond a limit on an axis is shaded."""
    parts: list[Html] = []
    x, y = plane.scales
    for limit in plane.answer.limits:
        if limit.metric not in plane.metrics:
            continue
        index = plane.metrics.index(limit.metric)
        axis = plane.scales[index]
        if not axis.shows(limit.bound):
            continue
        here, far = axis.pixel(limit.bound), axis.end if limit.upper else axis.start
        text = f"limit {quantity(limit.bound, limit.metric)}"
        if index == 0:
            parts.append(area(min(here, far), y.end, abs(far - here), y.start - y.end))
            parts.append(line(here, y.start, here, y.end, "limit"))
            anchor = "end" if here > (x.start + x.end) / 2 else "start"
            shift = -5 if anchor == "end" else 5
            parts.append(words(text, here + shift, y.start - 7, "limit-name", anchor))
        else:
            parts.append(area(x.start, min(here, far), x.end - x.start, abs(far - here)))
            parts.append(line(x.start, here, x.end, here, "limit"))
            parts.append(words(text, x.end - 6, here - 5, "limit-name", "end"))
    return element("g", parts, aria_hidden="true")


def _lines(plane: Plane) -> Html:
    """A thin line along each series, and the intervals of its results."""
    parts = []
    for index, members in enumerate(series(plane.known).values()):
        colour = f"s{index % COLOURS}"
        places = [plane.at(each) for each in members]
        if len(places) > 1:
            parts.append(element("path", d=path(places), class_=f"run {colour}"))
        for result, (across, up) in zip(members, places, strict=True):
            bars = [
                tuple(axis.pixel(edge) for edge in interval)
                if (interval := result.interval(metric)) is not None
                else None
                for axis, metric in zip(plane.scales, plane.metrics, strict=True)
            ]
            if bars[0]:
                parts.append(line(bars[0][0], up, bars[0][1], up, f"bar {colour}"))
            if bars[1]:
                parts.append(line(across, bars[1][0], across, bars[1][1], f"bar {colour}"))
    return element("g", parts, aria_hidden="true")


def _front(plane: Plane) -> Html | None:
    """The staircase of what is attained; with more than two objectives there is none."""
    answer = plane.answer
    front = sorted((each for each in answer.front if each in plane.known), key=plane.at)
    if not front:
        return None
    places = [plane.at(each) for each in front]
    if len(answer.objectives) != 2:
        squares = [
            element("path", d="M-8-8H8V8H-8Z", class_="front", transform=move(place))
            for place in places
        ]
        return element("g", squares, aria_hidden="true")
    steps = [places[0]]
    for before, after in pairwise(places):
        corner = (before[0], after[1])
        if answer.objectives[plane.metrics[0]] == "min":
            corner = (after[0], before[1])
        steps += [corner, after]
    if set(answer.objectives.values()) == {"min"}:
        x, y = plane.scales
        steps = [(places[0][0], y.end), *steps, (x.end, places[-1][1])]
    return element("path", d=path(steps), class_="front", aria_hidden="true")


def _marks(plane: Plane, name: str | None) -> Html:
    answer = plane.answer
    parts = []
    for marked, shape, kind in (
        (answer.knee, "M11 0A11 11 0 1 1-11 0A11 11 0 1 1 11 0Z", "knee"),
        (answer.best, STAR, "best"),
    ):
        if marked is not None and marked in plane.known:
            parts.append(element("path", d=shape, class_=kind, transform=move(plane.at(marked))))
    for index, members in enumerate(series(plane.known).values()):
        for result in members:
            hollow = "" if meets(result, answer.limits) else " hollow"
            head, *facts = said_of(result, plane)
            parts.append(
                element(
                    "a" if name else "g",
                    element("title", "\n".join([head, *facts])),
                    element("circle", r=12, class_="reach"),
                    element("path", d=SHAPES[index % len(SHAPES)]),
                    href=f"#{name}-{result.id}" if name else None,
                    class_=f"mark s{index % COLOURS}{hollow}",
                    transform=move(plane.at(result)),
                    aria_label="; ".join([head, *facts]),
                )
            )
    return element("g", parts)


def said_of(result: Result, plane: Plane) -> list[str]:
    """The lines that a mark shows: which result, what it is, its numbers."""
    answer, group = plane.answer, plane.answer.group
    roles = [
        ("best", result is answer.best),
        ("knee", result is answer.knee),
        ("tie", any(result is each for each in answer.ties)),
        ("on the front", any(result is each for each in answer.front)),
    ]
    role = ", ".join(word for word, holds in roles if holds)
    extra = [limit.metric for limit in answer.limits if limit.metric not in plane.metrics]
    metrics = list(dict.fromkeys([*plane.metrics, *extra, "output_tokens_per_s"]))
    facts = [
        f"{label(metric)}: {figure_of(result, metric, group)}"
        for metric in metrics
        if result.value(metric) is not None
    ]
    beyond = [f"{limit_text(limit)}{why}" for limit, why in misses(result, answer).items()]
    launches = "1 launch" if result.launches == 1 else f"{result.launches} launches"
    return [
        title_of(result) + (f" ({role})" if role else ""),
        *facts,
        *([f"does not meet {'; '.join(beyond)}"] if beyond else []),
        f"{launches}, {result.gpus} GPU{'s' * (result.gpus != 1)}, id {result.id}",
    ]


def _labels(plane: Plane) -> Html:
    """Words beside the front's results, where there is room for them."""
    answer = plane.answer
    key = running(answer.group.results)
    front = [each for each in answer.front if each in plane.known]
    few = len(front) <= (LABELLED if plane.size.name == "wide" else LABELLED // 2)
    special = [each for each in (answer.best, answer.knee, *front[:1], *front[-1:]) if each]
    wanted = sorted(
        (each for each in plane.known if (few and each in front) or each in special),
        key=lambda each: each is not answer.best,
    )
    taken = [box_at(plane.at(each), 8, 8) for each in plane.known]
    x, y = plane.scales
    frame = (x.start, y.end, x.end, y.start)
    parts = []
    for result in wanted:
        said = [plain(result.chosen.get(key))] if key is not None else []
        said += ["best"] * (result is answer.best) + ["knee"] * (result is answer.knee)
        text = " ".join(said)
        placed = room(frame, plane.at(result), text, taken)
        if text and placed is not None:
            (across, up), box = placed
            taken.append(box)
            strong = "label strong" if result is answer.best else "label"
            parts.append(words(text, across, up, strong, "middle"))
    return element("g", parts, aria_hidden="true")
