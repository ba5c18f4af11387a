"""What is drawn of a study under way, at any width and height; where it is drawn live."""

import io
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from sweeper.progress.frame import Frame
from sweeper.progress.snapshot import STATUSES
from sweeper.progress.views import lively
from tests.snapshots import best, launch, snapshot, trouble


def drawn(now, width=100, height=None):
    paper = Console(file=io.StringIO(), width=width, color_system=None)
    with paper.capture() as captured:
        paper.print(Frame(now=now, height=height))
    return [line.rstrip() for line in captured.get().splitlines()]


def shown(now, width=100, height=None):
    return "\n".join(drawn(now, width, height))


AT_100 = """\
tp_study: 12 of 28 done; about 35 min left
BAR
10 ok, 1 failed, 1 infeasible
3.21 GPU-hours, 4.50 MJ, 20.0 J (estimate); 4 leases
died: hang 2, died 1; windows without energy: counter_reset 2
trial       node    GPUs  phase    for  point                                                   done
0000000000  node-0     2  window  12 s  tensor_parallel=2, batch_size=1                         3/10
0000000001  node-1     2  window  13 s  tensor_parallel=2, batch_size=2                         3/10
best so far tensor_parallel=2, batch_size=512: 41.2 mJ/token
00000000ff: hang: no step for 181 s, killed
log: mlruns/studies/tp_study/attachments/00000000ff-0-4f3e2a1b9c0d-0.log.gz"""
AT_60 = """\
tp_study: 12 of 28 done; about 35 min left
BAR
10 ok, 1 failed, 1 infeasible
3.21 GPU-hours, 4.50 MJ, 20.0 J (estimate); 4 leases
died: hang 2, died 1; windows without energy: counter_reset…
trial       node    GPUs  phase    for  point           done
0000000000  node-0     2  window  12 s  tensor_parall…  3/10
0000000001  node-1     2  window  13 s  tensor_parall…  3/10
best so far tensor_parallel=2, batch_size=512: 41.2 mJ/token
00000000ff: hang: no step for 181 s, killed
log:
mlruns/studies/tp_study/attachments/00000000ff-0-4f3e2a1b9c0
d-0.log.gz"""


@pytest.mark.parametrize(("width", "wanted"), [(100, AT_100), (60, AT_60)])
def test_a_study_as_it_is_drawn(width, wanted):
    text = re.sub("^━+[━╸]$", "BAR", shown(snapshot(), width, 20), flags=re.MULTILINE)
    assert text == wanted


def test_the_bar_is_as_long_as_what_is_done():
    lines = drawn(snapshot(share=0.25), 100, 20)
    assert len(lines[1].rstrip("╸")) in (24, 25)
    assert drawn(snapshot(share=None), 100, 20)[1].startswith("10 ok")


def test_with_32_launches_24_lines_do_not_scroll():
    lines = drawn(snapshot(launches=32), 100, 24)
    assert len(lines) == 24
    rows = [line for line in lines if re.match(r"[0-9a-f]{10}  node-", line)]
    assert f"and {32 - len(rows)} more" in lines
    assert len(rows) >= 10
    assert any(line.startswith("log: ") for line in lines)


def test_where_all_launches_fit_all_are_shown():
    lines = drawn(snapshot(launches=5), 100, 24)
    assert sum(" node-" in line for line in lines) == 5
    assert not any("more" in line for line in lines)


def test_a_block_a_retry_and_a_machine_without_gpus_are_told():
    under_way = (
        launch(1, launch=2, launches=3, attempt=1),
        launch(2, gpus=0, phase="load", point=None, phase_s=600.0),
    )
    text = shown(snapshot(under_way=under_way), 100, 24)
    assert re.search(r"0000000001#2 +node-1 +2 +2/3 window +13 s +tensor_parallel", text)
    assert re.search(r"0000000002 +node-2 +CPU +load +10 min +3/10", text)


def test_without_a_known_end_none_is_told():
    counts = {**dict.fromkeys(STATUSES, 0), "ok": 12}
    now = snapshot(
        3, more=True, budget="4 GPU-hours", share=None, left_s=None, counts=counts, troubles=()
    )
    lines = drawn(now, 60, 20)
    assert lines[0] == "tp_study: 12 done, 3 under way; within 4 GPU-hours"
    assert not any("left" in line or "━" in line for line in lines)


def test_of_many_conditions_the_first_are_shown():
    conditions = tuple(best(f"input_tokens={size}") for size in (128, 512, 2048, 8192, 16384))
    text = shown(snapshot(best=conditions), 100, 24)
    assert text.count("best so far") == 3
    assert "and 2 more conditions" in text
    assert shown(snapshot(best=conditions)).count("best so far") == 5


def test_without_a_height_nothing_is_left_out():
    long = trouble(reason="word " * 40 + "end")
    text = shown(snapshot(launches=40, troubles=(long, *[trouble(trial_id="x")] * 4)), 60)
    assert text.count(" node-") == 40
    assert text.count("log:") == 5
    assert "end" in text
    assert "…" not in text.replace("tensor_parall…", "")


def test_nothing_under_way_is_said_while_something_is_left():
    assert "no launch is under way" in shown(snapshot(under_way=()))
    done = snapshot(under_way=(), asked=12)
    assert "no launch" not in shown(done)


@pytest.mark.long
@given(
    width=st.integers(60, 200),
    height=st.integers(1, 60),
    launches=st.integers(0, 64),
    conditions=st.integers(0, 8),
    troubles=st.integers(0, 5),
    name=st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=100),
)
def test_a_frame_always_fits(width, height, launches, conditions, troubles, name):
    now = replace(
        snapshot(launches),
        study=name,
        best=tuple(best(f"task={name}{number}") for number in range(conditions)),
        troubles=tuple(trouble(trial_id=f"{number}", reason=name) for number in range(troubles)),
    )
    lines = drawn(now, width, height)
    assert len(lines) <= height
    assert max(map(cell_len, lines)) <= width


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self._terminal = terminal

    def isatty(self):
        return self._terminal


@pytest.mark.parametrize(
    ("terminal", "environment", "columns", "wanted"),
    [
        (True, {"TERM": "xterm"}, 80, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, 80, True),
        (False, {"TERM": "xterm"}, 80, False),
        (True, {"TERM": "dumb"}, 80, False),
        (True, {}, 80, False),
        (True, {"TERM": "xterm", "CI": "true"}, 80, False),
        (True, {"TERM": "xterm"}, 59, False),
    ],
)
def test_it_is_live_only_where_somebody_can_see_it(terminal, environment, columns, wanted):
    assert lively(Stream(terminal), environment, columns) == wanted
