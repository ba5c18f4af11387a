"""The benchmark of the meter's cost says what it found, and judges by it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.meter_overhead import ARMS, FULL, figures, ratio, table
from sweeper.meters.trace import Cost

ROOT = Path(__file__).resolve().parent.parent
BARE = [1000.0 * (1 + 0.1 * math.sin(place)) for place in range(FULL.rounds)]
CHEAP = [(Cost(cpu_s=0.02, elapsed_s=5.0), 8 * 50)] * FULL.rounds


def rates(slower: float) -> dict[str, list[float]]:
    return {"metered": [slower * rate for rate in BARE], "bare": BARE, "control": BARE[::-1]}


def test_a_ratio_is_paired_by_rounds() -> None:
    metered = [rate * (0.97 if place % 2 else 0.99) for place, rate in enumerate(BARE)]
    found = ratio(metered, BARE)
    assert found.mean == pytest.approx(math.sqrt(0.97 * 0.99))
    assert 0.97 < found.low < found.mean < found.high < 0.99


@pytest.mark.parametrize(
    ("slower", "costs", "ok"),
    [
        (0.97, CHEAP, True),
        (0.94, CHEAP, False),
        (0.97, [(Cost(cpu_s=0.11, elapsed_s=5.0), 8 * 50)], False),
        (0.97, [(Cost(cpu_s=0.02, elapsed_s=5.0), 8 * 40)], False),
    ],
    ids=["holds", "slows the engine", "takes too much", "samples too seldom"],
)
def test_each_bar_can_fail(slower: float, costs: list[tuple[Cost, int]], ok: bool) -> None:
    found = figures(rates(slower), costs, FULL)
    assert found["ok"] is ok
    assert found["metered_to_bare"]["mean"] == pytest.approx(slower)
    assert table(found).endswith("\nholds") is ok


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.nvml
@pytest.mark.timeout(600)
def test_it_measures_and_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/meter_overhead.py", "--quick", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (0 if found["ok"] else 1)
    assert set(found["tokens_per_s"]) == set(ARMS)
    assert all(rate > 0 for rate in found["tokens_per_s"].values())
    assert found["metered_to_bare"]["low"] <= found["metered_to_bare"]["high"]
    assert 0 < found["sampler"]["share"] <= found["sampler"]["share_most"]
    assert found["sampler"]["samples_hz"] > 0
    assert "with meter / without" in done.stdout
