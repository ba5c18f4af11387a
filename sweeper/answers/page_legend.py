"""What the shapes, lines and letters of a plot are (pure)."""

from sweeper.answers.best import Answer
from sweeper.answers.criteria import meets
from sweeper.answers.markup import Html, element
from sweeper.answers.page_drawing import COLOURS, SHAPES, STAR, words
from sweeper.answers.panel import place_of, running, series

Entry = tuple[Html, str, str]
"""A picture around 0, 0, its class, and what it stands for."""


def legend(answer: Answer, metrics: tuple[str, str]) -> Html:
    """The entries as a list."""
    items = [
        element(
            "li",
            element(
                "svg",
                element("g", picture, class_=kind or None),
                viewBox="-12 -11 24 22",
                width=24,
                height=22,
                aria_hidden="true",
                font_size=12,
            ),
            element("span", text),
        )
        for picture, kind, text in entries(answer, metrics)
    ]
    return element("ul", items, class_="legend", aria_label="Legend")


def entries(answer: Answer, metrics: tuple[str, str]) -> list[Entry]:
    """What the shapes, lines and letters of a plot are."""
    known = [each for each in answer.group.results if place_of(each, *metrics)]
    found = [
        (
            element("path", d=SHAPES[index % len(SHAPES)]),
            f"mark s{index % COLOURS}",
            name or "results",
        )
        for index, name in enumerate(series(known))
    ]
    if answer.front:
        found.append((element("path", d="M-11-4H0V4H11", class_="front"), "", "front"))
    if answer.best is not None:
        found.append((element("path", d=STAR, class_="best", transform="scale(.75)"), "", "best"))
    if answer.knee is not None:
        ring = element("circle", r=7, class_="knee")
        found.append((ring, "", "knee of the front"))
    if any(limit.metric in metrics for limit in answer.limits):
        found.append((element("path", d="M-11 0H11", class_="limit"), "", "limit"))
    if any(not meets(each, answer.limits) for each in known):
        found.append(
            (element("path", d=SHAPES[0]), "mark hollow ink", "hollow: does not meet the limits")
        )
    key = running(answer.group.results)
    if key is not None and answer.front:
        found.append(
            (words("8", 0, 4, "label", "middle"), "", f"numbers: {key.rpartition('.')[2]}")
        )
    return found
