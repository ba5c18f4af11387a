"""The benchmark of the memory estimate says what it found, and judges by it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory_estimate import CONSTANT, ENGINES, FULL, estimated_bytes, figures, table
from sweeper.spec import EngineKind

ROOT = Path(__file__).resolve().parent.parent
EVERY: list[tuple[EngineKind, str]] = [
    (kind, shape) for kind in ENGINES for shape in (CONSTANT, *FULL.shapes)
]


def found(share: float, constant_bytes: float = 5e8) -> dict[str, float]:
    estimated = {each: estimated_bytes(*each) for each in EVERY}
    taken = {each: constant_bytes + share * estimated[each] for each in EVERY}
    return figures(taken, estimated, FULL)


@pytest.mark.parametrize(
    ("share", "ok"), [(1.0, True), (1.2, True), (0.8, True), (1.3, False), (0.7, False)]
)
def test_the_bar_is_a_ratio_of_what_a_model_adds(share: float, ok: bool) -> None:
    told = found(share)
    assert told["ok"] is ok
    assert [row["ratio"] for row in told["rows"]] == pytest.approx([1 / share] * 4)  # type: ignore[attr-defined]


def test_what_every_process_takes_does_not_count() -> None:
    assert found(1.0, 5e8)["rows"][0]["ratio"] == pytest.approx(found(1.0, 9e9)["rows"][0]["ratio"])  # type: ignore[index]


def test_the_table_names_every_engine_and_shape() -> None:
    text = table(found(1.0))
    assert all(word in text for word in (*ENGINES, *FULL.shapes, "1.000", "holds"))
    assert "DOES NOT HOLD" in table(found(2.0))


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.timeout(900)
def test_it_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory_estimate", "--quick", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == (0 if told["ok"] else 1), done.stderr
    assert all(row["taken_bytes"] > 2e9 for row in told["rows"])
