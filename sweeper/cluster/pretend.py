"""A cluster that is not there: raylets of this machine with pretend GPUs, to rehearse a study on.

Every node of the pool is a raylet of its own, told to offer its GPUs; a device's name says its
type, as the simulated engine reads it. Ray's note of a running cluster goes into a folder of this
cluster's own, or the next study on this machine would take it for a real one.
"""

import os
import shutil
import tempfile
from collections.abc import Sequence

import ray
from ray.cluster_utils import Cluster

from sweeper.cluster.session import DRIVER_ENVIRONMENT, START_ENVIRONMENT, Session
from sweeper.errors import PlaceError
from sweeper.forecast import PoolNode
from sweeper.spec import ResourcesSpec
from sweeper.trial.guardian import Guardian

TYPE_LABEL = "ray.io/accelerator-type"
OBJECT_STORE_BYTES = 80 * 2**20
"""Ray's least is 75 MiB; reports are small."""
NODE_CPUS = 1
"""Of each node, shared out among its trials: Ray starts as many idle workers in advance."""
TEMPORARY = "RAY_TMPDIR"


def rehearse(pool: Sequence[PoolNode], resources: ResourcesSpec) -> Session:
    """Start the nodes of `pool` here, and list those that a study may use.

    Raises:
        PlaceError: Ray does not start here, or runs in this process already.
    """
    if ray.is_initialized():
        raise PlaceError("a rehearsal starts its own cluster; this process has joined one already")
    os.environ.update(DRIVER_ENVIRONMENT)
    before = dict(os.environ)
    # Short, as sockets live in it.
    folder = tempfile.mkdtemp(prefix="sweeper-ray-")
    guardian = Guardian()
    guardian.start()
    os.environ.update(guardian.environment(START_ENVIRONMENT))
    os.environ[TEMPORARY] = folder
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    started: list[Cluster] = []

    def end() -> None:
        os.environ[TEMPORARY] = folder
        try:
            for cluster in started:
                cluster.shutdown()
        finally:
            guardian.release()
            shutil.rmtree(folder, ignore_errors=True)
            os.environ.pop(TEMPORARY)
            os.environ.update({name: before[name] for name in (TEMPORARY,) if name in before})

    try:
        cluster = Cluster()
        started.append(cluster)
        for number, node in enumerate(pool):
            cluster.add_node(wait=False, **_arguments(number, node))
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        session = Session(resources, guardian, end=end)
        session.choose()
    except BaseException as error:
        ray.shutdown()
        end()
        if isinstance(error, Exception) and not isinstance(error, PlaceError):
            raise PlaceError(f"the pretend cluster does not start here: {error}") from error
        raise
    finally:
        os.environ.clear()
        os.environ.update(before)
    guardian.look()
    return session


def _arguments(number: int, node: PoolNode) -> dict[str, object]:
    """How Ray is told of a node: GPUs by name, their type as a label."""
    names = [f"{node.gpu.name}/node-{number}-gpu-{index}" for index in range(node.gpus)]
    return {
        "num_cpus": NODE_CPUS,
        "num_gpus": node.gpus,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
        "labels": {TYPE_LABEL: node.gpu.name},
        "env_vars": {"CUDA_VISIBLE_DEVICES": ",".join(names)},
    }
