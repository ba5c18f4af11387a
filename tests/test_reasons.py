"""The reason codes: complete, ordered, and what they say of a window."""

import ast
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.answers.change import MIN_BLOCKS
from sweeper.meters.nvml_meter import NvmlMeter
from sweeper.results.reasons import REASONS, code_of, mendable, ordered, voids
from sweeper.spec import TEMPERATURE_S
from sweeper.trial.protocol import MOST_IDLES, SAME_IDLE
from sweeper.trial.validity import (
    BALANCE,
    CLOCK_STEP_S,
    DEPARTURE,
    DRIFT_C,
    LIMIT_MARGIN,
    MAX_GAP_S,
    SIGMAS,
    SLOWED_SHARE,
)
from sweeper.trial.warmup import FIRST_MOST_S, LATER_MOST_S, STEADY_C, STEADY_SPREAD

PACKAGE = Path(__file__).resolve().parent.parent / "sweeper"
CODES = st.sampled_from(sorted(REASONS))


def codes_of_errors():
    """The code of every `MeterError("code", ..)` in the package."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "MeterError":
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    yield first.value


def test_every_code_that_a_meter_raises_has_a_meaning():
    found = set(codes_of_errors())
    assert {"counter_stuck", "gpu_not_free", "mig"} <= found
    assert found <= REASONS.keys()


def test_every_code_that_nvml_answers_has_a_meaning():
    from sweeper.meters.nvml import CODES

    assert {*CODES.values(), "nvml_error"} <= REASONS.keys()


@pytest.mark.parametrize("code", REASONS)
def test_every_reason_says_what_it_means_and_what_to_do(code):
    reason = REASONS[code]
    assert code == code.lower()
    assert ":" not in code
    assert 20 < len(reason.meaning) < 200
    assert 20 < len(reason.remedy) < 200
    assert "|" not in reason.meaning + reason.remedy
    assert not reason.meaning.endswith(".")
    assert not reason.remedy.endswith(".")


def test_those_that_leave_no_number_come_first():
    assert all(a.voids or not b.voids for a, b in pairwise(REASONS.values()))


@given(st.lists(CODES))
def test_one_that_voids_is_enough(codes):
    reasons = [f"{code}: detail: more" for code in codes]
    assert voids(reasons) == any(REASONS[code].voids for code in codes)


@given(st.lists(CODES))
def test_one_that_comes_again_is_enough(codes):
    assert mendable(f"{code}: x" for code in codes) == all(REASONS[code].mends for code in codes)


def test_an_unknown_code_leaves_no_number_but_may_be_tried_again():
    assert voids(["from_the_future: x"])
    assert mendable(["from_the_future: x"])


@given(st.lists(st.tuples(CODES, st.sampled_from("ab"))))
def test_each_reason_is_told_once_the_gravest_first(found):
    reasons = [f"{code}: {detail}" for code, detail in found]
    told = ordered([*reasons, "unheard_of: x"])
    assert set(told) == {*reasons, "unheard_of: x"}
    assert len(set(told)) == len(told)
    places = [list(REASONS).index(code_of(each)) for each in told[:-1]]
    assert places == sorted(places)
    assert told[-1] == "unheard_of: x"


DOCUMENT = PACKAGE.parent / "docs" / "measurement.md"


def test_the_protocol_as_it_is_written_down_has_every_code():
    """The table of docs/measurement.md; where this fails, these are the rows to put there."""
    joules = {True: "none", False: "from the readings"}
    rows = [
        f"| `{code}` | {each.meaning} | {each.remedy} | {joules[each.voids]} |"
        for code, each in REASONS.items()
    ]
    written = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    table = [line for line in written if not line.startswith(("| `steady`", "| `whole`"))]
    assert table == rows


def test_the_protocol_as_it_is_written_down_has_the_constants_of_the_code():
    text = " ".join(DOCUMENT.read_text().split())
    for said in (
        f"agree within {SAME_IDLE:.0%}, at most six".replace("%", " %"),
        f"moved by more than {STEADY_C:g} °C in {TEMPERATURE_S:g} s, at most {FIRST_MOST_S:g} s",
        f"of the temperature, at most {LATER_MOST_S:g} s",
        f"the same time within {STEADY_SPREAD:.0%}".replace("%", " %"),
        f"above the board's limit by {LIMIT_MARGIN:.0%}".replace("%", " %"),
        f"no sample of power for {MAX_GAP_S:g} s",
        f"a slow-down for {SLOWED_SHARE:.0%} of the window".replace("%", " %"),
        f"{DRIFT_C:g} °C between both edges; {CLOCK_STEP_S:g} s of the wall clock",
        f"{BALANCE:.0%} from the workload's balance".replace("%", " %"),
        f"within {DEPARTURE:.0%} and three standard errors".replace("%", " %"),
        f"shorter than {NvmlMeter.min_window_s:g} s gives no number",
        f"only from {MIN_BLOCKS} blocks on",
    ):
        assert said in text, said
    assert (MOST_IDLES, SIGMAS) == (6, 3.0)
