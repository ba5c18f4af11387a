"""What a terminal shows at a study's end, and the answers afterwards."""

import json
from dataclasses import replace

import pytest

from sweeper.answers.best import answers
from sweeper.answers.summary import summary
from sweeper.answers.table import table
from sweeper.errors import JournalError, StudyError
from sweeper.results.contents import FILE, Contents
from sweeper.results.journal import Journal
from sweeper.results.metrics import is_energy
from sweeper.shelf import Shelved, open_study
from sweeper.spec import Settings, Study
from sweeper.study import dump
from sweeper.terminal import answers_text, last_words
from tests.records import make_record, make_window, two_objectives
from tests.studies import one_trial, simulated

STUDY = simulated(batch_sizes=(1, 4, 16))
POINT = one_trial(STUDY).launches[0].points[0]


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


def read_out(*studies, only_best=False, minimize=(), where=(), **fields):
    given = {"as_json": False, **fields}
    return answers_text(studies, only_best=only_best, minimize=minimize, where=where, **given)


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
        journal.append("record", make_record(POINT.id).to_json())
    for name in (tmp_path / "s.yaml", folder):
        found = open_study(str(name), tmp_path / "mlruns")
        assert found.study == STUDY
        assert [record.id for record in found.records] == [POINT.id]
    (folder / FILE).write_text("{}\n")
    with pytest.raises(JournalError, match=r"journal\.jsonl, line 1 is damaged"):
        open_study(str(folder), tmp_path / "mlruns")


HOT = "thermal_slowdown: GPU-0"


def hot_and_sound():
    """Of two points the one with less energy was too hot."""
    study, _ = measured()
    hot = make_window(energy_j=100.0)
    cool = {name: value for name, value in hot.metrics.items() if not is_energy(name)}
    records = [
        make_record(
            "hot",
            status="energy_invalid",
            reason=HOT,
            windows=[replace(hot, energy_j=None, reasons=(HOT,), metrics=cool)],
        ),
        make_record("sound", windows=[make_window(energy_j=300.0)]),
    ]
    contents = Contents(records=tuple(records))
    return Shelved(study=study, whole=contents, contents=contents)


def test_the_answer_with_discards_is_asked_for_and_says_so():
    shelf = hot_and_sound()
    text, _ = read_out(shelf)
    assert "best: sound" in text
    assert "windows without energy: 1 (1 thermal_slowdown)" in text
    assert "--with-discards includes 1, whose readings still tell joules" in text
    text, _ = read_out(shelf, discarded=True)
    assert text.startswith("WITH DISCARDED WINDOWS INCLUDED")
    assert "best: hot" in text
    assert "included here: 1, whose readings still tell joules" in text


def test_json_says_what_was_discarded_and_whether_it_counts():
    for discarded, best in ((False, "sound"), (True, "hot")):
        text, _ = read_out(hot_and_sound(), as_json=True, discarded=discarded)
        told = json.loads(text)
        assert told["with_discards"] is discarded
        codes = {"thermal_slowdown": 1}
        assert told["discarded"] == {"windows": 1, "usable": 1, "codes": codes}
        assert told["answers"][0]["best"]["id"] == best


def test_without_discards_nothing_is_said_of_them():
    text, _ = read_out(shelved())
    assert "discard" not in text
    assert "without energy" not in text
