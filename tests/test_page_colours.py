"""The plots for the colour-blind: shapes tell series apart, and the first colours do so too."""

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import sweeper.answers
from sweeper.answers.best import answers
from sweeper.answers.page_drawing import COLOURS, SHAPES
from sweeper.answers.page_figures import figures
from tests import pages

CSS = (Path(sweeper.answers.__file__).parent / "page.css").read_text()
SCHEMES = {"light": CSS, "dark": CSS[CSS.index("prefers-color-scheme: dark") :]}
SEEN = {
    "nothing lacking": np.eye(3),
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Machado, Oliveira and Fernandes, 2009, table 1, severity 1.0; of linear RGB."""
TO_XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
WHITE = [0.9505, 1.0, 1.089]
FIRST = 5
"""Series that colours alone are to tell apart."""
APART = 10.0
"""Distance in CIELAB; 2.3 is just noticeable side by side."""


def lab(colour, seen):
    """A colour in CIELAB (D65), as somebody sees it."""
    parts = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    x, y, z = TO_XYZ @ np.clip(seen @ linear, 0, 1) / WHITE
    x, y, z = (np.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("lack", SEEN)
def test_the_first_series_differ_in_colour_whoever_looks(scheme, lack):
    colours = [re.search(rf"--s{n}: (#[0-9a-f]{{6}})", SCHEMES[scheme])[1] for n in range(FIRST)]
    places = [lab(colour, np.array(SEEN[lack])) for colour in colours]
    assert min(np.linalg.norm(one - other) for one, other in combinations(places, 2)) > APART


@pytest.mark.long
def test_series_differ_in_shape_before_any_shape_comes_again():
    study, contents = pages.many()
    for data in figures(study, answers(contents.standing(), study)).values():
        marks = re.findall(
            r'class="mark (s\d)[^>]*aria-label="tensor_parallel (\d+).*?d="([^"]*)"',
            data.decode().replace("\n", " "),
        )
        assert len(marks) == 125
        looks = {width: (colour, shape) for colour, width, shape in marks}
        assert {(width, *looks[width]) for width in looks} == {(w, c, d) for c, w, d in marks}
        assert len({shape for _, shape in looks.values()}) == len(looks) == 5
    assert len(set(SHAPES)) == len(SHAPES)
    pairs = {(n % len(SHAPES), n % COLOURS) for n in range(len(SHAPES) * COLOURS)}
    assert len(pairs) == len(SHAPES) * COLOURS
