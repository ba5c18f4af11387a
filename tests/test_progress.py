"""What a study under way says, and what its keeper keeps."""

import base64
import gzip
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sweeper.keeper import Keeper
from sweeper.plan import plan
from sweeper.progress import note
from sweeper.progress.progress import Progress
from sweeper.progress.views import PlainView
from sweeper.results.contents import FILE, Contents, read
from sweeper.results.journal import Journal
from tests.records import ESTIMATED, MEASURED, SIMULATED, make_record, make_window, two_objectives
from tests.searches import Listed
from tests.studies import one_trial, simulated

SIMULATED_STUDY = simulated(batch_sizes=(1, 4, 16))
SETTINGS = SIMULATED_STUDY.settings
ENGINE = replace(SETTINGS.engine, kind="transformers")
STUDY = replace(SIMULATED_STUDY, settings=replace(SETTINGS, engine=ENGINE))
TRIAL = one_trial(STUDY)
FOLDER = Path("mlruns/studies/simulated")


class Told:
    """A progress, what it said, and the clock it reads."""

    def __init__(self, study=STUDY, done=(), folder=FOLDER):
        self.now_s = 0.0
        self.lines = []
        before = Contents(records=tuple(done))
        left = plan(study, done=before.accepted().keys())
        view = PlainView(self.lines.append)
        self.progress = Progress(study, left, before, folder, view, clock=lambda: self.now_s)

    def event(self, kind, trial=TRIAL, **fields):
        self.progress.event(trial, {"kind": kind, **fields})

    def window(self, place, energy_j, energy=MEASURED, reasons=()):
        """A window of one of the study's points."""
        point = TRIAL.launches[0].points[place]
        told = {"energy_j": energy_j, "energy": asdict(energy), "reasons": list(reasons)}
        self.event("window", id=point.id, launch=0, stage="full", **told)

    @property
    def last(self):
        return self.lines[-1].strip()


def verdict(place, status="ok", energy=MEASURED, value=0.5, **fields):
    """The record of one of the study's points."""
    point = TRIAL.launches[0].points[place]
    metrics = two_objectives(value, 0.2) if status == "ok" else {}
    windows = [make_window()] if status == "ok" else []
    return make_record(
        point.id,
        trial_id=TRIAL.id,
        status=status,
        chosen=point.chosen,
        windows=windows,
        metrics=metrics,
        energy=energy,
        config={"engine.kind": "transformers"},
        **fields,
    )


def test_it_begins_with_what_there_is_to_do(tmp_path):
    told = Told(folder=tmp_path)
    with told.progress:
        assert told.last == "simulated: 3 points; 3 to measure in 1 launch"
    again = Told(done=[verdict(0)], folder=tmp_path)
    with again.progress:
        pass
    assert again.last == "simulated: 3 points, 1 measured before; 2 to measure in 1 launch"


def test_a_verdict_counts_and_says_what_it_cost_what_is_left_and_the_best():
    told = Told()
    told.event("trial", devices=["GPU-0", "GPU-1"])
    told.event("phase", phase="load")
    assert told.last == f"{TRIAL.id}: loading on 2 GPUs"
    told.window(0, 3000.0)
    told.window(0, None, reasons=["counter_stuck: GPU-0"])
    told.now_s = 1800.0
    told.progress.record(verdict(0))
    assert told.lines[-2].strip() == "[1/3] batch_size=1: ok 500 mJ/token, 200 ms"
    assert told.last == (
        "1 of 3 done, 0 failed, 0 infeasible; 1.00 GPU-hours, 3.00 kJ; about 60 min left; "
        "best so far batch_size=1: 500 mJ/token"
    )
    told.window(1, 1000.0)
    told.progress.record(verdict(1, value=0.25))
    assert "4.00 kJ" in told.last
    assert told.last.endswith("best so far batch_size=4: 250 mJ/token")
    told.progress.record(verdict(2, status="infeasible", reason="out of memory\nat length"))
    assert told.lines[-2].strip() == "[3/3] batch_size=16: infeasible: out of memory"
    assert told.last.startswith("3 of 3 done, 0 failed, 1 infeasible; ")
    assert " left" not in told.last


@pytest.mark.parametrize(
    ("energy", "said"), [(ESTIMATED, "(estimate)"), (SIMULATED, "(simulation)")]
)
def test_joules_that_nobody_measured_say_so(energy, said):
    told = Told()
    told.window(0, 3000.0, energy)
    told.progress.record(verdict(0, energy=energy))
    assert f"500 mJ/token {said}, 200 ms" in told.lines[-2]
    assert f"3.00 kJ {said}" in told.last
    assert told.last.endswith(f"best so far batch_size=1: 500 mJ/token {said}")


def test_joules_that_nobody_knows_are_not_zero():
    told = Told()
    reason = "counter_reset: GPU-0"
    told.window(0, None, ESTIMATED, [reason])
    told.progress.record(verdict(0, status="energy_invalid", reason=reason, energy=ESTIMATED))
    assert told.lines[-2].endswith(f"energy_invalid {reason}")
    assert " J" not in told.last
    assert "best" not in told.last


def test_a_death_and_a_failure_name_the_log(tmp_path):
    told = Told(folder=tmp_path)
    told.event("attachment", name="a trial/engine.log.gz", role="engine_log", data="")
    told.event("death", reason="died: signal 9\nmore")
    head, _, log = told.last.partition("; log: ")
    assert head == f"{TRIAL.id}: died: signal 9"
    assert Path(log).parent == tmp_path / "attachments"
    told.progress.record(verdict(0, status="failed", reason="died: signal 9", energy=None))
    assert told.lines[-2].endswith(f"failed: died: signal 9; log: {log}")
    assert "1 failed" in told.last
    # A power trace is no log, and another trial has its own.
    other = replace(TRIAL, id="other")
    told.event("attachment", trial=other, name="x", role="power_trace", data="")
    told.event("death", trial=other, reason="lost")
    assert told.last == "other: lost"


def test_gpu_seconds_are_those_the_lease_tells_and_its_own_count_until_then():
    told = Told()
    told.event("trial", devices=["GPU-0"])
    told.now_s = 3600.0
    told.progress.record(verdict(0))
    assert "1.00 GPU-hours" in told.last
    told.event("ended", gpu_seconds=7200.0)
    told.progress.record(verdict(1))
    assert "2.00 GPU-hours" in told.last
    told.event("trial", devices=["GPU-0"])
    told.now_s += 3600.0
    retried = replace(TRIAL, attempt=1)
    told.event("trial", trial=retried, devices=[])
    told.event("phase", trial=retried, phase="load")
    assert told.last == f"{TRIAL.id}: loading on the CPU, attempt 2"
    told.progress.record(verdict(2))
    assert "3.00 GPU-hours" in told.last


@pytest.fixture
def kept(tmp_path):
    """A keeper on a real journal, and what its progress says."""
    told = Told(folder=tmp_path)
    with Journal.open(tmp_path, "name: simulated") as journal:
        yield Keeper(STUDY, journal, told.progress, Listed([])), journal, told


def test_an_event_is_in_the_journal_before_anybody_says_so(kept, tmp_path):
    keeper, _, told = kept
    seen = []
    told.progress._view = PlainView(
        lambda line: seen.append((line, len(read(tmp_path / FILE).records)))
    )
    keeper.take(TRIAL, {"kind": "record", **verdict(0).to_json()})
    assert [count for _, count in seen] == [1, 1]


def test_windows_deaths_and_ends_are_kept_and_chatter_is_not(kept):
    keeper, journal, told = kept
    keeper.take(TRIAL, {"kind": "trial", "devices": [], "started_at": "2026-01-02T03:04:05Z"})
    keeper.take(TRIAL, {"kind": "phase", "phase": "load", "point": None})
    keeper.take(TRIAL, {"kind": "death", "reason": "hang", "node_id": "n"})
    keeper.take(TRIAL, {"kind": "ended", "gpu_seconds": 2.0})
    contents = journal.contents
    assert len(contents.trials) == len(contents.deaths) == 1
    assert contents.trials[0]["trial_id"] == TRIAL.id
    assert contents.gpu_seconds() == 2.0
    assert any("loading" in line for line in told.lines)


def test_a_log_is_kept_where_the_progress_says(kept, tmp_path):
    keeper, journal, told = kept
    data = base64.b64encode(gzip.compress(b"CUDA error")).decode()
    log = {"name": "a b.log.gz", "role": "engine_log", "data": data}
    keeper.take(TRIAL, {"kind": "attachment", **log})
    keeper.take(TRIAL, {"kind": "death", "reason": "hang"})
    named = Path(told.last.partition("log: ")[2])
    assert gzip.decompress(named.read_bytes()) == b"CUDA error"
    assert journal.contents.attachments[0]["name"] == named.name


def test_points_that_were_given_up_have_failed_records(kept):
    keeper, journal, told = kept
    first = TRIAL.launches[0].points[0].id
    keeper.take(TRIAL, {"kind": "given_up", "points": [first], "reason": "no node"})
    [record] = journal.contents.records
    assert (record.id, record.status, record.reason) == (first, "failed", "no node")
    assert "1 failed" in told.last


def test_a_search_that_asks_for_more_says_no_end_that_nobody_knows(tmp_path):
    told = Told(folder=tmp_path)
    told.event("trial", devices=["GPU-0"])
    told.progress.planned([], more=True, budget="4 GPU-hours")
    told.now_s = 60.0
    told.progress.record(verdict(0))
    assert told.lines[-2].strip().startswith("[1] batch_size=1: ok")
    assert told.last.startswith("1 done, 1 under way, 0 failed, 0 infeasible; ")
    assert " left" not in told.last
    with told.progress:
        assert told.last == ("simulated: a search among 3 points, within 4 GPU-hours")
    told.progress.planned([])
    told.progress.record(verdict(1))
    assert told.last.startswith("2 of 3 done, ")
    assert "about 30 s left" in told.last


def test_each_condition_has_a_best_of_its_own():
    told = Told()
    for place, condition, value in ((0, 128, 0.5), (1, 2048, 2.0), (2, 2048, 3.0)):
        record = verdict(place, value=value)
        told.progress.record(replace(record, condition={"workload.input_tokens": condition}))
    assert told.last.endswith("best so far input_tokens=2048, batch_size=4: 2.00 J/token")
    assert [best.condition for best in told.progress.snapshot().best] == [
        "input_tokens=128",
        "input_tokens=2048",
    ]


def note_of(folder):
    return json.loads((folder / "progress.json").read_text())


def test_a_file_tells_others_and_how_it_ended(tmp_path):
    told = Told(folder=tmp_path)
    with told.progress:
        assert note_of(tmp_path)["state"] == "running"
        told.progress.record(verdict(0))
    found = note.read(tmp_path)
    assert (found.state, found.progress) == ("interrupted", told.progress.snapshot())
    assert f"process {os.getpid()} on " in found.driver
    told = Told(folder=tmp_path, done=[verdict(0), verdict(1)])
    with told.progress:
        told.progress.record(verdict(2))
    assert note.read(tmp_path).state == "ended"
    with pytest.raises(RuntimeError), Told(folder=tmp_path).progress:
        raise RuntimeError
    assert note.read(tmp_path).state == "failed"
    assert [path.name for path in tmp_path.iterdir()] == ["progress.json"]


def test_a_file_that_is_none_of_ours_is_not_read(tmp_path):
    assert note.read(tmp_path) is None
    for text in ("", "[]", "{}", '{"version": 99}', '{"version": 1, "driver": "x"}'):
        (tmp_path / "progress.json").write_text(text)
        assert note.read(tmp_path) is None


def test_the_file_is_written_once_a_second_at_most_and_as_a_sign_of_life(tmp_path):
    told = Told(folder=tmp_path)
    looks = []
    writer = note.NoteWriter(
        tmp_path, lambda: looks.append(told.now_s) or told.progress.snapshot(), lambda: told.now_s
    )
    for tenth in range(200):
        told.now_s = tenth / 10
        if tenth < 30:
            writer.news()
        writer.tick()
    assert looks == [0.0, 1.0, 2.0, 3.0, 13.0]
