"""The plots of the page as files of their own: the same drawings, with title and legend (pure)."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from sweeper.answers.best import Answer
from sweeper.answers.markup import Html, element, join
from sweeper.answers.page_labels import LETTER
from sweeper.answers.page_legend import Entry, entries
from sweeper.answers.page_plot import WIDE, drawing
from sweeper.answers.page_words import heading_of
from sweeper.answers.panel import axes_of
from sweeper.spec import Study

TOP, LINE, GAP = 40, 22, 22
"""Pixels above a drawing, of a line of its legend, and between two entries."""
_HERE = Path(__file__).parent
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def figures(study: Study, found: Sequence[Answer]) -> dict[str, bytes]:
    """An SVG file for each plot of the page, by name; their numbers are those of its sections."""
    style = _style()
    made = {}
    for number, answer in enumerate(found, start=1):
        heading = heading_of(answer.group, found)
        metrics = axes_of(answer)
        if metrics is not None:
            title = f"{study.name}: {heading}" if answer.group.condition else study.name
            text = _file(answer, metrics, title, style)
            plain = re.sub(r"[^A-Za-z0-9.]+", "-", heading)[:60].strip("-.")
            made[f"plot-{number}-{plain}.svg"] = _NOT_XML.sub(
                "\N{REPLACEMENT CHARACTER}", text
            ).encode()
    return made


def _file(answer: Answer, metrics: tuple[str, str], title: str, style: str) -> Html:
    placed = list(_placed(entries(answer, metrics)))
    height = TOP + WIDE.height + 14 + LINE * (1 + placed[-1][1])
    legend = [
        element(
            "g",
            element("g", picture, class_=kind or None),
            element("text", text, x=18, y=4),
            transform=f"translate({across:.0f} {TOP + WIDE.height + 14 + LINE * row})",
        )
        for across, row, (picture, kind, text) in placed
    ]
    return element(
        "svg",
        element("title", title),
        element("style", Html(style)),
        element("rect", width="100%", height="100%", class_="paper"),
        element("text", title, x=10, y=24, class_="strong", font_size=15),
        element("g", drawing(answer, metrics, WIDE, None), transform=f"translate(0 {TOP})"),
        join(legend),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDE.width} {height}",
        width=WIDE.width,
        height=height,
        font_size=12,
        font_family="system-ui, sans-serif",
    )


def _placed(wanted: Sequence[Entry]) -> Iterator[tuple[float, int, Entry]]:
    """Where each entry of a legend begins: pixels from the left, and its line."""
    across, row = float(WIDE.left), 0
    for entry in wanted:
        width = 18 + LETTER * len(entry[2])
        if across > WIDE.left and across + width > WIDE.width - WIDE.right:
            across, row = float(WIDE.left), row + 1
        yield across, row, entry
        across += width + GAP


def _style() -> str:
    """The plots' style in light colours, without variables, which not every viewer knows."""
    palette, _, _ = (_HERE / "page.css").read_text(encoding="utf-8").partition("}")
    colours = dict(re.findall(r"(--[\w-]+): ([^;]+);", palette))
    text = (_HERE / "plot.css").read_text(encoding="utf-8") + ".paper { fill: var(--paper); }\n"
    return re.sub(r"var\((--[\w-]+)\)", lambda found: colours[found[1]], text)
