"""A block under its supervisor, and what is kept of it."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.blocks import blocks, whole
from sweeper.cluster.attempts import keys
from sweeper.keeper import Keeper
from sweeper.plan import expand, plan
from sweeper.progress.progress import Progress
from sweeper.progress.views import PlainView
from sweeper.results.contents import Contents
from sweeper.results.journal import Journal
from sweeper.results.record import Record
from sweeper.spec import Axis, FinalistsSpec, MeasureSpec, Study, Trial
from sweeper.trial.lease import Lease
from tests.oracle import faults
from tests.records import make_record, two_objectives
from tests.searches import Listed
from tests.studies import MEASURE, simulated
from tests.test_lease import run

pytestmark = pytest.mark.process

WIDTHS = {"engine.tensor_parallel": (1, 2, 4)}
DEVICES = tuple(f"H100/gpu-{place}" for place in range(4))
PLACE = {"node_id": "n", "host": "h"}


def compared(
    choices: dict[str, tuple[Any, ...]] = WIDTHS, count: int = 2, **options: Any
) -> tuple[Study, tuple[Trial, ...]]:
    """A study of one batch size, and blocks of all of its points."""
    measure: MeasureSpec = replace(MEASURE, finalists=FinalistsSpec(count=9, blocks=count))
    axes = tuple(
        Axis(label=key, choices=tuple({key: value} for value in values))
        for key, values in choices.items()
    )
    study = replace(simulated(measure=measure, **options), axes=axes)
    return study, blocks(study, expand(study)[0])


def held(block: Trial, tmp_path: Path) -> tuple[list[dict[str, Any]], list[Record]]:
    events = run(Lease(block, DEVICES[: block.gpus], "simulated", tmp_path, PLACE))
    return events, [Record.from_json(each) for each in events if each["kind"] == "record"]


def test_a_launch_has_the_first_gpus_of_its_block_and_names_the_idle_ones(tmp_path: Path) -> None:
    _, made = compared()
    for block in made:
        assert block.gpus == 4
        events, records = held(block, tmp_path)
        assert (events[0]["kind"], events[0]["stage"]) == ("trial", "final")
        assert events[0]["devices"] == list(DEVICES)
        assert [record.key for record in records] == keys(block), "one after the other"
        for record in records:
            width = record.config["engine.tensor_parallel"]
            assert record.gpus == width
            assert record.environment["idle_gpus"] == list(DEVICES[width:])
            for window in record.windows:
                assert set(window.readings[0]["energy_j"]) == set(DEVICES[:width])
        ended = events[-1]
        launched = [event for event in events if event["kind"] == "launched"]
        assert ended["gpu_seconds"] == pytest.approx(4 * sum(e["seconds"] for e in launched))
        assert ended["energy_j"] == pytest.approx(sum(e["energy_j"] for e in launched))


def test_launches_of_a_block_may_live_in_processes_and_in_threads(tmp_path: Path) -> None:
    _, made = compared({"engine.options.isolated": (True, False)}, count=1)
    events, records = held(made[0], tmp_path)
    assert [record.key for record in records] == keys(made[0])
    assert {record.status for record in records} == {"ok"}
    logs = [event for event in events if event.get("role") == "engine_log"]
    assert len(logs) == 1, "of the one in a process"


def test_a_death_ends_a_block(tmp_path: Path) -> None:
    _, made = compared(fail={"kind": "error", "at": "load"})
    events, records = held(made[0], tmp_path)
    assert records == []
    assert sum(event["kind"] == "death" for event in events) == 1
    assert (events[-1]["kind"], events[-1]["energy_j"]) == ("ended", None)


@pytest.fixture
def kept(tmp_path: Path) -> Any:
    """Blocks, a keeper on a real journal, and that journal."""
    study, made = compared(count=1)
    done = Contents(
        records=tuple(
            make_record(point.id, metrics=two_objectives(1.0, 1.0)) for point in expand(study)[0]
        )
    )
    with Journal.open(tmp_path, "name: simulated") as journal:
        todo = plan(study, done=done.accepted().keys())
        progress = Progress(study, todo, done, tmp_path, PlainView(lambda line: None))
        progress.planned(made)
        yield made[0], Keeper(study, journal, progress, Listed([])), journal, progress


def of_attempt(block: Trial, key: Any) -> dict[str, Any]:
    name, launch, stage = key
    record = make_record(name, launch=launch, stage=stage, trial_id=block.id, attempt=block.attempt)
    return {"kind": "record", **record.to_json()}


def test_what_a_block_began_and_did_not_end_no_longer_counts(kept: Any) -> None:
    block, keeper, journal, progress = kept
    keeper.take(block, {"kind": "trial", "stage": "final", "devices": []})
    for key in keys(block)[:2]:
        keeper.take(block, of_attempt(block, key))
    assert progress.snapshot().left == 1
    keeper.take(block, {"kind": "death", "reason": "hang"})
    again = replace(block, attempt=1)
    keeper.take(again, {"kind": "trial", "stage": "final", "devices": []})
    assert journal.contents.accepted() == {}
    assert progress.snapshot().left == 3
    for key in keys(block):
        keeper.take(again, of_attempt(again, key))
    accepted = journal.contents.accepted()
    assert whole(block, accepted)
    assert {record.attempt for record in accepted.values()} == {1}
    assert progress.snapshot().left == 0
    assert journal.contents.duplicates == 0


def test_a_later_sitting_takes_back_what_an_earlier_one_left_of_a_block(
    kept: Any, tmp_path: Path
) -> None:
    block, keeper, journal, progress = kept
    first = keys(block)[0]
    keeper.take(block, of_attempt(block, first))
    study, _ = compared(count=1)
    told = journal.contents.accepted().values()
    second = Keeper(study, journal, progress, Listed([]), told)
    again = replace(block, attempt=1)
    second.take(again, {"kind": "trial", "stage": "final", "devices": []})
    assert journal.contents.accepted() == {}


def journalled(tmp_path: Path) -> list[dict[str, Any]]:
    """The lines of two blocks, one after the other on the same GPUs."""
    _, made = compared()
    lines: list[dict[str, Any]] = []
    for block in made:
        events, _ = held(block, tmp_path)
        of = {"trial_id": block.id, "attempt": block.attempt}
        lines += [{**of, **event} for event in events]
    return json.loads(json.dumps(lines))  # type: ignore[no-any-return]


def test_the_oracle_finds_what_is_wrong_with_a_block(tmp_path: Path) -> None:
    nodes = dict.fromkeys(DEVICES, "n")
    lines = journalled(tmp_path)
    assert faults(lines, nodes) == []
    records = [place for place, line in enumerate(lines) if line["kind"] == "record"]
    narrow = next(at for at in records if lines[at]["gpus"] == 1)

    def tampered(change: Callable[[list[dict[str, Any]]], object]) -> str:
        copy = json.loads(json.dumps(lines))
        change(copy)
        return "; ".join(faults(copy, nodes))

    def moved(copy: list[dict[str, Any]]) -> None:
        for window in copy[narrow]["windows"]:
            for reading in window["readings"]:
                reading["energy_j"] = {DEVICES[3]: reading["energy_j"][DEVICES[0]]}

    assert "not on the first of its block's GPUs" in tampered(moved)
    assert "compare different points" in tampered(lambda copy: copy.pop(records[0]))
    again = {"attempt": 1}
    assert "of several leases" in tampered(
        lambda copy: [copy[records[0]].update(again), copy.insert(0, {**copy[0], **again})]
    )
    assert "overlap" in tampered(lambda copy: copy.insert(records[2], dict(copy[records[0]])))
    assert "has 2 accepted records" in tampered(lambda copy: copy.append(copy[records[0]]))
