"""One picture of a study: latency against energy, a panel for each answer.

Colours are Okabe and Ito's, which the colour-blind can tell apart; every series has a marker of its
own besides. Matplotlib is loaded only when a figure is drawn.
"""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from sweeper.answers.best import Answer
from sweeper.answers.criteria import Limit, meets
from sweeper.answers.panel import axes_of, place_of, running, series
from sweeper.answers.results import Result
from sweeper.answers.table import brief, doubt, plain
from sweeper.answers.units import exponent, label, prefixed
from sweeper.spec import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
MARKERS = "osD^vPX<>ph*"
PANEL_IN = (5.6, 4.4)
"""Width and height of a panel, in inches."""
LABELLED = 14
"""With more results on a front than this, only its ends, knee and best are labelled."""


def figure(
    answers: Sequence[Answer], study: Study, *, form: Literal["png", "svg"] = "png"
) -> bytes | None:
    """The answers as a picture; `None` where no result has two objectives to be drawn by."""
    drawn = [(answer, axes) for answer in answers if (axes := axes_of(answer)) is not None]
    if not drawn:
        return None
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(3, len(drawn))
    rows = math.ceil(len(drawn) / columns)
    size = (PANEL_IN[0] * columns, PANEL_IN[1] * rows + 0.5)
    with mpl.rc_context({"svg.hashsalt": study.name, "font.size": 9, "text.usetex": False}):
        sheet = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(sheet)
        sheet.suptitle(_title(study, answers), fontweight="bold", parse_math=False)
        for place, (answer, (x, y)) in enumerate(drawn, start=1):
            _panel(sheet.add_subplot(rows, columns, place), answer, x, y)
        stream = io.BytesIO()
        metadata = {"Software": None} if form == "png" else {"Date": None}
        sheet.savefig(stream, format=form, dpi=150, metadata=metadata)
    return stream.getvalue()


def _title(study: Study, answers: Sequence[Answer]) -> str:
    kinds = {answer.group.provenance for answer in answers if answer.group.results}
    words = [f"{kind.upper()}, NOT MEASURED" for kind in sorted(kinds - {"measured"})]
    return study.name + "".join(f"   [{each}]" for each in words)


def _panel(axes: "Axes", answer: Answer, x: str, y: str) -> None:
    group = answer.group
    known = [result for result in group.results if place_of(result, x, y)]
    powers = {
        metric: exponent([_value(each, metric) for each in known], metric) for metric in (x, y)
    }
    scales = {metric: 10.0**-power for metric, power in powers.items()}
    source = f", energy by {group.source}" if group.source else ""
    title = brief(group.condition)
    axes.set_title(
        f"{title}\n{group.convention} windows{source}".strip(), fontsize=9, parse_math=False
    )
    if group.provenance != "measured":
        axes.text(
            0.5,
            0.5,
            group.provenance.upper(),
            transform=axes.transAxes,
            ha="center",
            va="center",
            rotation=28,
            fontsize=38,
            fontweight="bold",
            color="0.88",
            zorder=0,
        )
    if all(_value(each, metric) > 0 for each in known for metric in (x, y)):
        axes.set_xscale("log")
        axes.set_yscale("log")
    _ticks(axes)
    _draw_series(axes, known, answer.limits, (x, y), scales)
    _draw_front(axes, answer, (x, y), scales)
    for limit in answer.limits:
        _draw_limit(axes, limit, (x, y), scales)
    for metric, name in ((x, axes.set_xlabel), (y, axes.set_ylabel)):
        kind = f" ({doubt(group, metric)})" if doubt(group, metric) else ""
        name(f"{label(metric)} [{prefixed(metric, powers[metric])}]{kind}")
    axes.grid(visible=True, which="major", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(fontsize=7, framealpha=0.9, labelspacing=0.8, loc="best")


def _ticks(axes: "Axes") -> None:
    """Plain numbers at 1, 2 and 5 of each decade, so that short spans have ticks to read."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
        if scale == "log":
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())


def _draw_series(
    axes: "Axes",
    known: Sequence[Result],
    limits: Sequence[Limit],
    metrics: tuple[str, str],
    scales: Mapping[str, float],
) -> None:
    """A line and a marker for each series; results beyond a limit are hollow."""
    for index, (name, members) in enumerate(series(known).items()):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        xs, ys = ([_value(each, metric) * scales[metric] for each in members] for metric in metrics)
        axes.plot(xs, ys, color=colour, linewidth=0.8, alpha=0.4, zorder=1)
        for result, across, up in zip(members, xs, ys, strict=True):
            axes.errorbar(
                across,
                up,
                xerr=_bar(result, metrics[0], scales),
                yerr=_bar(result, metrics[1], scales),
                fmt=marker,
                color=colour,
                markersize=5,
                markerfacecolor=colour if meets(result, limits) else "white",
                elinewidth=0.8,
                zorder=3,
            )
        axes.plot(
            [],
            [],
            marker=marker,
            color=colour,
            linewidth=0.8,
            label=name.replace("$", r"\$") or "results",
        )


def _bar(result: Result, metric: str, scales: Mapping[str, float]) -> list[list[float]] | None:
    interval, scale = result.interval(metric), scales[metric]
    if interval is None:
        return None
    value = _value(result, metric)
    return [[(value - interval[0]) * scale], [(interval[1] - value) * scale]]


def _draw_front(
    axes: "Axes", answer: Answer, metrics: tuple[str, str], scales: Mapping[str, float]
) -> None:
    """The front as the staircase of what is attained, its results labelled, and the best ringed."""
    x, y = metrics
    where = {
        result.id: (place[0] * scales[x], place[1] * scales[y])
        for result in answer.group.results
        if (place := place_of(result, x, y))
    }
    front = sorted(
        (result for result in answer.front if result.id in where),
        key=lambda result: where[result.id],
    )
    if front:
        xs, ys = zip(*(where[result.id] for result in front), strict=True)
        style: dict[str, Any] = {"marker": "s", "markersize": 9, "markerfacecolor": "none"}
        if len(answer.objectives) == 2:
            turn = "pre" if answer.objectives[x] == "max" else "post"
            style = {"drawstyle": f"steps-{turn}"}
        linewidth = 1.3 if "drawstyle" in style else 0
        axes.plot(xs, ys, color="black", linewidth=linewidth, zorder=2, label="front", **style)
    key = running(answer.group.results)
    named = {id(each) for each in (answer.best, answer.knee, *front[:1], *front[-1:]) if each}
    for result in front:
        if key is not None and (len(front) <= LABELLED or id(result) in named):
            axes.annotate(
                plain(result.chosen.get(key)),
                where[result.id],
                xytext=(4, 4),
                textcoords="offset points",
                fontsize=7,
                zorder=5,
            )
    if key is not None and front:
        axes.plot([], [], " ", label=f"numbers: {key.rpartition('.')[2]}")
    marks: tuple[tuple[Result | None, str, dict[str, Any]], ...] = (
        (answer.knee, "knee", {"marker": "o", "markersize": 12, "linestyle": "none"}),
        (answer.best, "best", {"marker": "*", "markersize": 17, "linestyle": "none"}),
    )
    for marked, name, style in marks:
        if marked is not None and marked.id in where:
            across, up = where[marked.id]
            axes.plot(
                [across],
                [up],
                **style,
                color="black",
                markerfacecolor="#F0E442" if name == "best" else "none",
                zorder=2.5,
                label=f"{name}: {brief(marked.chosen) or marked.id}",
            )


def _draw_limit(
    axes: "Axes", limit: Limit, metrics: tuple[str, str], scales: Mapping[str, float]
) -> None:
    """A limit on one of the axes as a line; the others show only in what is hollow."""
    x, y = metrics
    style: dict[str, Any] = {"color": "#D55E00", "linestyle": "--", "linewidth": 1.0, "zorder": 1}
    if limit.metric == x:
        axes.axvline(limit.bound * scales[x], **style, label=f"limit: {limit}")
    elif limit.metric == y:
        axes.axhline(limit.bound * scales[y], **style, label=f"limit: {limit}")
    else:
        axes.plot([], [], "o", color="0.4", markerfacecolor="white", label=f"hollow: not {limit}")


def _value(result: Result, metric: str) -> float:
    return result.metrics[metric]
