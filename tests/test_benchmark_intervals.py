"""The benchmark of intervals says what it found, and fails where its bars do not hold."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE = ROOT / "benchmarks" / "intervals.py"


def loaded():
    spec = importlib.util.spec_from_file_location("intervals", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules["intervals"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("table", "figure", "ok"),
    [
        *(("coverage", figure, 93 <= figure <= 97) for figure in (92.9, 93.0, 97.0, 97.1)),
        *(("false claims", figure, 4.5 <= figure <= 5.5) for figure in (4.4, 4.5, 5.5, 5.6)),
    ],
)
def test_one_figure_beyond_its_bar_is_enough_to_fail(table, figure, ok):
    module = loaded()
    figures = {"coverage": {"1 x": {"3": 95.0}}, "false claims": {"6": {"log-normal": 5.0}}}
    figures[table]["another"] = {"5": figure}
    assert module.holds(figures, module.FULL) is ok


@pytest.mark.long
def test_the_quick_benchmark_prints_its_figures_and_holds():
    child = subprocess.run(
        [sys.executable, FILE, "--quick", "--json"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    *shown, last = child.stdout.splitlines()
    figures = json.loads(last)
    assert figures["ok"] is True
    cells = [cell for row in figures["coverage"].values() for cell in row.values()]
    assert len(cells) == 9
    assert all(91 <= cell <= 99 for cell in cells)
    rates = [row["log-normal"] for row in figures["false claims"].values()]
    assert len(rates) == 3
    assert all(3.5 <= rate <= 6.5 for rate in rates)
    text = "\n".join(shown)
    for word in (
        "launches",
        "blocks",
        "the bars hold",
        "Student's t, 3 degrees",
        "the bar: 91 to 99",
    ):
        assert word in text
    stuck = figures["coverage, unpaired"]["one board a side"]
    assert all(cell < 90 for cell in stuck.values())
