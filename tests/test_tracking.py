import gzip
import io
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.results.addresses import place_of
from sweeper.results.attachments import pack_log
from sweeper.results.entries import row_of
from sweeper.results.journal import Journal
from sweeper.results.tracking import connect_mlflow
from tests.tracked import (
    NAME,
    PATIENCE_S,
    TRACE,
    Store,
    brought_up,
    is_whole,
    journal_record,
    record,
    track,
    until,
)

pytestmark = pytest.mark.mlflow


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """A SQLite file with MLflow's tables in it, made once."""
    root = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        connect_mlflow(place_of(None, root), "x", "x", "x")
    return root / "mlflow.db"


@pytest.fixture
def root(tmp_path, tables):
    root = tmp_path / "mlruns ü #1"
    root.mkdir()
    shutil.copy(tables, root / "mlflow.db")
    return root


@pytest.fixture
def journal(root):
    with Journal.open(root / "studies" / "a-study", "name: a study\n") as journal:
        yield journal


# A study in SQLite


def test_a_study_is_an_experiment_with_a_child_run_per_record(journal):
    import pyarrow.parquet as pq

    journal_record(journal, record("p1"))
    failed = record("p2", status="failed", reason="died: signal 9")
    journal_record(journal, failed)
    store = brought_up(journal, figures={"front.png": b"\x89PNG", "a/b.html": b"<p>"})
    is_whole(store, {"p1/0/full/0": record("p1"), "p2/0/full/0": failed})

    run = store.children()["p1/0/full/0"]
    assert run.info.run_name == "tensor_parallel=2"
    assert run.info.start_time == 1767323045678
    assert run.info.end_time == 1767323105678
    tags = run.data.tags
    assert (tags["engine"], tags["measured"], tags["stage"]) == ("simulated", "false", "full")
    assert store.children()["p2/0/full/0"].data.tags["reason"] == "died: signal 9"
    params = run.data.params
    assert params["engine.tensor_parallel"] == "2"
    assert (params["engine.graphs"], params["gpu.power_limit_w"]) == ("true", "null")
    assert params["engine.options.a b_c.x"] == "1.5"
    assert params["engine.options.empty"] == "{}"
    assert (len(params["workload.trace"]), params["workload.trace"][-1]) == (6000, "…")
    assert params["model.id"] == ""
    assert gzip.decompress(store.file(run, "engine.log.gz")) == b"engine\n"
    table = pq.read_table(io.BytesIO(store.file(run, "power.parquet")))
    assert table.column_names == ["window", "t_s", "device", "watts"]
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        (0 if sample[0] <= 3.0 else 1, *sample)
        for sample in TRACE
        if 1.0 <= sample[0] <= 3.0 or sample[0] >= 4.0
    ]

    parent = store.parent()
    assert parent.info.status == "FINISHED"
    assert store.file(parent, "study.yaml") == b"name: a study\n"
    assert store.file(parent, "figures/front.png") == b"\x89PNG"
    assert len(store.files(parent)) == 2


def test_one_filter_finds_the_front_also_after_it_moved(journal):
    for name in ("p1", "p2", "p3"):
        journal_record(journal, record(name))
    with track(journal) as tracking:
        tracking.front([("p1", 0, "full"), ("p2", 0, "full"), ("gone", 0, "full")])
        until(lambda: tracking._store is not None and tracking._mirror.complete == 3)
        store = Store(tracking.public_uri)
        until(lambda: len(store.runs("tags.front = 'true'")) == 2)
        tracking.front([("p2", 0, "full"), ("p3", 0, "full")])
        assert tracking.finish(PATIENCE_S) == 0
    assert set(store.children("tags.front = 'true'")) == {"p2/0/full/0", "p3/0/full/0"}
    brought_up(journal)
    assert len(store.runs("tags.front = 'true'")) == 2
    brought_up(journal, front=[])
    assert store.runs("tags.front = 'true'") == []


def test_what_was_measured_again_is_superseded_and_the_new_one_is_on_the_front(journal):
    journal_record(journal, record("p1"))
    store = brought_up(journal, front=[("p1", 0, "full")])
    journal.supersede(("p1", 0, "full"), 0)
    journal_record(journal, record("p1"))
    journal_record(journal, record("p1", attempt=1))
    brought_up(journal, front=[("p1", 0, "full")])
    children = store.children()
    assert set(children) == {"p1/0/full/0", "p1/0/full/0#2", "p1/0/full/1"}
    assert set(store.children("tags.superseded = 'true'")) == {"p1/0/full/0"}
    assert set(store.children("tags.front = 'true'")) == {"p1/0/full/0#2"}


def test_files_that_come_before_and_after_their_record_find_it(journal):
    of = {"trial_id": "trial-p1", "attempt": 0}
    journal.attach("early", b"early", role="file", of=of)
    journal.append("record", record("p1").to_json())
    store = brought_up(journal)
    journal.attach("late", pack_log(b"late"), role="engine_log", of=of)
    journal.attach("other", b"other", of={**of, "attempt": 7})
    journal.attach("all.csv", b"all")
    brought_up(journal)
    (run,) = store.children().values()
    assert store.files(run) == {"record.json", "early", "engine.log.gz"}
    assert store.file(store.parent(), "all.csv") == b"all"


def test_one_study_file_measured_anew_elsewhere_is_another_run(journal, root):
    journal_record(journal, record("p1"))
    store = brought_up(journal)
    with Journal.open(root / "studies" / "again", "name: a study\n") as other:
        journal_record(other, record("p1"))
        brought_up(other)
    assert len(store.runs("tags.sweeper.role = 'study'")) == 2
    assert len(store.runs("tags.sweeper.key = 'p1/0/full/0'")) == 2


def test_an_experiment_deleted_by_hand_is_there_again(journal):
    journal_record(journal, record("p1"))
    store = brought_up(journal)
    store.client.delete_experiment(store.parent().info.experiment_id)
    brought_up(journal)
    is_whole(store, {"p1/0/full/0": record("p1")})


def test_a_run_that_a_lost_answer_made_twice_is_there_once(journal):
    journal_record(journal, record("p1"))
    store = brought_up(journal)
    (run,) = store.children().values()
    tags = {k: run.data.tags[k] for k in ("sweeper.key", "sweeper.role", "mlflow.parentRunId")}
    store.client.create_run(run.info.experiment_id, tags=tags)
    brought_up(journal)
    is_whole(store, {"p1/0/full/0": record("p1")})


# Stopped, away, refused


class Away(Exception):
    pass


@contextmanager
def failing(calls):
    """An MLflow that answers `calls` calls and then none."""
    import mlflow.tracking.client as module

    left = [calls]

    def counted(method):
        def call(*arguments, **options):
            if left[0] <= 0:
                raise Away("http://me:secret@host is away")
            left[0] -= 1
            return method(*arguments, **options)

        return call

    names = ("create_run", "log_batch", "log_artifact", "set_terminated", "set_tag", "search_runs")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            patch.setattr(module.MlflowClient, name, counted(getattr(module.MlflowClient, name)))
        yield left


def test_stopped_after_any_call_the_next_sitting_completes_without_doing_twice(root, tables):
    items = {f"p{number}/0/full/0": record(f"p{number}") for number in range(2)}
    connect_mlflow(place_of(None, root), "warm", "x", "x")
    calls, finished = 0, False
    while not finished:
        shutil.copy(tables, root / "mlflow.db")
        folder = root / "studies" / f"cut-{calls}"
        with Journal.open(folder, "name: a study\n") as journal:
            for item in items.values():
                journal_record(journal, item)
            with failing(calls), track(journal) as tracking:
                until(lambda t=tracking: t.trouble is not None or t._mirror.complete == 2)
                finished = tracking.trouble is None
                tracking.finish(0.0)
                tracking._thread.join()
            is_whole(brought_up(journal), items)
        calls += 3
    assert calls > 20


def test_mlflow_away_does_not_hold_up_a_study_and_is_brought_up_later(journal, caplog):
    asked = []

    def away(*arguments):
        asked.append(arguments)
        if len(asked) < 4:
            raise Away("http://me:secret@host is away\nand more")
        return connect_mlflow(*arguments)

    with track(journal, connect=away) as tracking:
        journal_record(journal, record("p1"))
        until(lambda: len(asked) >= 2)
        assert tracking.trouble == "Away: http://host is away"
        assert tracking.finish(PATIENCE_S) == 0
        assert tracking.trouble is None
    assert "secret" not in caplog.text
    assert caplog.text.count("is away") == 2
    is_whole(Store(tracking.public_uri), {"p1/0/full/0": record("p1")})


def test_at_the_end_it_says_how_many_records_are_behind(journal):
    def away(*arguments):
        raise Away("away")

    journal_record(journal, record("p1"))
    journal_record(journal, record("p2"))
    with track(journal, connect=away) as tracking:
        assert tracking.finish(0.2) == 2
        assert tracking.trouble == "Away: away"
        tracking._thread.join(PATIENCE_S)
        assert not tracking._thread.is_alive()


def test_leaving_without_finish_says_how_the_study_ended(journal):
    journal_record(journal, record("p1"))
    brought_up(journal)

    def fails():
        with track(journal) as tracking:
            until(lambda: tracking._store is not None)
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    tracking = track(journal)
    assert Store(tracking.public_uri).parent().info.status == "FAILED"
    with track(journal) as tracking:
        tracking.finish(PATIENCE_S, "KILLED")
    assert Store(tracking.public_uri).parent().info.status == "KILLED"


def test_what_mlflow_refuses_keeps_nothing_else_out(journal):
    odd = record("p1", metrics={"what?*": 1.0})
    journal_record(journal, odd)
    journal_record(journal, record("p2"))
    of = {"trial_id": "trial-p2", "attempt": 0}
    journal.attach("gone", b"x", of=of)
    (journal.folder / "attachments" / "gone").unlink()
    with track(journal) as tracking:
        assert tracking.finish(PATIENCE_S) == 2
        assert "record of p1/0/full/0" in tracking.trouble
    children = Store(tracking.public_uri).children()
    assert children["p2/0/full/0"].info.status == "FINISHED"
    assert Store(tracking.public_uri).parent().info.status == "FINISHED"


def test_what_a_store_chokes_on_goes_last(journal):
    journal_record(journal, record("p1"))
    journal_record(journal, record("p2"))

    class Choking:
        def __init__(self, store):
            self._store = store

        def __getattr__(self, name):
            return getattr(self._store, name)

        def add(self, tag, row):
            if tag.startswith("p1"):
                raise Away(tag)
            return self._store.add(tag, row)

    with track(journal, connect=lambda *place: Choking(connect_mlflow(*place))) as tracking:
        until(
            lambda: (
                tracking._mirror._ledger.entries and tracking._mirror._ledger.entries[0].failures
            )
        )
        store = Store(tracking.public_uri)
        until(lambda: "p2/0/full/0" in store.children())
        tracking.finish(0.5)
    assert set(store.children()) == {"p2/0/full/0"}


WRITER = """
import sys
from pathlib import Path
from sweeper.results.tracking import Tracking
folder = Path(sys.argv[1])
with Tracking(None, sys.argv[2], folder, folder.parent.parent, poll_s=0.05) as tracking:
    print(tracking.finish(600), flush=True)
"""


@pytest.mark.slow
def test_killed_in_the_middle_the_rest_is_written_by_the_next(journal, root):
    items = {f"p{number}/0/full/0": record(f"p{number}") for number in range(30)}
    for item in items.values():
        journal_record(journal, item)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(journal.folder), NAME], stdout=subprocess.DEVNULL
    )

    def written():
        with sqlite3.connect(root / "mlflow.db") as database:
            return database.execute("select count(*) from runs").fetchone()[0]

    try:
        before = written()
        until(lambda: written() >= before + 6)
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert written() < before + 31
    is_whole(brought_up(journal), items)


def test_mlflow_is_imported_by_the_thread_and_says_nothing(journal):
    journal_record(journal, record("p1"))
    script = WRITER.replace("with ", "assert 'mlflow' not in sys.modules\nwith ", 1)
    told = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(journal.folder), NAME],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (told.stdout, told.stderr) == ("0\n", "")


# Rows


def test_a_row_leaves_out_what_is_not_known():
    row = row_of(record(energy=None, load_s=None, metrics={"a_s": 1}, chosen={}), "k")
    assert row.metrics == {"a_s": 1}
    assert {"measured", "energy_source", "reason"} & row.tags.keys() == set()
    assert row.name == "p"
    assert row_of(record(started_at="1970-01-01T00:00:01"), "k").started_ms == 1000


@given(st.text(min_size=1, max_size=400))
def test_any_key_becomes_one_that_mlflow_takes(key):
    from mlflow.utils.validation import _validate_param

    (kept,) = row_of(replace(record(), config={key: 1}), "k").params
    _validate_param(kept, "1")
