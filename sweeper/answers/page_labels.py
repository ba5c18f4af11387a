"""Where the words beside a plot's marks find room (pure)."""

from collections.abc import Sequence

LETTER = 6.4
"""About the width of a letter of a label, in pixels."""

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


def room(
    frame: Box, place: tuple[float, float], text: str, taken: Sequence[Box]
) -> tuple[tuple[float, float], Box] | None:
    """The middle of a label's base line near a place where nothing else is, and its box.

    `frame` is what the label may not leave; `None` where there is no room.
    """
    across, up = place
    half = LETTER * len(text) / 2
    for far in (13, 19, 26):
        for right, down in ((1, -1), (-1, 1), (1, 1), (-1, -1), (0, -1.6), (0, 1.6)):
            middle = (across + right * (far * 0.7 + half), up + down * far * 0.75)
            box = box_at(middle, half + 1, 7)
            inside = (
                frame[0] < box[0] and frame[1] < box[1] and box[2] < frame[2] and box[3] < frame[3]
            )
            if inside and not any(_overlap(box, other) for other in taken):
                return (middle[0], middle[1] + 4), box
    return None


def box_at(place: tuple[float, float], half_width: float, half_height: float) -> Box:
    """A box around a place."""
    across, up = place
    return across - half_width, up - half_height, across + half_width, up + half_height


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
