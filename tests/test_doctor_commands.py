"""`python -m sweeper doctor` for real: on this machine, and on a pretend cluster with faults."""

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.commands import MARK, Command
from tests.loopback import free_port
from tests.nvml_standin import GPU_LOST, Fault, Gpu, Process, Scenario, environment

pytestmark = pytest.mark.ray
pytest_plugins = ("tests.nvml_standin.fixtures",)

GOOD = [
    Gpu(uuid="GPU-a0", counter_period_s=0.1, processes=(Process(4242, 1),)),
    Gpu(uuid="GPU-a1", counter_period_s=0.1, counter_gain=1.1, power_limit_w=600.0),
]
BAD = [Gpu(uuid="GPU-b0", mig=True), Gpu(uuid="GPU-b1", faults=(Fault("*", GPU_LOST),))]


@pytest.fixture(autouse=True)
def _no_command_left() -> Iterator[None]:
    yield
    Command.kill_all()


def doctor(folder: Path, *words: str) -> Command:
    return Command(folder / "doctor", *words)


def test_this_machine_can_estimate_and_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    command = doctor(tmp_path, "cluster.address=local", "--json")
    assert command.wait() == 0, command.err
    told = json.loads(command.out)
    [node] = told["nodes"]
    assert (told["ok"], told["estimated"]) == (True, not node["facts"]["gpus"])
    assert told["cluster"]["address"] is None
    facts = node["facts"]
    assert (facts["niceness"], facts["bytecode"]) == (0, True)
    assert facts["hub"]["token"] is True
    assert facts["hub"]["offline"] == ["HF_HUB_OFFLINE"]
    assert facts["versions"].keys() >= {"python", "sweeper", "ray", "mlflow"}
    assert node["engines"].keys() == {"vllm", "transformers"}
    assert node["meters"]["codecarbon"]["works"] is True
    assert any("ESTIMATE" in each["note"] for each in node["meters"].values())
    assert "hf_secret" not in command.out + command.err
    assert command.left() == []
    assert not (tmp_path / "mlruns").exists()


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path) -> None:
    command = doctor(tmp_path, "--address", f"127.0.0.1:{free_port()}")
    assert command.wait() == 2
    assert command.out == ""
    assert command.err.startswith("sweeper: cluster.address: nothing answers at 127.0.0.1")


@pytest.fixture
def pretended(nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A cluster of a node with good GPUs and one with bad GPUs, which was started carelessly."""
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    scenario = Scenario(gpus=(*GOOD, *BAD), start_s=time.monotonic())
    base = {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}
    variables = {
        **environment(nvml_library, scenario.write(tmp_path / "scenario.txt"), base),
        MARK: secrets.token_hex(8),
    }
    good = {"RAY_worker_niceness": "0", "HF_HOME": str(tmp_path)}
    bad = {"PYTHONDONTWRITEBYTECODE": "1", "HF_HOME": str(tmp_path)}
    cluster = Cluster(initialize_head=True, head_node_args=settings(GOOD, variables | good))
    try:
        cluster.add_node(**settings(BAD, variables | bad))
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def settings(gpus: list[Gpu], variables: Mapping[str, str]) -> dict[str, Any]:
    return {
        "num_cpus": 2,
        "num_gpus": len(gpus),
        "object_store_memory": 100 * 2**20,
        "include_dashboard": False,
        "env_vars": {**variables, "CUDA_VISIBLE_DEVICES": ",".join(gpu.uuid for gpu in gpus)},
    }


@pytest.mark.nvml
@pytest.mark.slow
def test_every_node_of_a_cluster_tells_what_it_lacks(pretended: str, tmp_path: Path) -> None:
    command = doctor(tmp_path, f"cluster.address={pretended}", "--json")
    assert command.wait() == 1, command.err
    told = json.loads(command.out)
    assert told["cluster"]["address"] == pretended
    by_gpu = {
        gpu.get("uuid", f"index {gpu['index']}"): gpu
        for node in told["nodes"]
        for gpu in node["facts"]["gpus"]
        if gpu["offered"]
    }
    for gpu in GOOD:
        counter = by_gpu[gpu.uuid]["counter"]
        assert counter["period_s"] == pytest.approx(0.1, rel=0.1)
        assert counter["ratio"] == pytest.approx(gpu.counter_gain, abs=0.02)
    assert by_gpu["GPU-b0"]["counter"]["reason"] == "mig"

    lines = {
        node["facts"]["offered"]["gpus"] and node["meters"]["nvml"]["note"]: [
            f"{each['kind']}: {each['what']}" for each in node["findings"]
        ]
        for node in told["nodes"]
    }
    good = lines["counters of 2 of 2 GPUs"]
    assert "advice: GPU 0: computed on by process 4242" in good
    assert "advice: GPU 1: its power is limited to 600 W, by default it is 700 W" in good
    assert any("GPU 1: its counter went up by over 5% more" in line for line in good)
    assert not any("nice" in line or "BYTECODE" in line for line in good)
    bad = lines["counters of 0 of 2 GPUs"]
    assert "fault: GPU 2: no energy: mig" in bad
    assert "fault: Ray hands out 2 GPUs, of which NVML knows 1" in bad
    assert any("run at nice 15" in line for line in bad)
    assert any("PYTHONDONTWRITEBYTECODE is set" in line for line in bad)
    assert all(each["way_out"] for node in told["nodes"] for each in node["findings"])

    command = doctor(tmp_path, "--address", pretended)
    assert command.wait() == 1, command.err
    assert "2 nodes" in command.out
    assert "1 GPU-a1: 45 °C; gpu counter ticks every 1" in command.out
    assert command.out.splitlines()[-1].startswith("A study cannot run on every node")
    assert max(map(len, command.out.splitlines())) <= 100
    assert "Traceback" not in command.out + command.err
