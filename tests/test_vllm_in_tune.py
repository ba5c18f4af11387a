"""vLLM over two workers inside a Tune trial that holds two pretend GPUs.

The engine of this environment computes on processors and is told to leave the GPUs alone; the
lease, its devices and the meter are those of any launch on GPUs.
"""

import os
import secrets
from pathlib import Path

import pytest

from tests.commands import MARK, Command, carriers, until
from tests.nvml_standin import Gpu, Scenario, environment

pytestmark = [pytest.mark.ray, pytest.mark.nvml, pytest.mark.engine, pytest.mark.slow]
pytest_plugins = ("tests.nvml_standin.fixtures",)

GPUS = ["GPU-left", "GPU-right"]
STUDY = """\
name: wide
model: {{shape: tiny, weights: dummy}}
engine:
  kind: vllm
  dtype: float32
  tensor_parallel: 2
  compile: false
  graphs: false
  env: {{CUDA_VISIBLE_DEVICES: "-1"}}
workload: {{input_tokens: 32, output_tokens: 8, batching: {batching}}}
measure: {{warmup: {{min_batches: 1, max_batches: 2}}, min_window_s: 5, repeats: 1}}
meter: nvml
axes: {{workload.batch_size: [2]}}
cluster: {{address: '{address}'}}
"""


def gpu(uuid: str, number: int) -> Gpu:
    return Gpu(
        uuid=uuid,
        pci=f"00000000:{number + 1:02X}:00.0",
        power_w=((0.0, 100.0 + 50.0 * number),),
        counter_period_s=0.1,
        counter_phase_s=0.02 * number,
    )


@pytest.mark.timeout(420)
def test_two_workers_in_one_lease_are_measured_and_leave_nobody(
    nvml_library: Path, tmp_path: Path
) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two workers need two processors")
    from ray.cluster_utils import Cluster

    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    world = Scenario(gpus=tuple(gpu(uuid, number) for number, uuid in enumerate(GPUS)))
    found = environment(
        nvml_library,
        world.write(tmp_path / "scenario.txt"),
        {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")},
    )
    mark = secrets.token_hex(8)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "num_gpus": len(GPUS),
            "object_store_memory": 100 * 2**20,
            "include_dashboard": False,
            "env_vars": {
                **found,
                "CUDA_VISIBLE_DEVICES": ",".join(GPUS),
                "RAY_worker_niceness": "0",
                MARK: mark,
            },
        },
    )
    try:
        study = tmp_path / "wide.yaml"
        study.write_text(STUDY.format(address=cluster.address, batching="continuous"))
        command = Command(study)
        assert command.wait(360) == 0, command.err
        [record] = command.journal.records
        assert (record.status, record.gpus, record.convention) == ("ok", 2, "steady"), record.reason
        assert record.energy is not None
        assert (record.energy.source, record.energy.measured) == ("nvml", True)
        [window] = record.windows
        opening, closing = window.readings
        assert set(opening["energy_j"]) == set(GPUS)
        true_j = sum(world.joules(uuid, opening["t_s"], closing["t_s"]) for uuid in GPUS)
        assert window.energy_j == pytest.approx(true_j, rel=0.01)
        resolved = record.environment["resolved_engine"]
        assert (resolved["engine"], resolved["tensor_parallel"]) == ("vllm", 2)
        assert len(resolved["workers"]) == 2
        assert resolved["executor"] == "mp"
        assert "devices" in resolved["notes"]
        assert record.metrics["ttft_p50_s"] > 0
        assert until(lambda: engines_of(mark) == [], 30), engines_of(mark)
        assert until(lambda: command.left() == [], 30), command.left()
    finally:
        cluster.shutdown()


def engines_of(mark: str) -> list[str]:
    """Processes of vLLM, and those that drive it, that the cluster's nodes have."""
    words = ("VLLM::", "sweeper.trial.child")
    return [each.command for each in carriers(mark) if any(word in each.command for word in words)]
