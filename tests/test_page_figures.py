"""The plots as files: well-formed, alone, and the very drawings of the page."""

import re
import threading
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from sweeper.answers.best import answers
from sweeper.answers.page import FIGURES, page, save
from sweeper.answers.page_figures import figures
from sweeper.driver import publish
from tests import pages

MADE = {"measured": pages.measured, "estimate": pages.estimated, "simulation": pages.simulated}
NAMES = {
    "measured": ["plot-1-The-answer.svg"],
    "estimate": ["plot-1-The-answer.svg"],
    "simulation": ["plot-1-input-tokens-128.svg", "plot-2-input-tokens-2048.svg"],
}
SVG = "{http://www.w3.org/2000/svg}"


def drawn(kind):
    study, contents = MADE[kind]()
    found = answers(contents.standing(), study)
    return page(study, contents, found), figures(study, found)


@pytest.fixture(params=MADE)
def kind(request):
    return request.param


def test_each_plot_of_the_page_is_a_file_with_the_same_drawing(kind):
    text, files = drawn(kind)
    assert list(files) == NAMES[kind]
    wide = re.findall(r'<svg viewBox="0 0 800 .*?</svg>', text, re.DOTALL)
    assert len(wide) == len(files)
    for plot, data in zip(wide, files.values(), strict=True):
        inside = plot[plot.index(">") + 1 : -len("</svg>")]
        unlinked = re.sub(r' href="[^"]*"', "", inside).replace("<a>", "<g>")
        unlinked = unlinked.replace("<a ", "<g ").replace("</a>", "</g>")
        assert unlinked in data.decode()


def test_the_front_is_drawn_as_steps_through_its_results_and_no_other(kind):
    study, contents = MADE[kind]()
    found = answers(contents.standing(), study)
    for answer, data in zip(found, figures(study, found).values(), strict=True):
        tree = ET.fromstring(data)
        [front] = [
            each.get("d")
            for each in tree.iter(f"{SVG}path")
            if each.get("class") == "front" and each.get("aria-hidden")
        ]
        corners = [tuple(map(float, at.split())) for at in front.removeprefix("M").split("L")]
        for (x, y), (next_x, next_y) in pairwise(corners):
            assert x == next_x or y == next_y
        marks = [each for each in tree.iter(f"{SVG}g") if each.get("aria-label")]
        assert len(marks) == len(answer.group.results)
        on = [each for each in marks if "on the front" in each.get("aria-label")]
        places = [each.get("transform").removeprefix("translate(").rstrip(")") for each in on]
        assert len(places) == len(answer.front)
        assert {tuple(map(float, at.split())) for at in places} <= set(corners)


def test_a_file_stands_alone(kind):
    for data in drawn(kind)[1].values():
        tree = ET.fromstring(data)
        assert tree.tag == f"{SVG}svg"
        assert re.findall(rb"href|src=|url\(|@import|var\(|<script", data) == []
        said = " ".join(tree.itertext())
        assert "front" in said
        assert "energy per output token [mJ/token]" in said
        caveat = f"{kind.upper()}, NOT MEASURED"
        assert (caveat in said) is (kind != "measured")
        for mark in tree.iter(f"{SVG}g"):
            if (mark.get("class") or "").startswith("mark s") and mark.get("aria-label"):
                assert mark.find(f"{SVG}title") is not None


def test_a_legend_stays_inside_its_file():
    study, contents = pages.hostile("a long name of a choice, " * 3)
    [data] = figures(study, answers(contents.standing(), study)).values()
    tree = ET.fromstring(data)
    height = float(tree.get("height"))
    places = [each.get("transform", "") for each in tree.findall(f"{SVG}g")]
    lines = {float(place.split()[1].rstrip(")")) for place in places}
    assert max(lines) < height
    assert len(lines) > 3


def test_hostile_names_stay_text_and_the_file_stays_xml():
    name = "<script>alert(1)</script>\"'>\x00\x1b&amp;../../x"
    study, contents = pages.hostile(name)
    [(file, data)] = figures(study, answers(contents.standing(), study)).items()
    tree = ET.fromstring(data)
    title = tree.find(f"{SVG}title").text
    assert title.startswith(name.replace("\x00\x1b", 2 * "\ufffd"))
    assert [each for each in tree.iter() if each.tag == f"{SVG}script"] == []
    assert re.fullmatch(r"plot-1-[A-Za-z0-9.-]+\.svg", file)


def test_they_are_saved_beside_the_page(tmp_path):
    text, files = drawn("simulation")
    save(text, files, tmp_path)
    there = {path.name: path.read_bytes() for path in (tmp_path / FIGURES).iterdir()}
    assert there == files


class Told:
    """What MLflow is told of a study."""

    def __init__(self):
        self.files, self.said = {}, []

    def figures(self, figures):
        self.files |= figures

    def front(self, keys):
        self.said.append(("front", len(list(keys))))

    def note(self, headline, text):
        self.said.append(("note", headline))

    def finish(self, timeout_s, ending="FINISHED"):
        self.said.append(("finish", ending))
        return 0


@pytest.mark.long
def test_mlflow_gets_the_page_its_plots_and_its_table():
    study, contents = pages.simulated()
    records = contents.standing()
    found = answers(records, study)
    text, told = page(study, contents, found), Told()
    assert publish(study, records, found, text, told, threading.Event()) == 0
    files = figures(study, found)
    assert set(told.files) == {"report.html", "results.csv", "front.png", *files}
    assert {name: told.files[name] for name in files} == files
    assert told.files["report.html"] == text.encode()
    assert told.files["results.csv"].count(b"\n") == 1 + 30
    assert told.said[-1] == ("finish", "FINISHED")
