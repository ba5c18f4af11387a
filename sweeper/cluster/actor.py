"""The actor that a trial's lease lives in: it only supervises.

Each call of `step` is the driver renewing the lease, and says that everything told before is safe.
"""

import importlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune

from sweeper.spec import Trial

STEP_S = 2.0
"""How long a step waits for something to tell."""


class Supervised(Protocol):
    """What an actor asks of a lease (see `sweeper.trial.lease`)."""

    @property
    def finished(self) -> bool:
        """Whether every launch has ended and everything told is kept."""
        ...

    def start(self) -> None:
        """Begin."""
        ...

    def events(self, timeout_s: float) -> list[dict[str, Any]]:
        """What happened since the last call, at most `timeout_s` later."""
        ...

    def acknowledge(self) -> None:
        """What the last call told is kept."""
        ...

    def kill(self) -> None:
        """End everything; may be called twice."""
        ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """A trial and where it goes, as it travels to an actor.

    With `whole_node` the lease holds all of the node's GPUs and CPUs, whatever the trial needs.
    """

    trial: Trial = field(repr=False)
    study: str
    node_id: str
    host: str
    cpus: float
    gpus: int
    lease_class: str
    whole_node: bool = False

    @property
    def bundle(self) -> dict[str, float]:
        """What Ray is asked for, on one node."""
        return {"CPU": self.cpus, "GPU": self.gpus}


class LeaseActor(tune.Trainable):
    """One lease after another, each with the resources that its task names."""

    @classmethod
    def default_resource_request(cls, config: Mapping[str, Any]) -> tune.PlacementGroupFactory:
        """One bundle, so that it cannot span nodes, pinned to the node by its label."""
        task: Task = config["task"]
        return tune.PlacementGroupFactory(
            [task.bundle], bundle_label_selector=[{"ray.io/node-id": task.node_id}]
        )

    def setup(self, config: Mapping[str, Any]) -> None:
        """Take the first task; nothing starts before the first step."""
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        self._lease: Supervised | None = None
        self._scratch: Path | None = None
        self._task: Task = config["task"]

    def reset_config(self, new_config: Mapping[str, Any]) -> bool:
        """Take another task with the same resources."""
        self.cleanup()
        self._task = new_config["task"]
        return True

    def step(self) -> dict[str, Any]:
        """The events so far as one JSON string, after at most `STEP_S`."""
        if self._lease is None:
            self._lease = self._open(self._task)
            self._lease.start()
        else:
            self._lease.acknowledge()
        if self._lease.finished:
            self.cleanup()
            return {"events": "[]", "done": True}
        return {"events": json.dumps(self._lease.events(STEP_S)), "done": False}

    def cleanup(self) -> None:
        """End the lease and everything that it started."""
        if self._lease is not None:
            self._lease.kill()
            self._lease = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def get_auto_filled_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Tune's own, without the task, which need not travel back with every report."""
        filled: dict[str, Any] = super().get_auto_filled_metrics(*args, **kwargs)
        filled.pop("config", None)
        return filled

    def _open(self, task: Task) -> Supervised:
        module, _, name = task.lease_class.partition(":")
        lease_class = getattr(importlib.import_module(module), name)
        self._scratch = Path(self.logdir, "lease")
        self._scratch.mkdir(parents=True, exist_ok=True)
        devices = uuids([str(gpu) for gpu in ray.get_gpu_ids()]) if task.gpus else ()
        place = {
            "node_id": task.node_id,
            "host": task.host,
            "lease_cpus": task.cpus,
            "nice": os.nice(0),
            "exclusive_node": task.whole_node,
        }
        held = devices if task.whole_node else devices[: task.trial.gpus]
        opened: Supervised = lease_class(task.trial, held, task.study, self._scratch, place)
        return opened


def uuids(ids: Sequence[str]) -> tuple[str, ...]:
    """Ray's GPU ids in NVML's order, as UUIDs where NVML tells them.

    Ray lists them in the order it handed them out, by index or, where its node was started so, by
    UUID.
    """
    rows = _gpus_of_node()
    by_index = {str(row["index"]): str(row["uuid"]) for row in rows if {"index", "uuid"} <= {*row}}
    named = [by_index.get(gpu, gpu) for gpu in ids]
    order = {uuid: position for position, uuid in enumerate(by_index.values())}
    return tuple(sorted(named, key=lambda gpu: (order.get(gpu, len(order)), len(gpu), gpu)))


def _gpus_of_node() -> Sequence[Mapping[str, Any]]:
    try:
        from sweeper.meters.nvml import gpus_of_node
    except ImportError:
        return []
    return gpus_of_node()
