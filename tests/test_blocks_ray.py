"""Studies that end in blocks, by the real command on a pretend cluster; deaths in their middle."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.results.contents import Contents
from tests.commands import Command, until
from tests.oracle import answer, faults, journal_of, lasting_faults

pytestmark = [pytest.mark.ray, pytest.mark.simulation]

POOL = "1x4:H100"
NODES = {f"H100/node-0-gpu-{index}": "node-0" for index in range(4)}
STUDY = """\
name: compared
model: {shape: tiny, weights: dummy}
engine: {kind: simulated}
workload: {input_tokens: 32, output_tokens: 8, batching: static}
measure:
  warmup: {min_batches: 1, max_batches: 2}
  min_window_s: 5
  repeats: 2
  finalists: {count: 2, blocks: 4}
axes:
  engine:
    - {tensor_parallel: 1, options: ONE}
    - {tensor_parallel: 2, options: TWO}
  workload.batch_size: [1, 4]
baseline: {engine.tensor_parallel: 1}
objectives: {energy_per_output_token_j: min, latency_mean_s: min}
"""


@pytest.fixture(autouse=True)
def _no_command_left() -> Iterator[None]:
    yield
    Command.kill_all()


def written(folder: Path, one: str, two: str) -> Path:
    path = folder / "compared.yaml"
    path.write_text(STUDY.replace("ONE", one).replace("TWO", two))
    return path


def folder_of(study: Path) -> Path:
    return study.parent / "mlruns" / "studies" / "compared.rehearsal"


def finals(journal: Contents) -> int:
    return sum(record.stage == "final" for record in journal.records)


def assert_compared(command: Command) -> None:
    """Four blocks, of which everything that was compared has a record that counts."""
    told = json.loads(command.out)
    assert (told["points"], told["ok"], told["failed"]) == (4, 4, 0)
    [found] = told["answers"]
    assert found["best"]["launches"] == 4
    [change] = [
        each["changes"]["energy_per_output_token_j"]
        for each in found["savings"]
        if each["changes"]["energy_per_output_token_j"]["launches"] == [4, 4]
    ]
    assert change["paired"]
    journal = journal_of(folder_of(command.study))
    assert lasting_faults(journal) == []
    objectives = {"energy_per_output_token_j": "min", "latency_mean_s": "min"}
    front, best = answer(journal, {}, objectives, {})
    assert {entry["id"] for entry in found["front"]} == front
    assert found["best"]["id"] == best


@pytest.mark.slow
def test_a_death_in_the_middle_of_a_block_is_followed_by_all_of_it_again(tmp_path: Path) -> None:
    dies = "{fail: {kind: error, at: window, batch_size: 4, attempts: 1}}"
    study = written(tmp_path, "{}", dies)
    command = Command(study, "--rehearse", POOL, "--json")
    assert command.wait(280) == 0, command.err
    assert_compared(command)
    journal = journal_of(folder_of(study))
    assert faults(journal, NODES) == []
    blocks = [line for line in journal if line["kind"] == "trial" and line["stage"] == "final"]
    assert sorted(line["attempt"] for line in blocks) == [0] * 4 + [1] * 4
    # In every round of two blocks the one that dies is launched first once, and last once.
    taken_back = [line for line in journal if line["kind"] == "superseded"]
    assert len(taken_back) >= 2
    assert {line["stage"] for line in taken_back} == {"final"}
    assert "finalists in 4 blocks" in command.err
    assert until(lambda: command.left() == [], 30)


@pytest.mark.slow
def test_a_study_killed_in_the_middle_of_its_blocks_goes_on(tmp_path: Path) -> None:
    slow = "{isolated: true, time_scale: 0.05, load_s: 1}"
    study = written(tmp_path, slow, slow)
    words = ("--rehearse", POOL)
    command = Command(study, *words)
    command.journal_path = folder_of(study) / "journal.jsonl"
    assert command.reaches(lambda journal: finals(journal) >= 1), command.err
    command.kill()
    assert until(lambda: command.left() == [], 90)
    before = command.journal
    assert finals(before) < 4 * 3

    command = Command(study, *words, "--json")
    assert command.wait(280) == 0, command.err
    assert_compared(command)
    assert "measured before" in command.err
    journal = journal_of(folder_of(study))
    again = {line["trial_id"] for line in journal if line.get("attempt") == 1}
    assert again, "what was cut began anew"
    command = Command(study, *words, "--json")
    assert command.wait(120) == 0, command.err
    assert len(journal_of(folder_of(study))) == len(journal) + 1, "a sitting, and nothing else"
