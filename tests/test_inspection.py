"""What a node can measure, found by trying it: stand-in GPUs, RAPL files, CodeCarbon."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pynvml
import pytest

from sweeper.meters.inspection import estimate, nvml_of_node, offered, rapl_zones
from tests.nvml_standin import GPU_LOST, Fault, Gpu, Process, Scenario

pytest_plugins = ("tests.nvml_standin.fixtures",)

Enter = Callable[[Scenario], Scenario]
COUNTER = "nvmlDeviceGetTotalEnergyConsumption"


@pytest.mark.nvml
@pytest.mark.parametrize("period_s", [0.02, 0.1, 0.2])
def test_the_period_and_the_ratio_are_the_scenarios(nvml_world: Enter, period_s: float) -> None:
    gpus = tuple(
        Gpu(
            uuid=f"GPU-{gain}",
            power_w=((0.0, 120.0), (1.5, 400.0), (2.5, 250.0)),
            linear=True,
            sine=(20.0, 1.3, 0.5),
            counter_period_s=period_s,
            counter_phase_s=0.3 * period_s,
            counter_gain=gain,
        )
        for gain in (1.0, 1.06)
    )
    nvml_world(Scenario(gpus=gpus))
    nvml, rows = nvml_of_node(None, 2)
    assert nvml == {"works": True, "driver": "0.0-standin"}
    for row, gpu in zip(rows, gpus, strict=True):
        counter = row["counter"]
        assert row["offered"]
        assert counter["period_s"] == pytest.approx(period_s, rel=0.1)
        assert counter["ratio"] == pytest.approx(gpu.counter_gain, abs=0.02)
        assert counter["duration_s"] > 2.0
        assert (counter["power_method"], counter["scope"]) == ("instant", "gpu")


@pytest.mark.nvml
def test_each_gpu_that_cannot_be_measured_has_its_reason_and_the_others_work(
    nvml_world: Enter,
) -> None:
    gpus = {
        "": Gpu(uuid="GPU-good", processes=(Process(4242, 1),)),
        "mig": Gpu(uuid="GPU-sliced", mig=True),
        "gpu_lost": Gpu(uuid="GPU-lost", faults=(Fault("*", GPU_LOST),)),
        "not_supported": Gpu(uuid="GPU-old", unsupported=frozenset({COUNTER})),
        "no_permission": Gpu(
            uuid="GPU-shut", faults=(Fault(COUNTER, pynvml.NVML_ERROR_NO_PERMISSION),)
        ),
        "counter_stuck": Gpu(uuid="GPU-stuck", stuck_s=(-5.0, math.inf)),
    }
    nvml_world(Scenario(gpus=tuple(gpus.values())))
    nvml, rows = nvml_of_node(None, 8, seconds=1.0)
    assert nvml["works"]
    assert [row["counter"].get("reason", "") for row in rows] == list(gpus)
    assert all(row["counter"]["works"] or row["counter"]["detail"] for row in rows)
    assert rows[0]["compute_pids"] == [4242]
    assert rows[2] == {"index": 2, "offered": True, "counter": rows[2]["counter"]}
    assert json.loads(json.dumps(rows)) == rows


@pytest.mark.nvml
def test_a_module_and_a_gpu_without_instant_power(nvml_world: Enter) -> None:
    module = Gpu(uuid="GPU-a", name="NVIDIA GH200 480GB")
    usage = Gpu(uuid="GPU-b", unsupported=frozenset({"nvmlDeviceGetFieldValues"}))
    nvml_world(Scenario(gpus=(module, usage)))
    _, (first, second) = nvml_of_node(None, 2, seconds=1.0)
    assert (first["counter"]["scope"], "ratio" in first["counter"]) == ("module", False)
    assert second["counter"]["power_method"] == "usage"
    assert second["counter"]["ratio"] == pytest.approx(1.0, abs=0.05)


@pytest.mark.nvml
def test_only_what_ray_hands_out_is_tried(nvml_world: Enter) -> None:
    nvml_world(Scenario(gpus=tuple(Gpu(uuid=f"GPU-{name}") for name in "abc")))
    _, rows = nvml_of_node("GPU-c,GPU-a", 1, seconds=0.5)
    assert [row["offered"] for row in rows] == [False, False, True]
    assert ["counter" in row for row in rows] == [False, False, True]


@pytest.mark.nvml
def test_without_a_driver_there_is_a_reason(
    nvml_world: Enter, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml_world(Scenario(gpus=()))
    assert nvml_of_node(None, 0) == ({"works": True, "driver": "0.0-standin"}, [])
    monkeypatch.delenv("SWEEPER_NVML_SCENARIO")
    nvml, rows = nvml_of_node(None, 0)
    assert (nvml["works"], nvml["reason"], rows) == (False, "driver_not_loaded", [])


@pytest.mark.parametrize(
    ("visible", "count", "found"),
    [
        (None, 2, [0, 1]),
        (None, 9, [0, 1, 2]),
        ("2,0", 2, [0, 2]),
        ("2, 0", 1, [2]),
        ("GPU-b1", 4, [1]),
        ("GPU-b,GPU-a", 4, []),
        ("1,7,0", 4, [1]),
        ("", 4, []),
    ],
)
def test_cudas_names_of_gpus(visible: str | None, count: int, found: list[int]) -> None:
    rows = [{"index": n, "uuid": uuid} for n, uuid in enumerate(["GPU-a0", "GPU-b1", "GPU-b2"])]
    assert offered(rows, visible, count) == found


def test_rapl_is_read_where_it_can_be(tmp_path: Path) -> None:
    assert rapl_zones(tmp_path) == []
    for zone, name, energy in [("0", "package-0", "12\n"), ("0:0", "dram", None), ("1", None, "")]:
        folder = tmp_path / f"intel-rapl:{zone}"
        folder.mkdir()
        if name:
            (folder / "name").write_text(f"{name}\n")
        if energy is not None:
            (folder / "energy_uj").write_text(energy)
    told = {"zone": "intel-rapl:0", "name": "cpu package-0", "counted": True, "readable": True}
    refused = {"zone": "intel-rapl:0:0", "name": "dram package-0", "counted": True}
    assert rapl_zones(tmp_path) == [
        told,
        {**refused, "readable": False, "reason": "not_supported"},
    ]


@pytest.mark.process
def test_codecarbon_estimates_this_machine() -> None:
    assert estimate()["works"] is True
