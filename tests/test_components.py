"""What a node spends beside the GPUs of a launch: apart from them, and never a zero."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.clocks import RealClock
from sweeper.errors import MeterError
from sweeper.meters.components import Components, components_for
from sweeper.meters.nvml_meter import IdleNvidia
from sweeper.meters.rapl import Memory, Sockets
from sweeper.results.components import COMPONENTS, beside
from sweeper.results.metrics import record_metrics
from sweeper.results.record import Record
from sweeper.spec import Launch, MeasureSpec, Point, Settings, Sizes, WarmupSpec
from sweeper.trial.assignment import Assignment, bench_for
from sweeper.trial.protocol import run_launch
from sweeper.trial.recorder import component_checks
from tests.nvml_standin import Gpu, Scenario
from tests.powercap_tree import TWO_SOCKETS, Zone, build, running
from tests.records import make_window
from tests.simulated import SIZES, asked

pytest_plugins = ("tests.nvml_standin.fixtures",)

EVERY = {"cpu": {"0": 900.0, "1": 600.0}, "dram": {"0": 500.0}, "idle_gpu": {"b": 2000.0}}


def test_components_by_hand():
    window = make_window(energy_j=6000.0, output_tokens=500, components=EVERY)
    assert window.energy_j == 6000.0
    metrics, _ = record_metrics([window], 1)
    assert metrics["energy_j"] == 6000.0
    assert {name: value for name, value in metrics.items() if name in window.metrics} == (
        window.metrics
    )
    wanted = {
        "cpu_energy_j": 1500.0,
        "cpu_energy_per_output_token_j": 3.0,
        "dram_energy_j": 500.0,
        "dram_energy_per_output_token_j": 1.0,
        "idle_gpu_energy_j": 2000.0,
        "idle_gpu_energy_per_output_token_j": 4.0,
        "beside_energy_share": 0.4,
    }
    assert {name: metrics[name] for name in wanted} == pytest.approx(wanted)


def test_a_component_that_is_missing_is_absent_and_so_is_the_share():
    reason = "no_permission: energy_uj can be read by root only"
    window = make_window(components={**EVERY, "dram": reason})
    found = beside(window.readings)
    assert found.reasons == {"dram": reason}
    assert set(found.joules) == {"cpu", "idle_gpu"}
    assert not [name for name in window.metrics if name.startswith(("dram", "beside"))]
    assert {"cpu_energy_j", "idle_gpu_energy_j"} <= window.metrics.keys()


def test_a_node_without_idle_gpus_has_a_share_and_no_number_for_them():
    window = make_window(energy_j=6000.0, components={**EVERY, "idle_gpu": {}})
    assert window.metrics["beside_energy_share"] == pytest.approx(0.25)
    assert not [name for name in window.metrics if name.startswith("idle_gpu")]


def test_a_window_without_energy_has_no_components():
    window = make_window(energy_j=None, components=EVERY)
    assert not [name for name in window.metrics if "energy" in name]


def test_a_ratio_is_one_of_sums_over_the_windows_that_know_it():
    windows = [
        make_window(0, energy_j=1000.0, output_tokens=100, components=EVERY),
        make_window(1, energy_j=3000.0, output_tokens=500, components={"cpu": {"0": 300.0}}),
        make_window(2, energy_j=9000.0, output_tokens=900),
    ]
    metrics, _ = record_metrics(windows, 1)
    assert metrics["cpu_energy_j"] == pytest.approx(900.0)
    assert metrics["cpu_energy_per_output_token_j"] == pytest.approx(1800.0 / 600)
    assert metrics["beside_energy_share"] == pytest.approx(4000.0 / 5000.0)


@pytest.mark.parametrize(
    ("energy_j", "t_s", "code"),
    [
        ({"0": 9.0}, 30.0, "counter_reset"),
        ({"0": 10.0}, 30.0, "zero_energy"),
        ({"1": 50.0}, 30.0, "wrong_gpu_count"),
        ({"0": 50.0}, 25.0, "not_bracketed"),
        ({"0": 50.0}, 0.0, "not_bracketed"),
    ],
)
def test_what_cannot_be_is_no_number(energy_j, t_s, code):
    first = {
        "t_s": 0.0,
        "energy_j": {},
        "components": {"cpu": {"t_s": 0.0, "energy_j": {"0": 10.0}}},
    }
    last = {"t_s": 30.0, "energy_j": {}, "components": {"cpu": {"t_s": t_s, "energy_j": energy_j}}}
    found = beside([first, last])
    assert found.joules == {}
    assert found.reasons["cpu"].startswith(f"{code}: ")


@given(
    watts=st.floats(1.0, 1e4),
    late_s=st.tuples(st.floats(0.0, 0.3), st.floats(0.0, 0.3)),
)
def test_joules_are_referred_to_the_seconds_between_the_readings(watts, late_s):
    """However late a component of constant power is read at either edge."""
    edges = [
        {
            "t_s": at_s,
            "components": {"cpu": {"t_s": at_s + late, "energy_j": {"0": watts * (at_s + late)}}},
        }
        for at_s, late in zip((10.0, 40.0), late_s, strict=True)
    ]
    assert beside(edges).joules["cpu"] == pytest.approx(watts * 30.0)


def test_the_energy_of_gpus_is_the_same_with_and_without():
    with_them, without = make_window(components=EVERY), make_window()
    shared = {name: value for name, value in with_them.metrics.items() if name in without.metrics}
    assert shared == without.metrics
    assert with_them.energy_j == without.energy_j


@pytest.mark.process
def test_sockets_and_memory_are_read_apart(tmp_path: Path):
    with running(tmp_path, TWO_SOCKETS) as root:
        clock = RealClock()
        components = Components(
            {"cpu": Sockets((), clock, root=root), "dram": Memory((), clock, root=root)}
        )
        told = components.open()
        edges = []
        for _ in range(2):
            edges.append({"t_s": time.monotonic(), "components": components.read()})
            time.sleep(2.0)
        components.close()
    assert told == {
        "cpu": {"counted": ["cpu package-0", "cpu package-1"]},
        "dram": {"counted": ["dram package-0", "dram package-1"]},
    }
    span_s = edges[1]["t_s"] - edges[0]["t_s"]
    found = beside(edges)
    assert found.joules["cpu"] == pytest.approx((150.0 + 70.0) * span_s, rel=0.03)
    assert found.joules["dram"] == pytest.approx((12.0 + 8.0) * span_s, rel=0.03)


def test_what_cannot_be_opened_is_missing_with_its_reason(tmp_path: Path):
    amd = [Zone(folder="intel-rapl:0", name="package-0", watts=200.0)]
    root, clock = build(tmp_path, amd), RealClock()
    components = Components(
        {"cpu": Sockets((), clock, root=root), "dram": Memory((), clock, root=root)}
    )
    told = components.open()
    assert told["cpu"] == {"counted": ["cpu package-0"]}
    assert told["dram"]["reason"].startswith("not_supported: ")
    assert set(components.read()) == {"cpu"}
    components.close()
    assert components.read() == {}


@pytest.mark.nvml
def test_idle_gpus_are_read_by_uuid(nvml_world):
    world = nvml_world(
        Scenario(
            gpus=tuple(
                Gpu(uuid=f"GPU-{n}", power_w=((0.0, 60.0 + n),), counter_period_s=0.02)
                for n in range(3)
            )
        )
    )
    part = IdleNvidia(["GPU-1", "GPU-2"], RealClock())
    with pytest.raises(MeterError, match="not_open"):
        part.read()
    assert part.open() == {"counted": ["GPU-1", "GPU-2"]}
    before = part.read()
    time.sleep(2.0)
    after = part.read()
    part.close()
    part.close()
    for uuid in ("GPU-1", "GPU-2"):
        spent_j = after.energy_j[uuid] - before.energy_j[uuid]
        assert spent_j == pytest.approx(world.joules(uuid, before.t_s, after.t_s), rel=0.03)
    with pytest.raises(MeterError, match="device_unknown"):
        IdleNvidia(["GPU-nobody"], RealClock()).open()


def launched(place: dict[str, object], devices: Sequence[str] = ("H100/0",)) -> Record:
    """One point of a simulated engine, through the protocol of a launch."""
    settings = asked(batch=4, gpu="H100", noise=0.0)
    settings = Settings(
        model=settings.model,
        engine=settings.engine,
        workload=settings.workload,
        measure=MeasureSpec(
            warmup=WarmupSpec(min_batches=1, max_batches=1),
            min_window_s=10.0,
            repeats=2,
            window="whole",
        ),
        meter="simulated",
    )
    point = Point(id="p", configuration="c", condition={}, chosen={}, settings=settings)
    sizes = Sizes(max_model_len=SIZES.max_model_len, max_batch_size=4, batch_sizes=(4,))
    launch = Launch(number=0, stage="full", sizes=sizes, points=(point,))
    assignment = Assignment(
        launch=launch, study="s", trial_id="t", attempt=0, devices=tuple(devices), place=place
    )
    records = []
    bench = bench_for(
        assignment,
        lambda kind, fields: records.append(fields) if kind == "record" else None,
    )
    run_launch(launch, bench)
    return Record.from_json(records[0])


def test_a_launch_with_a_node_to_itself_knows_what_is_beside_it():
    record = launched({"exclusive_node": True, "idle_gpus": ["H100/1", "H100/2"]})
    assert record.environment["components"]["idle_gpu"] == {"counted": ["H100/1", "H100/2"]}
    metrics = record.metrics
    assert metrics["dram_energy_j"] == pytest.approx(
        20.0 * metrics["energy_j"] / metrics["power_mean_w"]
    )
    spent = {name: metrics[f"{name}_energy_j"] for name in COMPONENTS}
    share = sum(spent.values()) / (sum(spent.values()) + metrics["energy_j"])
    assert metrics["beside_energy_share"] == pytest.approx(share)
    checks = {check.name: check.ok for check in record.checks if "energy" in check.name}
    assert checks == {"cpu_energy": True, "dram_energy": True, "idle_gpu_energy": True}
    assert record.energy is not None
    assert record.energy.measured is False


def test_processors_of_a_shared_node_are_not_counted_and_a_check_says_why():
    record = launched({"exclusive_node": False, "idle_gpus": []})
    assert not [name for name in record.metrics if name.startswith(("cpu", "dram", "beside"))]
    said = {check.name: (check.ok, check.detail) for check in record.checks}
    assert said["cpu_energy"][0]
    assert said["cpu_energy"][1].startswith("not_exclusive: other leases may run on this node")
    assert "resources.exclusive_node: true" in said["dram_energy"][1]
    assert record.status == "ok"


def test_idle_gpus_of_a_lease_are_counted_wherever_it_is():
    record = launched({"idle_gpus": ["H100/1"]})
    assert record.metrics["idle_gpu_energy_j"] > 0
    assert "beside_energy_share" not in record.metrics


def test_what_was_asked_for_and_is_missing_does_not_hold():
    opened = {"cpu": {"counted": ["cpu package-0"]}, "dram": {"reason": "not_supported: none"}}
    lost = make_window(components={"cpu": "counter_wrapped: not looked at for 90 s"})
    checks = component_checks(opened, [make_window(components={"cpu": {"0": 5.0}}), lost])
    assert [(each.name, each.ok, each.detail) for each in checks] == [
        ("cpu_energy", False, "counter_wrapped: not looked at for 90 s"),
        ("dram_energy", False, "not_supported: none"),
    ]


@pytest.mark.parametrize("kind", ["codecarbon", "rapl", "replay"])
def test_a_meter_of_the_whole_node_has_nothing_beside_it(kind: str):
    components = components_for(kind, ["GPU-1"], RealClock(), None, exclusive=True)
    assert components.open() == {}
    assert components.read() == {}
