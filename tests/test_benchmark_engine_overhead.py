"""The benchmark of the engines' cost says what it found, and judges by it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.engine_overhead import FULL, MAKERS, SIDES, Rounds, figures, table
from benchmarks.engine_overhead_arms import Taken

ROOT = Path(__file__).resolve().parent.parent
SWAY = [1 + 0.1 * math.sin(place) for place in range(FULL.rounds)]


def taken(slower: float = 1.0, later: float = 1.0, *, timed: bool = True) -> Rounds:
    """Rounds that sway together; ours is so much slower, and sees so much later tokens."""

    def one(rate: float, seconds: float) -> Taken:
        times = (seconds, 2 * seconds, 9 * seconds) if timed else ()
        return Taken(tokens_per_s=rate, ttft_s=times, tpot_s=times)

    return [
        {
            "ours": one(1000 * sway * slower, 0.01 * sway * later),
            "theirs": one(1000 * sway, 0.01 * sway),
            "control": one(1001 * sway, 0.01 * sway),
        }
        for sway in SWAY
    ]


@pytest.mark.parametrize(
    ("slower", "later", "ok"),
    [(0.96, 1.0, True), (0.94, 1.0, False), (1.0, 1.09, True), (1.0, 1.11, False),
     (1.0, 0.95, True), (1.0, 0.9, False)],
)  # fmt: skip
def test_each_bar_can_fail(slower: float, later: float, ok: bool) -> None:
    found = figures({"endpoint": taken(slower, later), "vllm": taken(timed=False)}, FULL)
    assert found["ok"] is ok
    one = found["comparisons"]["endpoint"]
    assert one["ours_to_theirs"]["mean"] == pytest.approx(slower)
    assert one["medians"]["ttft_s"]["ours_to_theirs"]["mean"] == pytest.approx(later)
    assert one["control_to_theirs"]["mean"] == pytest.approx(1.001)
    assert found["comparisons"]["vllm"]["medians"] == {}
    assert table(found).endswith("\nholds") is ok


def test_one_that_does_not_hold_is_enough() -> None:
    assert not figures({"vllm": taken(), "transformers": taken(0.5)}, FULL)["ok"]
    assert not figures({}, FULL)["ok"]


def test_the_full_run_has_as_many_pairs_as_are_promised() -> None:
    assert FULL.rounds >= 20
    assert (FULL.ratio_low, FULL.apart) == (0.95, 0.10)


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(600)
def test_it_measures_and_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/engine_overhead.py", "--quick", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (0 if found["ok"] else 1)
    assert set(found["comparisons"]) == set(MAKERS)
    for one in found["comparisons"].values():
        assert all(one["tokens_per_s"][side] > 0 for side in SIDES)
        assert one["ours_to_theirs"]["low"] <= one["ours_to_theirs"]["high"]
    assert set(found["comparisons"]["endpoint"]["medians"]) == {"ttft_s", "tpot_s"}
    assert "endpoint through sweeper" in done.stdout
