"""What a record tells of its GPUs' settings, and what verify makes of it."""

import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.answers.best import answers
from sweeper.answers.table import table
from sweeper.errors import WrongSetting
from sweeper.results.contents import FILE, read
from sweeper.results.record import Record
from sweeper.spec import Axis, GpuSpec, Launch, ModelSpec
from sweeper.trial.bench import Bench, Context
from sweeper.trial.gpu_settings import GpuSettings
from sweeper.trial.protocol import run_launch
from sweeper.verify import gpus
from sweeper.verify.tally import Tally
from tests.fakes import FakeEngine
from tests.nvml_standin import Board, Gpu, boards_of
from tests.studies import one_launch, simulated
from tests.verified import Kept, assert_verified

pytestmark = [pytest.mark.nvml, pytest.mark.process]
pytest_plugins = ("tests.nvml_standin.fixtures",)

BOTH = GpuSpec(power_limit_w=400.0, clock_mhz=1005)


def measured(virtual_world: Callable[..., Any], asked: GpuSpec, **board: Any) -> dict[str, Any]:
    """The record of a launch in virtual time on one GPU."""
    uuid = f"GPU-{secrets.token_hex(6)}"
    there = virtual_world(Gpu(uuid=uuid, power_w=((0.0, 90.0), (15.0, 400.0)), **board))
    found: list[Any] = []
    launch: Launch = one_launch(simulated(batch_sizes=(2,)))
    [point] = launch.points
    point = replace(point, settings=replace(point.settings, gpu=asked))
    bench = Bench(
        engine=FakeEngine(there.clock),  # type: ignore[arg-type]  # any clock will do
        meter=there.meter(),
        clock=there.clock,
        devices=[uuid],
        context=Context(name="t", study="s", trial_id="t", attempt=0, environment={}),
        emit=lambda kind, fields: found.append(fields) if kind == "record" else None,
        gpu_settings=GpuSettings(asked, [uuid]),
        clocks=lambda: (there.clock.now(), 1e9 + there.clock.now()),
    )
    run_launch(replace(launch, points=(point,)), bench)
    [record] = found
    plain: dict[str, Any] = json.loads(json.dumps(record, allow_nan=False))
    return plain


def test_a_record_tells_what_was_set_and_every_window_proves_it(
    virtual_world: Callable[..., Any], tmp_path: Path
) -> None:
    record = measured(virtual_world, BOTH)
    assert Record.from_json(record).status == "ok"
    told = record["environment"]["gpu_settings"]
    assert told["asked"] == {"power_limit_w": 400.0, "clock_mhz": 1005}
    assert record["config"]["gpu.power_limit_w"] == 400.0
    for window in record["windows"]:
        for edge in ("before", "after"):
            [state] = window["evidence"][edge]["devices"].values()
            assert (state["power_limit_w"], state["sm_clock_mhz"]) == (400.0, 1005)
    assert boards_of(tmp_path / "scenario.txt") == [Board(700.0, None, 4)]
    tally = Tally()
    gpus.check(record, "it", tally)
    assert (tally.differences, tally.compared["gpu settings"] > 8) == ([], True)


def test_verify_finds_a_setting_that_was_not_in_force(virtual_world: Callable[..., Any]) -> None:
    record = measured(virtual_world, BOTH)

    def differences(change: Callable[[dict[str, Any]], object]) -> int:
        changed, tally = json.loads(json.dumps(record)), Tally()
        change(changed)
        gpus.check(changed, "it", tally)
        return len(tally.differences)

    def state(record: dict[str, Any]) -> dict[str, Any]:
        [found] = record["windows"][0]["evidence"]["after"]["devices"].values()
        return found  # type: ignore[no-any-return]

    assert differences(lambda r: None) == 0
    assert differences(lambda r: r["config"].update({"gpu.power_limit_w": 300.0})) > 1
    assert differences(lambda r: r["environment"].pop("gpu_settings")) == 1
    assert differences(lambda r: state(r).update(power_limit_w=700.0)) == 1
    assert differences(lambda r: state(r).update(sm_clock_mhz=1980)) == 1
    assert differences(lambda r: r["environment"]["gpu_settings"]["in_force"].clear()) == 1


def test_a_board_that_will_not_is_the_verdict_of_all_points(
    virtual_world: Callable[..., Any],
) -> None:
    record = measured(virtual_world, BOTH, power_clamp_w=450.0)
    assert record["status"] == "wrong_setting"
    assert "asked 400" in record["reason"]
    assert record["windows"] == []


def test_a_limit_that_somebody_changes_meanwhile_is_found() -> None:
    state = {"power_limit_w": 400.0, "sm_clock_mhz": 1005}
    glances = {"before": {"devices": {"GPU-a": state}}, "after": {"devices": {"GPU-a": state}}}
    settings = GpuSettings(BOTH, ["GPU-a"])
    settings.check(glances)
    settings.check({"before": None, "after": {"devices": {"GPU-a": {}}}})
    for name, value in (("power_limit_w", 700.0), ("sm_clock_mhz", 1980)):
        after = {"devices": {"GPU-a": {**state, name: value}}}
        with pytest.raises(WrongSetting, match=f"{value:g}"):
            settings.check({**glances, "after": after})
        GpuSettings().check({**glances, "after": after})


def test_a_study_of_power_limits_is_answered_and_verified(tmp_path: Path) -> None:
    plain = simulated(batch_sizes=(8, 256))
    limits = Axis(
        label="gpu.power_limit_w", choices=tuple({"gpu.power_limit_w": w} for w in (None, 300.0))
    )
    settings = replace(plain.settings, model=ModelSpec(shape="llama-3.1-8b", weights="dummy"))
    study = replace(plain, settings=settings, axes=(*plain.axes, limits))
    folder = Kept(study, tmp_path).measure()
    assert_verified(folder)
    records = read(folder / FILE).standing()
    assert {record.config["gpu.power_limit_w"] for record in records} == {None, 300.0}
    found = answers(records, study)
    shown = table(study, records, found)
    assert "power_limit_w" in shown
    at = {(r.chosen["workload.batch_size"], r.config["gpu.power_limit_w"]): r for r in records}
    for size in (8, 256):
        limited, free = at[size, 300.0].metrics, at[size, None].metrics
        assert limited["power_mean_w"] < 300.0 * 1.05 < free["power_mean_w"]
        assert limited["latency_mean_s"] >= free["latency_mean_s"] * 0.9
