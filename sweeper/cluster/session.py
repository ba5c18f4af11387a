"""A Ray cluster joined or started, and its nodes.

Where Ray is started here, its workers run at normal priority and a guardian ends all of its
processes with the driver; where a cluster is joined, nothing of it is ours.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import ray
from ray._private.state import state
from ray._private.utils import read_ray_address
from ray.core.generated import gcs_pb2

import sweeper
from sweeper.cluster.asking import ask, told_by
from sweeper.cluster.pool import Node, Room
from sweeper.cluster.preflight import faults
from sweeper.cluster.probe import differences, examine, look
from sweeper.errors import PlaceError
from sweeper.spec import ClusterSpec, ResourcesSpec, Settings
from sweeper.trial.guardian import Guardian

PROBE_LIMIT_S = 120.0
CONNECT_LIMIT_S = 5.0
PREFLIGHT_LIMIT_S = 600.0
"""Engines are imported, from slow disks too, and a hub is asked for every model."""
OBJECT_STORE_BYTES = 256 * 2**20
"""Reports are small; Ray's default would take a third of the machine's memory."""

DRIVER_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # CPU-only tasks see the devices that their node was given, which the probe reports.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
START_ENVIRONMENT = {
    # Ray would run its workers, and the engines they start, at nice 15.
    "RAY_worker_niceness": "0",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}


def connect(cluster: ClusterSpec, resources: ResourcesSpec) -> "Session":
    """Join the cluster that a study names, or start Ray here, and list what a study may use.

    `auto` joins the cluster of `RAY_ADDRESS` or the one running on this machine, and starts Ray
    where there is neither; `local` starts it; anything else is an address. Ray takes over SIGTERM:
    handlers are to be set after this.

    Raises:
        PlaceError: nothing answers there, or no node is of use to the study.
    """
    session = reach(cluster, resources)
    try:
        session.choose()
    except BaseException:
        session.close()
        raise
    return session


def reach(cluster: ClusterSpec, resources: ResourcesSpec) -> "Session":
    """As `connect`, without a choice of nodes: whatever is there may be asked.

    Raises:
        PlaceError: nothing answers there.
    """
    address = _address(cluster.address)
    guardian = None
    if not ray.is_initialized():
        if address is None:
            guardian = _start()
        else:
            _join(address)
    return Session(resources, guardian, address)


class Session:
    """A connection to Ray. `nodes` are those that a study may use, as they were when connecting."""

    nodes: tuple[Node, ...] = ()

    def __init__(
        self,
        resources: ResourcesSpec,
        guardian: Guardian | None,
        address: str | None = None,
        end: Callable[[], None] | None = None,
    ) -> None:
        """`guardian` is of a cluster started here; `end` ends what Ray's own shutdown leaves."""
        self.resources = resources
        self.address = address
        """Of the cluster that was joined; `None` where Ray was started here."""
        self._guardian = guardian
        self._end = end
        self._seen: list[dict[str, Any]] | None = None

    @property
    def started(self) -> bool:
        """Whether Ray was started here and ends with us."""
        return self._guardian is not None

    @property
    def devices(self) -> int:
        """How many devices a study may hold at once."""
        total = sum(len(node.devices) for node in self.nodes)
        return min(total, self.resources.max_gpus or total)

    def choose(self) -> None:
        """List the nodes that the study may use.

        Raises:
            PlaceError: there is none.
        """
        self.nodes = _chosen(_listed(self.free()), self.resources)

    def living(self) -> tuple[Node, ...]:
        """The nodes that live now; those known before keep what was known of them."""
        known = {node.id: node for node in self.nodes}
        listed = _wanted(_listed(self.free()), self.resources)
        gpus = any(node.gpus for node in self.nodes)
        return tuple(known.get(node.id, node) for node in listed if bool(node.gpus) == gpus)

    def free(self) -> dict[str, Room]:
        """What other people leave to us on every living node, what we hold included."""
        ours = _ours()
        totals = state.total_resources_per_node()
        found = {}
        for node_id, left in state.available_resources_per_node().items():
            held = ours.get(node_id, Room(0, 0))
            equipped = totals.get(node_id, {}).get("GPU", 0.0) > 0
            devices = left.get("GPU", 0.0) + held.devices if equipped else 1
            found[node_id] = Room(devices, left.get("CPU", 0.0) + held.cpus)
        return found

    def probe(self) -> list[dict[str, Any]]:
        """What each node says of itself (see `probe.look`), asked once.

        Raises:
            PlaceError: a node does not answer, or the nodes differ in their versions.
        """
        if self._seen is None:
            told = ask(look, dict.fromkeys(self.nodes, ()), PROBE_LIMIT_S)
            seen = [{"node_id": node.id, **answer} for node, answer in told]
            self._seen = sorted(seen, key=lambda node: (node["host"], node["node_id"]))
            if unequal := differences(self._seen):
                raise PlaceError("the nodes of the cluster differ: " + "; ".join(unequal))
        return self._seen

    def environment(self) -> dict[str, Any]:
        """What all nodes have in common: versions, GPU drivers and models."""
        seen = self.probe()
        return {
            "versions": dict(seen[0]["versions"]) if seen else {},
            "drivers": sorted({node["driver"] for node in seen if node["driver"]}),
            "gpu_models": sorted({name for node in seen for name in node["gpus"]}),
        }

    def examine(self) -> list[dict[str, Any]]:
        """What every living node says of itself at length (see `probe.examine`), chosen or not.

        Beside it stand `node_id`, `gpu_type` and `offered`, the CPUs and GPUs that Ray has there.
        A node that cannot be asked has a `silence`, the reason, in place of the rest.
        """
        nodes = _listed({})
        told = told_by(examine, {node: (node.gpus,) for node in nodes}, PROBE_LIMIT_S)
        return [
            {
                "host": node.host,
                "node_id": node.id,
                "gpu_type": node.gpu_type,
                "offered": {"cpus": node.cpus, "gpus": node.gpus},
                **({"silence": str(answer)} if isinstance(answer, PlaceError) else answer),
            }
            for node, answer in told
        ]

    def preflight(self, asked: Sequence[Settings]) -> list[str]:
        """Why nodes cannot launch such settings: every reason once, with the hosts it is true of.

        Each node is asked for what is narrow enough for it, before any of its GPUs is held.

        Raises:
            PlaceError: a node does not answer.
        """
        fitting = {
            node: ([each for each in asked if each.engine.gpus <= len(node.devices)],)
            for node in self.nodes
        }
        hosts: dict[str, list[str]] = {}
        for node, said in ask(faults, fitting, PREFLIGHT_LIMIT_S):
            for reason in said:
                hosts.setdefault(reason, []).append(node.host)
        if len(self.nodes) == 1:
            return list(hosts)
        return [f"{reason} (on {', '.join(sorted(on))})" for reason, on in hosts.items()]

    def close(self) -> None:
        """Leave the cluster; where it was started here, nothing of it is left."""
        ray.shutdown()
        if self._end is not None:
            self._end()
            self._end = None
        if self._guardian is not None:
            self._guardian.release()
            self._guardian = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _address(asked: str) -> str | None:
    """The address to join; `None` to start Ray here."""
    if asked == "auto":
        asked = os.environ.get("RAY_ADDRESS") or _running() or "local"
    if asked.startswith("ray://"):
        raise PlaceError(
            f"cluster.address: {asked} is a Ray Client address; give the cluster's own, host:6379, "
            "from one of its nodes, or use `ray job submit`"
        )
    return None if asked == "local" else asked


def _running() -> str | None:
    """The cluster that `ray start` left a note of on this machine, if it answers."""
    address = read_ray_address(None)
    return str(address) if address and _silence(str(address)) is None else None


def _silence(address: str) -> str | None:
    """Why nothing can be said to `host:port`; `None` where somebody listens."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        return "not of the form host:port"
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_LIMIT_S).close()
    except (OSError, OverflowError) as error:
        return str(error)
    return None


def _start() -> Guardian:
    os.environ.update(DRIVER_ENVIRONMENT)
    guardian = Guardian()
    guardian.start()
    before = dict(os.environ)
    os.environ.update(guardian.environment(START_ENVIRONMENT))
    # A folder of compiled imports is worth seconds at the start of every worker.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=OBJECT_STORE_BYTES,
        )
    except BaseException as error:
        ray.shutdown()
        guardian.release()
        if isinstance(error, Exception):
            raise PlaceError(f"cluster: Ray does not start here: {error}") from error
        raise
    finally:
        os.environ.clear()
        os.environ.update(before)
    guardian.look()
    return guardian


def _join(address: str) -> None:
    if (why := _silence(address)) is not None:
        # Ray itself goes on trying for a quarter of an hour and says nothing.
        raise PlaceError(
            f"cluster.address: nothing answers at {address} ({why}): give the host:port that "
            "`ray start --head` told, or local to start Ray here"
        )
    os.environ.update(DRIVER_ENVIRONMENT)
    package = str(Path(sweeper.__file__).parent)
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"py_modules": [package]},
        )
    except Exception as error:
        ray.shutdown()
        said = str(error).strip().splitlines()
        raise PlaceError(
            f"cluster.address: {address} cannot be joined: {said[0] if said else error!r}; "
            "is it running, of this version of Ray and Python, with this RAY_AUTH_TOKEN?"
        ) from error


def _listed(free: Mapping[str, Room]) -> list[Node]:
    """Every living node that has a device to offer: GPUs, or where nobody has any, itself."""
    nodes = []
    for entry in ray.nodes():
        if not entry["Alive"]:
            continue
        total = entry["Resources"]
        gpus = int(total.get("GPU", 0))
        left = free.get(entry["NodeID"])
        cpus = float(int(total.get("CPU", 0.0) if left is None else left.cpus))
        if gpus or cpus:
            nodes.append(
                Node(
                    id=entry["NodeID"],
                    host=entry["NodeManagerHostname"],
                    devices=tuple(str(index) for index in range(gpus)) if gpus else ("cpu",),
                    gpus=gpus,
                    cpus=cpus,
                    gpu_type=entry["Labels"].get("ray.io/accelerator-type"),
                )
            )
    return nodes


def _wanted(nodes: Sequence[Node], resources: ResourcesSpec) -> list[Node]:
    asked = resources.accelerator
    if asked is None:
        return list(nodes)
    return [node for node in nodes if (node.gpu_type or "").lower() == asked.lower()]


def _chosen(nodes: Sequence[Node], resources: ResourcesSpec) -> tuple[Node, ...]:
    """The nodes a study may use: those with GPUs where there are any, all of one type."""
    equipped = [node for node in nodes if node.gpus] or list(nodes)
    if not equipped:
        raise PlaceError("cluster: no node has a free CPU or a GPU")
    types = sorted({node.gpu_type for node in equipped if node.gpu_type})
    chosen = _wanted(equipped, resources)
    if not chosen:
        raise PlaceError(
            f"resources.accelerator: no node has {resources.accelerator}; "
            f"there is {', '.join(types) or 'no known GPU'}"
        )
    if resources.accelerator is None and len(types) > 1:
        raise PlaceError(
            f"the cluster has several types of GPU, {', '.join(types)}: "
            "name the one to measure with resources.accelerator"
        )
    return tuple(sorted(chosen, key=lambda node: (node.host, node.id)))


def _ours() -> dict[str, Room]:
    """What the placement groups of this driver hold, node by node."""
    job = ray.get_runtime_context().get_job_id()
    held: dict[str, Room] = {}
    for row in state._connect_and_get_accessor().get_placement_group_table():
        group = gcs_pb2.PlacementGroupTableData.FromString(row)
        removed = group.state == gcs_pb2.PlacementGroupTableData.REMOVED
        if removed or group.creator_job_id.hex() != job:
            continue
        for bundle in group.bundles:
            resources = dict(bundle.unit_resources)
            before = held.get(bundle.node_id.hex(), Room(0, 0))
            held[bundle.node_id.hex()] = Room(
                before.devices + resources.get("GPU", 0.0),
                before.cpus + resources.get("CPU", 0.0),
            )
    return held
