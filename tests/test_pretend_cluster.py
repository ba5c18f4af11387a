"""Whole studies by the real command on a pretend cluster: 2 nodes with 4 stand-in GPUs each."""

import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import Command, until
from studies import write

from sweeper.results.record import Record
from tests.nvml_standin import Gpu, Scenario, environment

pytestmark = [pytest.mark.ray, pytest.mark.nvml]
pytest_plugins = ("tests.nvml_standin.fixtures",)

NODES = [[f"GPU-{node}{index}" for index in range(4)] for node in "ab"]
CPUS = 8


def gpu(uuid: str, number: int) -> Gpu:
    """Power of its own, drifting and waving, behind a counter of its own phase."""
    return Gpu(
        uuid=uuid,
        pci=f"00000000:{number + 1:02X}:00.0",
        power_w=((0.0, 200.0 + 40.0 * number), (150.0, 260.0 + 40.0 * number)),
        linear=True,
        sine=(30.0, 0.3 + 0.05 * number, float(number)),
        counter_period_s=0.1,
        counter_phase_s=0.013 * number,
    )


class Pretended:
    """A cluster, the world its GPUs live in, and how to add a node to it."""

    def __init__(self, cluster: Any, world: Scenario, variables: Mapping[str, str]) -> None:
        self.cluster = cluster
        self.world = world
        self._variables = variables

    @property
    def address(self) -> str:
        return str(self.cluster.address)

    def add(self, gpus: Sequence[str]) -> Any:
        return self.cluster.add_node(**settings(gpus, self._variables))


def settings(gpus: Sequence[str], variables: Mapping[str, str]) -> dict[str, Any]:
    return {
        "num_cpus": CPUS,
        "num_gpus": len(gpus),
        "object_store_memory": 100 * 2**20,
        "include_dashboard": False,
        "env_vars": {**variables, "CUDA_VISIBLE_DEVICES": ",".join(gpus)},
    }


@pytest.fixture(scope="module")
def pretended(
    nvml_library: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pretended]:
    from ray.cluster_utils import Cluster

    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    uuids = [uuid for node in NODES for uuid in node]
    world = Scenario(gpus=tuple(gpu(uuid, number) for number, uuid in enumerate(uuids)))
    path = world.write(tmp_path_factory.mktemp("world") / "scenario.txt")
    found = environment(nvml_library, path, {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")})
    variables = {**found, "RAY_worker_niceness": "0"}
    cluster = Cluster(initialize_head=True, head_node_args=settings(NODES[0], variables))
    try:
        pretended = Pretended(cluster, world, variables)
        pretended.add(NODES[1])
        yield pretended
    finally:
        cluster.shutdown()


def test_energy_is_the_scenarios_on_whole_gpus_of_one_node(
    pretended: Pretended, tmp_path: Path
) -> None:
    study = write(tmp_path, name="widths", address=pretended.address, batch_sizes="[4]")
    command = Command(
        study,
        "axes={engine.tensor_parallel: [1, 2, 4]}",
        "meter=nvml",
        "measure.repeats=1",
        "measure.launches=2",
    )
    assert command.wait(120) == 0, command.err
    journal = command.journal
    assert sorted(record.gpus for record in journal.records) == [1, 1, 2, 2, 4, 4]
    print(command.out, command.err)
