"""The results as a table: read back, it tells what the answers tell, and nothing else."""

import json
import math
import re
from dataclasses import replace

import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.__main__ import main
from sweeper.answers.best import answers
from sweeper.answers.export import SUFFIXES, rows, save, table_bytes
from sweeper.answers.results import canonical
from sweeper.errors import PlaceError, StudyError
from sweeper.plan import expand
from sweeper.results.contents import FILE
from sweeper.results.journal import Journal
from sweeper.results.record import ACCEPTED
from sweeper.study import dump
from tests import pages
from tests.records import ESTIMATED, make_record, two_objectives

ENERGY = "energy_per_output_token_j"


def read(path):
    """The cells of every row by column."""
    return told_by(path.read_bytes(), path.suffix)


def exported(path, records, asked):
    return read(save(path, records, answers(records, asked)))


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"größe 1{request.param}"


@pytest.mark.parametrize("make", [pages.measured, pages.estimated, pages.simulated])
def test_the_table_read_back_is_what_the_answers_are(path, make):
    study, contents = make()
    found = answers(contents.standing(), study)
    told = {row["id"]: row for row in read(save(path, contents.standing(), found))}
    results = [(answer, result) for answer in found for result in answer.group.results]
    assert [each for each, row in told.items() if row["launches"]] == [r.id for _, r in results]
    for answer, result in results:
        row = told[result.id]
        for name, value in {**result.config, **result.metrics}.items():
            cell = row[name]
            assert (json.loads(cell) if isinstance(value, dict) else cell) == value, name
        assert {name for name in row if name in result.metrics} == result.metrics.keys()
        assert json.loads(row["condition"]) == result.condition
        assert row["energy_source"] == result.energy.source
        assert row["energy_measured"] is result.energy.measured
        assert row["energy_scope"] == result.energy.scope
        assert row["provenance"] == answer.group.provenance
        assert row["on_front"] is (result in answer.front)
        assert row["best"] is (result is answer.best)
        assert (row["launches"], row["gpus"]) == (result.launches, result.gpus)
        assert (row["convention"], row["stage"]) == (result.convention, result.stage)
        assert row["launch_command"] == result.launch_command


def test_a_point_without_a_result_says_what_became_of_it(path):
    study, contents = pages.measured()
    told = {row["id"]: row for row in exported(path, contents.standing(), study)}
    lost = told["tp1-b256"]
    assert (lost["status"], lost["launches_infeasible"], lost["launches"]) == ("infeasible", 3, 0)
    assert lost["reason"] == "out of memory: 81.2 GiB wanted, 79.6 GiB there"
    assert lost["engine.tensor_parallel"] == 1
    assert (lost[ENERGY], lost["energy_measured"], lost["provenance"]) == (None, None, None)
    assert (lost["on_front"], lost["best"]) == (False, False)
    assert told["tp8-b1"]["status"] == "failed"
    assert list(told)[-2:] == ["tp1-b256", "tp8-b1"]


def test_every_launch_of_a_result_is_counted(path):
    good = make_record("a", metrics=two_objectives(1.0, 2.0))
    lost = make_record("a", launch=1, status="failed", reason="died:\nsignal 9", energy=None)
    unmetered = make_record("a", launch=2, status="energy_invalid", reason="stuck", metrics={})
    [row] = exported(path, [good, lost, unmetered], pages.study())
    assert (row["status"], row["launches"]) == ("ok", 2)
    counts = [row[f"launches_{each}"] for each in ("ok", "failed", "energy_invalid", "infeasible")]
    assert counts == [1, 1, 1, 0]
    assert row["reason"] == "died:\nsignal 9; stuck"


def test_warnings_are_in_the_row(path):
    eight = {"engine.quantization": "fp8"}
    record = make_record(
        "a",
        config=eight,
        chosen=eight,
        metrics=two_objectives(1.0, 2.0),
        undersampled=("latency_p99_s", "ttft_p99_s"),
        energy=ESTIMATED,
    )
    [row] = exported(path, [record], pages.study())
    assert row["quality"] == "unchecked"
    assert row["undersampled"] == "latency_p99_s ttft_p99_s"
    assert (row["provenance"], row["energy_measured"]) == ("estimate", False)


def test_a_study_without_records_is_a_table_without_rows(tmp_path):
    assert exported(tmp_path / "a.parquet", [], pages.study()) == []


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([1.5, -0.0, 1e300, math.nan, math.inf]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5),
    st.lists(st.integers(0, 9), max_size=2),
    st.dictionaries(st.sampled_from("ab"), st.integers(0, 9), max_size=2),
)
POINTS = st.lists(
    st.tuples(
        st.sampled_from(sorted({*ACCEPTED, "failed"})),
        st.dictionaries(st.sampled_from(["engine.a", "engine.b", "meter"]), VALUES),
        st.dictionaries(
            st.sampled_from([ENERGY, "latency_mean_s", "power_mean_w"]),
            st.floats(allow_nan=True, allow_infinity=True),
        ),
        st.booleans(),
    ),
    max_size=6,
)


@pytest.mark.long
@given(POINTS, st.sampled_from(SUFFIXES))
def test_what_is_not_known_is_null_and_every_point_has_a_row(points, suffix):
    records = [
        make_record(
            f"p{index}",
            status=status,
            config=config,
            metrics=metrics,
            energy=ESTIMATED if metered else None,
        )
        for index, (status, config, metrics, metered) in enumerate(points)
    ]
    made = rows(records, answers(records, pages.study()))
    told = told_by(table_bytes(made, suffix), suffix)
    assert sorted(row["id"] for row in told) == sorted(record.id for record in records)
    by_id = {row["id"]: row for row in told}
    for record in records:
        row = by_id[record.id]
        for name in {ENERGY, "latency_mean_s", "power_mean_w"} & row.keys():
            value = record.metrics.get(name, math.nan)
            told_of = {"ok": True, "energy_invalid": name == "latency_mean_s"}
            known = told_of.get(record.status, False) and math.isfinite(value)
            assert row[name] == (value if known else None), name
        assert not any(isinstance(cell, float) and not math.isfinite(cell) for cell in row.values())
        assert row["launches_" + record.status] == 1
        if row["provenance"] is not None and record.energy is not None:
            assert (row["provenance"], row["energy_measured"]) == ("estimate", False)
        if suffix == ".parquet":
            for name, value in record.config.items():
                known = not isinstance(value, float) or math.isfinite(value)
                assert same(row[name], value) if known else row[name] is None, name


def told_by(data, suffix):
    if suffix == ".parquet":
        return pyarrow.parquet.read_table(pyarrow.BufferReader(data)).to_pylist()
    assert re.search(rb"(?im)(?:^|,)[+-]?(?:nan|inf|null|none)(?:,|$)", data) is None
    return from_csv(pyarrow.BufferReader(data))


def from_csv(source):
    """Rows in which an empty field is `None` and a quoted one is text."""
    options = pyarrow.csv.ConvertOptions(strings_can_be_null=True, quoted_strings_can_be_null=False)
    parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)
    return pyarrow.csv.read_csv(source, convert_options=options, parse_options=parsing).to_pylist()


def same(cell, value):
    """A setting as it is, or as JSON where the settings of a key are of different kinds."""
    return cell == value or (cell is not None and json.loads(cell) == value)


@pytest.mark.parametrize("name", ["results.xlsx", "results", ".csv", "results.CSV.gz"])
def test_another_kind_of_file_is_refused(tmp_path, name):
    with pytest.raises(StudyError, match=r"ends in \.csv or \.parquet"):
        save(tmp_path / name, [], [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path):
    old = save(tmp_path / "a.csv", [], []).read_bytes()
    with pytest.raises(PlaceError):
        save(tmp_path / "a.csv" / "b.csv", [], [])
    assert [each.name for each in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv").read_bytes() == old


def test_the_command_writes_the_table(tmp_path, monkeypatch, capsys):
    study, contents = pages.measured()
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "mlruns" / "studies" / study.name
    ids = {canonical(point.chosen): point.id for point in expand(study)[0]}
    with Journal.open(folder, dump(study)) as journal:
        for each in contents.records:
            if known := ids.get(canonical(each.chosen)):
                journal.append("record", replace(each, id=known).to_json())
    assert (folder / FILE).exists()
    for suffix in SUFFIXES:
        assert main(["export", str(folder), "--to", f"a b{suffix}"]) == 0
        assert capsys.readouterr().out.strip() == f"a b{suffix}"
        assert len(read(tmp_path / f"a b{suffix}")) == len(ids)
    for words, said in (
        ([], "--to"),
        (["--to", "x.xlsx"], r".csv or .parquet"),
        (["--to", f"{folder / FILE}/x.csv"], "cannot write"),
    ):
        assert main(["export", str(folder), *words]) == 2
        assert said in capsys.readouterr().err
    assert main(["export", "nowhere.yaml", "--to", "x.csv"]) == 2
