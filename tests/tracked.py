"""Studies for tests of MLflow: journals, and what is in the store afterwards."""

import json
import tempfile
import time
from pathlib import Path

from sweeper.results.attachments import pack_log
from sweeper.results.power import pack_trace
from sweeper.results.tracking import Tracking
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
