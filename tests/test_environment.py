"""What a record says of its surroundings, and which changes of it matter."""

import json
import os
import platform
from pathlib import Path

import pytest

from sweeper.trial import environment
from sweeper.trial.environment import changes, cpu_model, describe, fingerprint

SEEN = {
    "host": "node-1",
    "versions": {"python": "3.11.7", "torch": "2.13.0", "ray": "2.60.0"},
    "devices": {
        "driver": "580.1",
        "gpus": [{"uuid": "GPU-1", "name": "H200"}, {"uuid": "GPU-2", "name": "H200"}],
    },
    "resolved_engine": {"revision": "abc", "threads": 2},
}
CLUSTER = {"versions": {"torch": "2.13.0"}, "drivers": ["580.1"], "gpu_models": ["A100", "H200"]}


def test_it_describes_this_process():
    seen = describe()
    assert json.loads(json.dumps(seen)) == seen
    assert seen["host"] == platform.node()
    assert seen["versions"]["python"] == platform.python_version()
    assert seen["versions"]["codecarbon"]
    assert seen["cpus"] >= len(seen["cpu_affinity"]) >= 1
    assert seen["niceness"] == os.nice(0)
    assert seen["memory_bytes"] > 1e8
    assert seen["open_files_limit"] is None or seen["open_files_limit"] > 0


def test_what_is_not_there_is_absent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(environment, "PACKAGES", ("codecarbon", "no-such-package"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("NCCL_NVLS_ENABLE", "0")
    seen = describe()
    assert set(seen["versions"]) == {"python", "codecarbon"}
    assert seen["variables"]["OMP_NUM_THREADS"] == "3"
    assert seen["variables"]["NCCL_NVLS_ENABLE"] == "0"
    assert "CUDA_VISIBLE_DEVICES" not in seen["variables"]


def test_the_processor_says_its_name_or_nothing_is_made_up(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD EPYC 7763\nflags : a: b\n")
    assert cpu_model(cpuinfo) == "AMD EPYC 7763"
    cpuinfo.write_text("processor\t: 0\n")
    assert cpu_model(cpuinfo) is None
    assert cpu_model(tmp_path / "none") is None


@pytest.mark.parametrize(
    "other",
    [
        {"host": "node-2"},
        {"devices": {"driver": "580.1", "gpus": [{"uuid": "GPU-9", "name": "H200"}]}},
        {"resolved_engine": {"revision": "abc", "threads": 16}},
        {"variables": {"OMP_NUM_THREADS": "4"}},
    ],
)
def test_another_board_or_host_is_no_change(other: dict[str, object]):
    assert fingerprint({**SEEN, **other}) == fingerprint(SEEN)
    assert changes(SEEN, {**SEEN, **other}) == []


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (SEEN, {"versions": {**SEEN["versions"], "torch": "2.14.0"}}, "torch 2.13.0 -> 2.14.0"),
        (SEEN, {"versions": {"python": "3.11.7", "torch": "2.13.0"}}, "ray 2.60.0 -> none"),
        (SEEN, {"versions": {**SEEN["versions"], "vllm": "0.32"}}, "vllm none -> 0.32"),
        (SEEN, {"devices": {**SEEN["devices"], "driver": "590.2"}}, "GPU driver 580.1 -> 590.2"),
        (
            SEEN,
            {"devices": {"driver": "580.1", "gpus": [{"name": "H100"}]}},
            "GPUs H200 -> H100",
        ),
        (SEEN, {"resolved_engine": {"revision": "def"}}, "model revision abc -> def"),
        (CLUSTER, {"drivers": ["580.1", "590.2"]}, "GPU driver 580.1 -> 580.1, 590.2"),
        (CLUSTER, {"gpu_models": ["H200"]}, "GPUs A100, H200 -> H200"),
    ],
)
def test_what_matters_changes_the_fingerprint_and_is_said(
    before: dict[str, object], after: dict[str, object], said: str
):
    assert fingerprint({**before, **after}) != fingerprint(before)
    assert changes(before, {**before, **after}) == [said]


def test_all_changes_are_said_at_once():
    after = {"versions": {"torch": "2.14.0"}, "drivers": ["590.2"]}
    assert changes(CLUSTER, after) == [
        "GPU driver 580.1 -> 590.2",
        "GPUs A100, H200 -> none",
        "torch 2.13.0 -> 2.14.0",
    ]


def test_an_unknown_machine_has_a_fingerprint_that_stays():
    assert fingerprint({}) == fingerprint({"devices": {"gpus": []}, "resolved_engine": {}})
    assert len(fingerprint({})) == 16
