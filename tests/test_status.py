"""`status`: a study seen from outside, at work, interrupted and at its end."""

import json
import os
import re
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from sweeper.__main__ import main
from sweeper.errors import JournalError
from sweeper.plan import plan
from sweeper.progress import note
from sweeper.progress.progress import Progress
from sweeper.progress.status import look, status_text
from sweeper.progress.views import PlainView
from sweeper.results.journal import Journal
from sweeper.results.lock import holder
from sweeper.study import dump
from tests.records import ESTIMATED, make_record, two_objectives
from tests.studies import one_trial, simulated

STUDY = simulated(batch_sizes=(1, 4, 16))
TRIAL = one_trial(STUDY)
POINTS = TRIAL.launches[0].points
LEASE = {"trial_id": TRIAL.id, "attempt": 0}
DEVICES = {"devices": ["GPU-0", "GPU-1"], "host": "node-1"}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "mlruns" / "studies" / "simulated"


def opened(folder):
    return Journal.open(folder, dump(STUDY))


def verdict(place, status="ok", **fields):
    point = POINTS[place]
    metrics = two_objectives(1.0 / (place + 1), 1.0) if status == "ok" else {}
    return make_record(
        point.id, trial_id=TRIAL.id, status=status, metrics=metrics, chosen=point.chosen, **fields
    )


def record(journal, place, status="ok", **fields):
    journal.append("record", verdict(place, status, **fields).to_json())


def window(journal, place, energy_j, *reasons):
    of = {**LEASE, "id": POINTS[place].id, "launch": 0, "stage": "full"}
    told = {"energy_j": energy_j, "reasons": list(reasons), "energy": asdict(ESTIMATED)}
    journal.append("window", {**of, **told})


def progress(folder, journal):
    before = journal.contents
    todo = plan(STUDY, done=before.accepted().keys())
    return Progress(STUDY, todo, before, folder, PlainView(lambda line: None))


def test_what_was_never_begun_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.yaml").write_text(dump(STUDY))
    for name, said in (("s.yaml", "nothing was measured yet, run: "), ("no.yaml", "no such study")):
        assert main(["status", name]) == 2
        told = capsys.readouterr()
        assert said in told.err
        assert told.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["s.yaml"]


def test_at_work_it_tells_who_has_it_and_what_is_under_way(folder):
    with opened(folder) as journal, progress(folder, journal) as told:
        told.event(TRIAL, {"kind": "trial", **DEVICES})
        journal.append("trial", {**LEASE, **DEVICES})
        window(journal, 0, 100.0)
        window(journal, 0, None, "counter_stuck: GPU-0")
        record(journal, 0)
        told.event(TRIAL, {"kind": "phase", "phase": "window", "point": POINTS[1].id})
        told._note._write("running")
        seen = look(folder)
    assert seen.state == "running"
    assert f"process {os.getpid()} on " in seen.driver
    assert seen.go_on is None
    [launch] = seen.now.under_way
    assert (launch.node, launch.gpus, launch.phase) == ("node-1", 2, "window")
    assert launch.point == "batch_size=4"
    assert 0.0 <= seen.age_s < 60.0
    assert launch.phase_s >= seen.age_s
    assert (seen.now.done, seen.now.asked, seen.now.unended) == (1, 3, 0)
    assert seen.now.energy_j == {"simulation": 100.0}
    assert seen.now.discards == {"counter_stuck": 1}
    assert seen.now.best[0].chosen == "batch_size=1"


def killed(folder, *places):
    """What a driver leaves that was killed with a lease under way."""
    with opened(folder) as journal:
        told = progress(folder, journal)
        told.event(TRIAL, {"kind": "trial", **DEVICES})
        told._note._write("running")
        journal.append("trial", {**LEASE, **DEVICES})
        for place in places:
            record(journal, place)


def test_after_a_kill_nobody_has_it_and_it_says_how_to_go_on(folder):
    killed(folder, 0)
    seen = look(folder)
    assert (seen.state, seen.driver) == ("interrupted", None)
    assert seen.go_on == f"python -m sweeper {folder}"
    assert (seen.now.under_way, seen.now.left_s, seen.now.unended) == ((), None, 1)
    text = status_text(str(folder), folder.parents[1], as_json=False)
    assert text.startswith("simulated was interrupted: nobody is measuring it; last sign of life")
    assert text.endswith(f"go on with: python -m sweeper {folder}")
    assert "0.00 GPU-hours without 1 lease of unknown end" in text
    assert "no launch is under way" in text


def test_the_next_driver_is_not_taken_for_the_last(folder):
    killed(folder)
    path = folder / note.FILE
    left = json.loads(path.read_text())
    path.write_text(json.dumps({**left, "driver": "process 1 on elsewhere"}))
    with opened(folder):
        seen = look(folder)
    assert (seen.state, seen.age_s, seen.now.under_way) == ("running", None, ())


def test_at_its_end_it_says_where_the_answers_are(folder):
    with opened(folder) as journal:
        for place in range(3):
            record(journal, place)
        with progress(folder, journal):
            pass
        assert look(folder).state == "finishing"
        journal.append("ended", {**LEASE, "gpu_seconds": 7200.0})
    seen = look(folder)
    assert (seen.state, seen.driver, seen.go_on) == ("ended", None, None)
    text = status_text(str(folder), folder.parents[1], as_json=False)
    assert text.splitlines()[:2] == ["simulated has ended", "simulated: 3 of 3 done"]
    assert "2.00 GPU-hours" in text
    assert text.endswith(f"answers: python -m sweeper best {folder}")
    # Without its note, the journal says the same.
    (folder / note.FILE).unlink()
    assert status_text(str(folder), folder.parents[1], as_json=False) == text


def test_failures_are_told_with_their_logs_and_can_be_measured_again(folder):
    with opened(folder) as journal:
        for attempt, reason in enumerate(["hang: no step", "died: signal 9\nmore"]):
            of = {**LEASE, "attempt": attempt}
            name = journal.attach(f"{attempt}.log.gz", b"x", role="engine_log", of=of)
            journal.append("death", {**of, "reason": reason})
        for place, status in ((0, "ok"), (1, "infeasible"), (2, "failed")):
            record(journal, place, status, reason="died: signal 9", attempt=1)
    seen = look(folder)
    assert (seen.state, seen.go_on) == ("ended", f"python -m sweeper {folder}")
    assert seen.now.deaths == {"hang": 1, "died": 1}
    assert [each.reason for each in seen.now.troubles] == ["hang: no step", "died: signal 9"]
    assert Path(seen.now.troubles[1].log).name == name
    assert Path(seen.now.troubles[1].log).read_bytes() == b"x"
    text = status_text(str(folder), folder.parents[1], as_json=False)
    assert f"log: {folder}/attachments/1.log.gz" in text.replace("\n", "")
    assert "1 failure; measure again with: python -m sweeper" in text


def test_points_that_the_study_no_longer_asks_for_do_not_count(folder):
    with opened(folder) as journal:
        record(journal, 0)
        journal.append("record", make_record("another", metrics=two_objectives(0.1, 0.1)).to_json())
    now = look(folder).now
    assert (now.done, now.asked) == (1, 3)
    assert [best.id for best in now.best] == [POINTS[0].id]


def test_as_json_it_is_one_object(folder):
    killed(folder, 0)
    found = json.loads(status_text(str(folder), folder.parents[1], as_json=True))
    assert (found["study"], found["state"], found["driver"]) == ("simulated", "interrupted", None)
    assert (found["asked"], found["counts"]["ok"]) == (3, 1)
    assert found["go_on"] == f"python -m sweeper {folder}"
    assert found["under_way"] == []


def test_a_driver_that_tells_nothing_is_wondered_at(folder):
    with opened(folder) as journal, progress(folder, journal):
        path = folder / note.FILE
        told = json.loads(path.read_text())
        path.write_text(json.dumps({**told, "written_at": "2026-01-01T00:00:00.000+00:00"}))
        text = status_text(str(folder), folder.parents[1], as_json=False)
    assert re.search(r"last sign of life [0-9,.]+ h ago \(is it still at work\?\)", text)


def test_a_damaged_journal_is_named(folder):
    killed(folder)
    with (folder / "journal.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(JournalError, match="line 4 is damaged"):
        look(folder)


def test_asking_keeps_no_driver_out_and_sees_every_one(folder):
    opened(folder).close()
    over, seen = threading.Event(), []

    def ask():
        while not over.wait(0.002):
            seen.append(holder(folder))

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    try:
        for _ in range(30):
            with opened(folder):
                assert f"process {os.getpid()} " in holder(folder)
    finally:
        over.set()
        for asker in askers:
            asker.join()
    assert holder(folder) is None
    assert len(seen) > 30
    assert holder(folder / "nowhere") is None


def test_two_drivers_still_keep_each_other_out(folder):
    with opened(folder), pytest.raises(JournalError, match=f"written by process {os.getpid()} on"):
        opened(folder)


def test_a_search_has_no_end_that_a_journal_knows(folder):
    search = replace(STUDY.search, kind="random")
    study = replace(STUDY, search=search)
    with Journal.open(folder, dump(study)) as journal:
        record(journal, 0)
    seen = look(folder)
    assert (seen.state, seen.now.more) == ("interrupted", True)
    assert "1 done, 0 under way" in status_text(str(folder), folder.parents[1], as_json=False)
