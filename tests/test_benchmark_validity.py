"""The benchmark of reason codes, in its small version: what it prints, and that its bar holds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sweeper.results.reasons import REASONS
from tests.nvml_standin import compiler

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.nvml
@pytest.mark.skipif(compiler() is None, reason="no C compiler to build the NVML stand-in")
def test_every_code_is_named_at_twice_its_threshold_and_none_in_clean_windows():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.validity", "--quick", "--json"],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    *table, last = done.stdout.splitlines()
    figures = json.loads(last)
    assert figures["ok"]
    assert figures["clean"]["flagged"] == {}
    assert figures["clean"]["windows"] > 0
    assert {name: found["twice"] for name, found in figures["codes"].items()} == dict.fromkeys(
        figures["codes"], 1.0
    )
    assert all(0.0 <= found["half"] <= found["twice"] for found in figures["codes"].values())
    told = {name.split()[0] for name in figures["codes"]} | set(figures["not_injected"])
    assert told == REASONS.keys()
    assert "nowhere" not in figures["not_injected"].values(), "say where the code is tested"
    for where in figures["not_injected"].values():
        if where.startswith("tests/"):
            assert (ROOT / where.partition(",")[0]).exists()
    assert any(line.startswith("counter_departs ") for line in table)
    assert "the bar holds" in table
