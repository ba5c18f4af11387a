import base64
import gzip
import http.client
import io
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import PlaceError
from sweeper.results.addresses import place_of
from sweeper.results.attachments import pack_log
from sweeper.results.entries import row_of
from sweeper.results.journal import Journal
from sweeper.results.power import pack_trace
from sweeper.results.tracking import Tracking, check, connect_mlflow
from tests.loopback import Quiet, free_port, web
from tests.records import SIMULATED, make_record, make_window

NAME = "a study/ü"
PATIENCE_S = 120
CONFIG = {
    "engine.kind": "simulated",
    "engine.tensor_parallel": 2,
    "engine.graphs": True,
    "engine.options": {"a b/c": {"x": 1.5}, "empty": {}},
    "model.id": "",
    "gpu.power_limit_w": None,
    "workload.trace": "x" * 7000,
    **{f"engine.env.V{number}": str(number) for number in range(150)},
}
TRACE = [(tick / 10, device, 100.0 + tick) for tick in range(80) for device in ("GPU-a", "GPU-b")]


def record(name="p", attempt=0, **fields):
    windows = (make_window(0, started_s=1.0, duration_s=2.0), make_window(1, started_s=4.0))
    return make_record(
        name,
        **{
            "stage": "full",
            "attempt": attempt,
            "trial_id": f"trial-{name}",
            "config": CONFIG,
            "chosen": {"engine.tensor_parallel": 2},
            "windows": windows,
            "energy": SIMULATED,
            "started_at": "2026-01-02T03:04:05.678+00:00",
            "ended_at": "2026-01-02T03:05:05.678+00:00",
            "load_s": 1.25,
            **fields,
        },
    )


def journal_record(journal, item):
    of = {"trial_id": item.trial_id, "attempt": item.attempt}
    journal.append("record", item.to_json())
    journal.attach(f"{item.trial_id}.power", pack_trace(TRACE), role="power_trace", of=of)
    journal.attach(f"{item.trial_id}.log.gz", pack_log(b"engine\n"), role="engine_log", of=of)


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


def track(journal, uri=None, **options):
    root = journal.folder.parent.parent
    return Tracking(uri, NAME, journal.folder, root, poll_s=0.05, first_retry_s=0.05, **options)


def brought_up(journal, uri=None, **wishes):
    with track(journal, uri) as tracking:
        for wish, value in wishes.items():
            getattr(tracking, wish)(value)
        assert tracking.finish(PATIENCE_S) == 0, tracking.trouble
    assert tracking.trouble is None
    return Store(tracking._place.uri)


class Store:
    """What is in MLflow, asked as a user would."""

    def __init__(self, uri):
        from mlflow import MlflowClient

        self.client = MlflowClient(uri)

    def runs(self, query=""):
        experiment = self.client.get_experiment_by_name(NAME)
        return list(self.client.search_runs([experiment.experiment_id], query))

    def parent(self):
        (parent,) = self.runs("tags.sweeper.role = 'study'")
        return parent

    def children(self, query=""):
        found = [run for run in self.runs(query) if run.data.tags["sweeper.role"] == "record"]
        by_key = {run.data.tags["sweeper.key"]: run for run in found}
        assert len(by_key) == len(found), "a record is there twice"
        return by_key

    def file(self, run, name):
        with tempfile.TemporaryDirectory() as scratch:
            path = self.client.download_artifacts(run.info.run_id, name, scratch)
            return Path(path).read_bytes()

    def files(self, run):
        return {item.path for item in self.client.list_artifacts(run.info.run_id)}


def until(condition, seconds=PATIENCE_S):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


# A study in SQLite


def is_whole(store, items):
    """Everything of these records is there, once."""
    children = store.children()
    parent = store.parent()
    assert len(children) == len(items)
    for tag, item in items.items():
        run = children[tag]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["status"] == item.status
        assert run.data.metrics == {**item.metrics, "load_s": item.load_s}
        assert len(run.data.params) == 158
        assert run.info.status == ("FAILED" if item.status == "failed" else "FINISHED")
        assert store.files(run) == {"record.json", "power.parquet", "engine.log.gz"}
        assert json.loads(store.file(run, "record.json")) == {
            "kind": "record",
            **json.loads(json.dumps(item.to_json())),
        }


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
    script = WRITER.replace("    print", "    assert 'mlflow' not in sys.modules\n    print")
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


# A tracking server


SERVER_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven more processes, which nothing here needs
}


class Server:
    """A real one, which can be killed and started again on the same port and database."""

    def __init__(self, root, tables):
        self.root = root
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        shutil.copy(tables, root / "server.db")
        self.process = None

    def start(self):
        arguments = ["server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        arguments += ["--backend-store-uri", f"sqlite:///{self.root / 'server.db'}"]
        arguments += ["--artifacts-destination", str(self.root / "artifacts")]
        with (self.root / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *arguments],
                stdout=log,
                stderr=log,
                cwd=self.root,
                env={**os.environ, **SERVER_SETTINGS},
                start_new_session=True,
            )
        until(self.answers)

    def answers(self):
        assert self.process.poll() is None, (self.root / "server.log").read_text()
        try:
            check(self.uri, self.root)
        except PlaceError:
            return False
        return True

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory, tables):
    server = Server(tmp_path_factory.mktemp("server"), tables)
    server.start()
    yield server
    server.kill()


def test_a_tracking_server_gets_everything_also_when_it_dies_in_the_middle(server, journal):
    items = {f"p{number}/0/full/0": record(f"p{number}") for number in range(6)}
    figures = {"front.png": b"\x89PNG"}
    with track(journal, server.uri) as tracking:
        for item in list(items.values())[:3]:
            journal_record(journal, item)
        until(lambda: tracking._mirror.complete == 3)
        server.kill()
        for item in list(items.values())[3:]:
            journal_record(journal, item)
        until(lambda: tracking.trouble is not None)
        tracking.figures(figures)
        tracking.front([("p4", 0, "full")])
        server.start()
        assert tracking.finish(PATIENCE_S) == 0, tracking.trouble
    store = Store(server.uri)
    is_whole(store, items)
    assert set(store.children("tags.front = 'true'")) == {"p4/0/full/0"}
    parent = store.parent()
    assert store.file(parent, "figures/front.png") == b"\x89PNG"
    assert parent.info.status == "FINISHED"
    assert not (journal.folder.parent.parent / "artifacts").exists()


def test_credentials_in_the_address_open_a_guarded_server_and_stay_secret(server, journal, caplog):
    expected = "Basic " + base64.b64encode(b"me:s3cr&t").decode()

    class Guard(Quiet):
        def pass_on(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.headers.get("Authorization") != expected:
                self.say(401)
                return
            with_server = http.client.HTTPConnection("127.0.0.1", server.port)
            with_server.request(self.command, self.path, body, dict(self.headers))
            answer = with_server.getresponse()
            kept = [item for item in answer.getheaders() if item[0].lower() == "content-type"]
            self.say(answer.status, answer.read(), kept)
            with_server.close()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on  # noqa: N815

    with web(Guard) as port:
        with pytest.raises(PlaceError, match="asks who is there"):
            check(f"http://me:wrong@127.0.0.1:{port}", journal.folder)
        uri = f"http://me:s3cr%26t@127.0.0.1:{port}"
        check(uri, journal.folder)
        journal_record(journal, record("guarded"))
        with track(journal, uri) as tracking:
            assert tracking.finish(PATIENCE_S) == 0, tracking.trouble
        assert tracking.public_uri == f"http://127.0.0.1:{port}"
    assert "guarded/0/full/0" in Store(server.uri).children()
    files = [path for path in journal.folder.rglob("*") if path.is_file()]
    assert all(b"s3cr" not in path.read_bytes() for path in files)
    assert "s3cr" not in caplog.text
