"""The live view on a real terminal: it appears, lines stay above it, the cursor comes back."""

import re

import pytest

from tests.terminal import CTRL_C, HIDE, SHOW, Terminal

pytestmark = pytest.mark.process

SHOWING = """
import os, sys, time
from pathlib import Path
from sweeper.progress.live import view_for
from sweeper.interrupts import Interrupts
from tests.snapshots import snapshot

view = view_for(sys.stdout, os.environ)
stop = Interrupts("last words", patience_s=0.5, leave=view.leave)
view.say("begins")
with view.watching(lambda: snapshot(launches=32)):
    view.say("[1/28] a line that stays", passing=False)
    view.say("a line in passing", passing=True)
    print("printed by another", flush=True)
    {then}
view.say("ends")
"""
A_WHILE = "time.sleep(1.2)"


@pytest.fixture
def showing(tmp_path):
    opened = []

    def start(then=A_WHILE, **given):
        opened.append(Terminal("-c", SHOWING.format(then=then), cwd=tmp_path, **given))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def screen(drawn, columns=80, lines=24):
    """The lines that a terminal shows, of the few sequences that a live view writes."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", drawn):
        move = re.fullmatch(r"\x1b\[([0-9;?]*)([A-Za-z])", part)
        if move is None:
            if part == "\n":
                row += 1
                rows += [""] * (row - len(rows) + 1)
            elif part == "\r":
                column = 0
            else:
                if column == columns:
                    row, column = row + 1, 0
                    rows += [""] * (row - len(rows) + 1)
                rows[row] = rows[row][:column].ljust(column) + part + rows[row][column + 1 :]
                column += 1
        elif move[2] == "A":
            assert int(move[1] or 1) < lines, "it went up over the top of the screen"
            row = max(0, row - int(move[1] or 1))
        elif move[2] == "K":
            rows[row] = ""
    return [line.rstrip() for line in rows]


def test_it_is_drawn_below_the_lines_that_stay_and_leaves_the_terminal_in_order(showing):
    terminal = showing()
    assert terminal.shows("and 2")
    assert not terminal.cursor
    assert terminal.wait() == 0
    assert terminal.cursor
    assert HIDE in terminal.drawn
    found = screen(terminal.drawn)
    assert found[:3] == ["begins", "[1/28] a line that stays", "printed by another"]
    assert found[3] == "tp_study: 12 of 28 done; about 35 min left"
    assert [line for line in found if line][-1] == "ends"
    assert sum(line.startswith("tp_study: ") for line in found) == 1
    assert "a line in passing" not in terminal.text


@pytest.mark.parametrize(("columns", "lines"), [(60, 24), (200, 50), (80, 10)])
def test_it_never_scrolls_at_any_size(showing, columns, lines):
    terminal = showing(columns=columns, lines=lines)
    assert terminal.wait() == 0
    found = screen(terminal.drawn, columns, lines)
    assert sum(line.startswith("tp_study: ") for line in found) == 1


def test_ctrl_c_leaves_the_terminal_in_order(showing):
    terminal = showing("time.sleep(60)")
    assert terminal.shows("more")
    terminal.type(CTRL_C)
    assert terminal.wait() != 0
    assert terminal.cursor
    assert "KeyboardInterrupt" in terminal.text


def test_a_process_that_ends_without_cleaning_up_shows_the_cursor_all_the_same(showing):
    terminal = showing("stop.listen(); print('waits', flush=True); time.sleep(60)")
    assert terminal.shows("waits")
    terminal.type(CTRL_C)
    assert terminal.wait() == 130
    assert terminal.cursor
    assert terminal.drawn.rstrip().endswith("last words")


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"CI": "1"}])
def test_where_nothing_can_be_drawn_there_are_plain_lines(showing, environment):
    terminal = showing("pass", environment=environment)
    assert terminal.wait() == 0
    assert "\x1b" not in terminal.drawn
    assert terminal.text.splitlines() == [
        "begins",
        "[1/28] a line that stays",
        "a line in passing",
        "printed by another",
        "ends",
    ]


def test_without_colours_it_is_live_and_has_none(showing):
    terminal = showing(environment={"NO_COLOR": "1"})
    assert terminal.wait() == 0
    assert SHOW in terminal.drawn
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", terminal.drawn)
