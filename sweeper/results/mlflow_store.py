"""A study in MLflow: an experiment, a parent run, a child run per record.

The only file that imports mlflow.

Everything goes through `MlflowClient` with explicit run ids; what is there already is found by its
tags, so whoever comes back writes what is missing and nothing twice. Importing this costs seconds,
and the first contact with a SQLite file makes its tables: both belong into a thread.
"""

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Self

from mlflow import MlflowClient
from mlflow.entities import Experiment, Metric, Param, Run
from mlflow.exceptions import MlflowException

from sweeper.results.addresses import Place
from sweeper.results.entries import RefusedError, Row

PARENT = "mlflow.parentRunId"
KEY = "sweeper.key"
JOURNAL = "sweeper.journal"
DONE = "sweeper.done"
FRONT = "front"

_PAGE = 1000
_REFUSED = frozenset({400, 413, 415, 422})


@dataclass(kw_only=True)
class Kept:
    """A run of MLflow as far as we keep track of it: `done` maps what it has to digests."""

    run_id: str
    done: dict[str, str] = field(default_factory=dict)
    front: bool = False


class MlflowStore:
    """One study's runs in a store; made by `MlflowStore.connect`."""

    def __init__(
        self, client: MlflowClient, experiment_id: str, parent: Kept, children: dict[str, Kept]
    ) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self.parent = parent
        self.children = children

    @classmethod
    def connect(cls, place: Place, study: str, journal: str, folder: str) -> Self:
        """Find or make the experiment `study` and the parent run of `journal` in it.

        `folder` names the study's artifacts where the store keeps them in a folder of ours.
        """
        with _alone(place):
            client = MlflowClient(place.uri, registry_uri=place.uri)
            experiment_id = _experiment(client, place, study, folder)
        parent = _parent(client, experiment_id, study, journal)
        return cls(client, experiment_id, parent, _children(client, experiment_id, parent))

    def add(self, tag: str, row: Row) -> Kept:
        """A new child run, still running."""
        with _refusals():
            made = self._client.create_run(
                self._experiment_id,
                start_time=row.started_ms,
                tags={**row.tags, PARENT: self.parent.run_id},
                run_name=row.name,
            )
        self.children[tag] = Kept(run_id=made.info.run_id)
        return self.children[tag]

    def fill(self, run: Kept, row: Row) -> None:
        """Parameters and metrics of a child; what it has of them already stays."""
        with _refusals():
            self._client.log_batch(
                run.run_id,
                metrics=[Metric(key, v, row.ended_ms, 0) for key, v in row.metrics.items()],
                params=[Param(key, value) for key, value in row.params.items()],
                synchronous=True,
            )

    def upload(self, run: Kept, path: str, data: bytes) -> None:
        """An artifact; one of the same name is replaced."""
        target = PurePosixPath(path)
        folder = None if target.parent == PurePosixPath() else str(target.parent)
        with tempfile.TemporaryDirectory() as scratch, _refusals():
            file = Path(scratch) / target.name
            file.write_bytes(data)
            self._client.log_artifact(run.run_id, str(file), folder)

    def end(self, run: Kept, status: str, ended_ms: int | None = None) -> None:
        """Say that a run is over."""
        with _refusals():
            self._client.set_terminated(run.run_id, status, ended_ms)

    def tag(self, run: Kept, key: str, value: str | None) -> None:
        """Set a tag, or take it away."""
        with _refusals():
            if value is None:
                self._client.delete_tag(run.run_id, key)
            else:
                self._client.set_tag(run.run_id, key, value, synchronous=True)

    def set_front(self, run: Kept, front: bool) -> None:
        """Tag a child so that the filter `tags.front = 'true'` finds it, or take the tag away."""
        self.tag(run, FRONT, "true" if front else None)
        run.front = front

    def done(self, run: Kept, what: str, digest: str) -> None:
        """Note in the store that a run has something."""
        done = {**run.done, what: digest}
        self.tag(run, DONE, json.dumps(done))
        run.done = done


def _experiment(client: MlflowClient, place: Place, study: str, folder: str) -> str:
    found: Experiment | None = client.get_experiment_by_name(study)
    if found is None:
        location = None if place.artifacts is None else (place.artifacts / folder).as_uri()
        return str(client.create_experiment(study, artifact_location=location))
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def _parent(client: MlflowClient, experiment_id: str, study: str, journal: str) -> Kept:
    runs = client.search_runs([experiment_id], f"tags.{JOURNAL} = '{journal}'")
    if runs:
        parent = _known(min(runs, key=lambda run: (run.info.start_time, run.info.run_id)))
        client.update_run(parent.run_id, status="RUNNING")
        return parent
    tags = {JOURNAL: journal, "sweeper.role": "study", "mlflow.source.name": "sweeper"}
    made = client.create_run(experiment_id, tags=tags, run_name=study[:250])
    return _known(made)


def _children(client: MlflowClient, experiment_id: str, parent: Kept) -> dict[str, Kept]:
    """The child runs by their tag; of two with one tag, which a lost answer makes, one goes."""
    found: dict[str, Kept] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            f"tags.{PARENT} = '{parent.run_id}'",
            max_results=_PAGE,
            page_token=token,
        )
        for run in page:
            child, tag = _known(run), run.data.tags.get(KEY, run.info.run_id)
            if other := found.get(tag):
                child, less = sorted([child, other], key=lambda c: (-len(c.done), c.run_id))
                client.delete_run(less.run_id)
            found[tag] = child
        token = page.token
        if not token:
            return found


def _known(run: Run) -> Kept:
    tags = run.data.tags
    done = json.loads(tags.get(DONE, "{}"))
    return Kept(run_id=run.info.run_id, done=done, front=tags.get(FRONT) == "true")


@contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Two processes that make the tables of one SQLite file at once spoil each other's work."""
    if place.database is None:
        yield
        return
    place.database.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(f"{place.database}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        if _status(error) in _REFUSED:
            raise RefusedError(str(error)) from error
        raise


def _status(error: Exception) -> int | None:
    """The HTTP status that an error stands for; MLflow's SQLite speaks in the same ones."""
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code())
    status: int | None = getattr(getattr(error, "response", None), "status_code", None)
    return status
