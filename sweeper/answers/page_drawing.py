"""Shapes and lines of a plot as SVG; colours are classes of the style sheet (pure)."""

from collections.abc import Sequence

from sweeper.answers.markup import Html, element

COLOURS = 7
"""Classes `s0` to `s6` of the style sheet; with 8 shapes, 56 series differ in one or the other."""
SHAPES = (
    "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0Z",
    "M-4.5-4.5H4.5V4.5H-4.5Z",
    "M0-6.2 6.2 0 0 6.2-6.2 0Z",
    "M0-6 5.6 4.4H-5.6Z",
    "M0 6 5.6-4.4H-5.6Z",
    "M-2-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2Z",
    "M6 0-4.4 5.6V-5.6Z",
    "M-6 0 4.4 5.6V-5.6Z",
)
STAR = "M0-13 3.1-4.2 12.4-4 4.9 1.6 7.6 10.5 0 5.2-7.6 10.5-4.9 1.6-12.4-4-3.1-4.2Z"


def words(text: str, across: float, up: float, kind: str, anchor: str) -> Html:
    """Text whose base line is at a place."""
    return element("text", text, x=px(across), y=px(up), class_=kind, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    """A straight line."""
    return element("path", d=path([(x1, y1), (x2, y2)]), class_=kind)


def area(x: float, y: float, width: float, height: float) -> Html:
    """A rectangle that is beyond a limit."""
    return element("rect", x=px(x), y=px(y), width=px(width), height=px(height), class_="beyond")


def path(places: Sequence[tuple[float, float]]) -> str:
    """The data of a path through places."""
    return "M" + "L".join(f"{px(x)} {px(y)}" for x, y in places)


def move(place: tuple[float, float]) -> str:
    """The transformation that puts a shape at a place."""
    return f"translate({px(place[0])} {px(place[1])})"


def px(value: float) -> str:
    """Pixels to a tenth, as text."""
    return f"{value:.1f}".removesuffix(".0")
