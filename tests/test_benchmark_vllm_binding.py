"""The benchmark of vLLM's processors says what it found, and judges by it."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.vllm_binding import FULL, figures, table

ROOT = Path(__file__).resolve().parent.parent
ALL = [1000.0 * (1 + 0.1 * math.sin(place)) for place in range(FULL.rounds)]


@pytest.mark.parametrize(("faster", "ok"), [(2.8, True), (0.97, False)])
def test_its_bar_can_fail(faster: float, ok: bool) -> None:
    rates = {"all": ALL, "control": ALL[::-1], "bound": [faster * rate for rate in ALL]}
    found = figures(rates, {"all": 2, "bound": 1}, FULL)
    assert found["ok"] is ok
    assert found["bound_to_all"]["mean"] == pytest.approx(faster)
    assert table(found).endswith("\nholds") is ok


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(600)
def test_it_measures_and_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.vllm_binding", "--quick", "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (0 if found["ok"] else 1)
    assert found["processors"]["bound"] == max(1, found["processors"]["all"] - 1)
