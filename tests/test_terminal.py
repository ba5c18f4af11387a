"""What a terminal shows: progress while a study runs, its last words, the answers afterwards."""

import base64
import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.answers.best import answers
from sweeper.answers.summary import summary
from sweeper.answers.table import table
from sweeper.cluster.progress import Progress
from sweeper.errors import JournalError, StudyError
from sweeper.keeper import Keeper
from sweeper.plan import plan
from sweeper.results.contents import FILE, Contents, read
from sweeper.results.journal import Journal
from sweeper.shelf import Shelved, open_study
from sweeper.spec import Settings, Study
from sweeper.study import dump
from sweeper.terminal import answers_text, last_words
from tests.records import ESTIMATED, MEASURED, SIMULATED, make_record, make_window, two_objectives
from tests.searches import Listed
from tests.studies import one_trial, simulated

STUDY = simulated(batch_sizes=(1, 4, 16))
TRIAL = one_trial(STUDY)
FOLDER = Path("mlruns/studies/simulated")


class Told:
    """A progress, what it said, and the clock it reads."""

    def __init__(self, study=STUDY, done=(), folder=FOLDER):
        self.now_s = 0.0
        self.lines = []
        before = Contents(records=tuple(done))
        left = plan(study, done=before.accepted().keys())
        self.progress = Progress(
            study, left, before, folder, self.lines.append, clock=lambda: self.now_s
        )

    def event(self, kind, trial=TRIAL, **fields):
        self.progress.event(trial, {"kind": kind, **fields})

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


def test_it_begins_with_what_there_is_to_do():
    told = Told()
    told.progress.begin()
    assert told.last == "simulated: 3 points; 3 to measure in 1 launch"
    again = Told(done=[verdict(0)])
    again.progress.begin()
    assert again.last == "simulated: 3 points, 1 measured before; 2 to measure in 1 launch"


def test_a_verdict_counts_and_says_what_it_cost_what_is_left_and_the_best():
    told = Told()
    told.event("trial", devices=["GPU-0", "GPU-1"])
    told.event("phase", phase="load")
    assert told.last == f"{TRIAL.id}: loading on 2 GPUs"
    told.event("window", energy_j=3000.0)
    told.event("window", energy_j=None)
    told.now_s = 1800.0
    told.progress.record(verdict(0))
    assert told.lines[-2].strip() == "[1/3] batch_size=1: ok 500 mJ/token, 200 ms"
    assert told.last == (
        "1 of 3 done, 0 failed, 0 infeasible; 1.00 GPU-hours, 3.00 kJ; about 60 min left; "
        "best so far batch_size=1: 500 mJ/token"
    )
    told.event("window", energy_j=1000.0)
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
    told.event("window", energy_j=3000.0)
    told.progress.record(verdict(0, energy=energy))
    assert f"500 mJ/token {said}, 200 ms" in told.lines[-2]
    assert f"3.00 kJ {said}" in told.last
    assert told.last.endswith(f"best so far batch_size=1: 500 mJ/token {said}")


def test_joules_that_nobody_knows_are_not_zero():
    told = Told()
    told.event("window", energy_j=None)
    reason = "counter_reset: GPU-0"
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
    told.progress._say = lambda line: seen.append((line, len(read(tmp_path / FILE).records)))
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


def measured(name="a_study", **fields):
    study = Study(name=name, settings=Settings(), **fields)
    records = [
        make_record(
            f"{name}-{size}",
            study=name,
            metrics=two_objectives(1 / size, 0.1 * size),
            chosen={"workload.batch_size": size},
        )
        for size in (1, 4)
    ]
    return study, records


def shelved(name="a_study", **fields):
    study, records = measured(name, **fields)
    contents = Contents(records=tuple(records))
    return Shelved(study=study, whole=contents, contents=contents)


def read_out(*studies, only_best=False, minimize=(), where=(), as_json=False):
    return answers_text(
        studies, only_best=only_best, minimize=minimize, where=where, as_json=as_json
    )


def test_best_shows_one_row_and_front_all():
    text, unmet = read_out(shelved())
    assert "a_study-1" in text
    assert not unmet
    text, _ = read_out(shelved(), only_best=True)
    assert "best: a_study-4" in text
    assert "a_study-1" not in text


def test_what_is_asked_on_the_command_line_changes_the_answer():
    _, unmet = read_out(shelved(), where=["latency_mean_s<=0.01"])
    assert unmet
    limited = shelved(limits={"latency_mean_s": 9.0})
    text, _ = read_out(limited, only_best=True, minimize=["latency_mean_s"])
    assert "best: a_study-1" in text
    with pytest.raises(StudyError, match="--minimize latency: no such metric; did you mean"):
        read_out(shelved(), minimize=["latency"])


def test_several_studies_stand_on_one_front():
    text, _ = read_out(shelved(), shelved("b_study"), as_json=True)
    found = json.loads(text)
    assert found["study"] == "a_study + b_study"
    ids = {entry["id"] for entry in found["answers"][0]["front"]}
    assert ids == {"a_study-1", "a_study-4", "b_study-1", "b_study-4"}


def test_a_script_is_not_printed_but_where_to_get_it():
    study, records = measured("ä study")
    script = "python - <<'END'\nimport torch\nEND"
    records = [replace(record, launch_command=script) for record in records]
    text = table(study, records, answers(records, study))
    assert "import torch" not in text
    assert "python -m sweeper show 'mlruns/studies/ä study' ä study-4" in text
    # On a common front, the folder is that of the study that has the best.
    both = replace(study, name="ä study + other")
    assert "show 'mlruns/studies/ä study' " in table(both, records, answers(records, both))


@pytest.mark.parametrize(
    ("uri", "behind", "said"),
    [
        ("sqlite:///mlruns/mlflow.db", 0, "mlflow ui --backend-store-uri sqlite:///"),
        ("http://host:5000", 2, "2 records behind; the same command brings it up to date"),
    ],
)
def test_last_words_say_where_everything_is(uri, behind, said, tmp_path):
    from sweeper.driver import Outcome

    study, records = measured()
    found = answers(records, study)
    outcome = Outcome(
        study=study,
        folder=tmp_path,
        records=tuple(records),
        answers=found,
        summary=summary(
            "a", records, found, points=2, gpu_seconds=60.0, wall_seconds=1.0, tracking_uri=uri
        ),
        behind=behind,
        interrupted=False,
        course=None,
    )
    text = last_words(outcome)
    assert f"records  {tmp_path}" in text
    assert said in text
    assert uri in text


def test_a_study_is_found_by_its_file_and_by_its_folder(tmp_path):
    (tmp_path / "s.yaml").write_text(dump(STUDY))
    folder = tmp_path / "mlruns" / "studies" / STUDY.name
    with pytest.raises(
        StudyError, match=r"nothing was measured yet, run: python -m sweeper .*s\.y"
    ):
        open_study(str(tmp_path / "s.yaml"), tmp_path / "mlruns")
    with Journal.open(folder, dump(STUDY)) as journal:
        journal.append("record", verdict(0).to_json())
    for name in (tmp_path / "s.yaml", folder):
        found = open_study(str(name), tmp_path / "mlruns")
        assert found.study == STUDY
        assert [record.id for record in found.records] == [TRIAL.launches[0].points[0].id]
    (folder / FILE).write_text("{}\n")
    with pytest.raises(JournalError, match=r"journal\.jsonl, line 1 is damaged"):
        open_study(str(folder), tmp_path / "mlruns")
