"""What a study will come to on a pool."""

import json
import math
from dataclasses import replace

import pytest

from sweeper.dry_run import dry_run
from sweeper.errors import StudyError
from sweeper.forecast import PoolNode, cost_on, forecast, parse_pool
from sweeper.gpu_data import gpu
from sweeper.plan import NOMINAL_LOAD_S, nominal_point_s
from sweeper.roofline import estimate
from sweeper.shapes import shape
from sweeper.spec import (
    Axis,
    BudgetSpec,
    EngineSpec,
    FinalistsSpec,
    ModelSpec,
    ResourcesSpec,
    SearchSpec,
    Settings,
    Study,
    WorkloadSpec,
)

LARGE = Settings(
    model=ModelSpec(shape="llama-3.1-70b", weights="dummy"),
    engine=EngineSpec(kind="simulated"),
    workload=WorkloadSpec(batch_size=1),
)


def axis(key, *values):
    return Axis(label=key, choices=tuple({key: value} for value in values))


def study(*axes, settings=LARGE, **fields):
    return Study(name="large", settings=settings, axes=axes, **fields)


WIDE = study(axis("engine.tensor_parallel", 1, 2, 4, 16), axis("workload.batch_size", 1, 64, 256))


def test_a_pool_is_nodes_of_gpus():
    assert parse_pool("2x8:H200, 1x4:6000 Ada") == (
        PoolNode(gpus=8, gpu=gpu("H200")),
        PoolNode(gpus=8, gpu=gpu("H200")),
        PoolNode(gpus=4, gpu=gpu("6000 Ada")),
    )


@pytest.mark.parametrize(
    "text", ["", "H100", "8:H100", "0x8:H100", "1x0:H100", "1x8", "1x8:", "1x8:H100,", "-1x8:H100"]
)
def test_what_is_no_pool_is_said_with_how_one_is_written(text):
    with pytest.raises(StudyError, match=r"is no pool: write NODESxGPUS:TYPE, such as 2x8:H200"):
        parse_pool(text)


def test_an_unknown_gpu_names_the_known():
    with pytest.raises(StudyError, match=r"'Z9': nothing known of it; known: .*H100"):
        parse_pool("1x8:Z9")


def test_what_does_not_fit_is_said_of_its_points_and_left_out_of_the_cost():
    found = forecast(WIDE, parse_pool("1x8:A6000"))
    by_size = {
        (point.settings.engine.tensor_parallel, point.settings.workload.batch_size): point.id
        for point in found.plan.points
    }
    unfit = {where for where, point in by_size.items() if point in found.unfit}
    # 141 GB of weights: on 1 or 2 GPUs of 51 GB never, on 4 with few requests.
    assert unfit >= {(width, size) for width in (1, 2) for size in (1, 64, 256)}
    assert (4, 256) in unfit
    assert (4, 1) not in unfit
    assert set(found.wide.values()) == {"16 GPUs in one lease, the widest node has 8"}
    [fitting] = [t for t in found.plan.trials if t.gpus == 4]
    assert 0 < found.gpu_seconds < 4 * fitting.expected_s
    assert found.energy_j > 0
    assert found.makespan_s == pytest.approx(found.gpu_seconds / 4)


def test_nothing_that_fits_costs_nothing():
    found = forecast(study(axis("workload.batch_size", 1, 2)), parse_pool("1x8:A6000"))
    assert len(found.unfit) == 2
    assert (found.gpu_seconds, found.energy_j, found.makespan_s) == (0, 0, 0)


def test_a_mixed_pool_needs_to_be_told_which():
    pool = parse_pool("1x8:H200,1x4:A6000")
    with pytest.raises(StudyError, match=r"mixes A6000 and H200.*resources\.accelerator=A6000"):
        forecast(WIDE, pool)
    named = replace(WIDE, resources=ResourcesSpec(accelerator="H200"))
    assert [node.gpus for node in forecast(named, pool).nodes] == [8]
    with pytest.raises(StudyError, match=r"resources\.accelerator: the pool has no B200"):
        forecast(replace(WIDE, resources=ResourcesSpec(accelerator="B200")), pool)


def test_a_pool_is_used_as_far_as_the_study_may():
    small = replace(LARGE, model=ModelSpec(shape="tiny", weights="dummy"))
    whole = study(axis("engine.tensor_parallel", 1, 2), settings=small)
    pool = parse_pool("1x8:H100")
    few = forecast(replace(whole, resources=ResourcesSpec(max_gpus=2)), pool)
    assert few.makespan_s > forecast(whole, pool).makespan_s
    assert few.makespan_s == pytest.approx(few.gpu_seconds / 2, rel=0.5)


def test_a_lease_of_a_whole_node_costs_all_of_it():
    pool = parse_pool("1x4:H200,1x8:H200")
    shared = forecast(study(axis("engine.tensor_parallel", 2)), pool)
    alone = replace(WIDE, axes=study(axis("engine.tensor_parallel", 2)).axes)
    exclusive = forecast(replace(alone, resources=ResourcesSpec(exclusive_node=True)), pool)
    assert exclusive.gpu_seconds == pytest.approx(2 * shared.gpu_seconds)
    assert exclusive.energy_j == shared.energy_j


def test_whole_nodes_come_one_after_the_other():
    pool = parse_pool("1x8:H200")
    several = study(axis("engine.tensor_parallel", 2, 4), axis("workload.batch_size", 1))
    exclusive = forecast(replace(several, resources=ResourcesSpec(exclusive_node=True)), pool)
    assert exclusive.makespan_s == pytest.approx(exclusive.gpu_seconds / 8)
    assert forecast(several, pool).makespan_s < exclusive.makespan_s


def test_a_model_of_unknown_shape_is_neither_refused_nor_given_joules():
    unknown = replace(LARGE, model=ModelSpec(id="some/model"))
    found = forecast(
        study(axis("workload.batch_size", 1, 2), settings=unknown), parse_pool("1x1:H100")
    )
    assert found.unfit == {}
    assert found.energy_j == 0
    cost = cost_on(gpu("H100"))
    assert cost.load_s(unknown) == NOMINAL_LOAD_S
    assert cost.point_s(unknown) == nominal_point_s(unknown)
    assert found.gpu_seconds == NOMINAL_LOAD_S + (2 + 1 / 3) * nominal_point_s(unknown)


def test_percentiles_that_are_asked_for_lengthen_the_windows_of_small_batches():
    alone, many = study(), study(limits={"tpot_p99_s": 0.05})
    pool = parse_pool("1x8:H100")
    settings = replace(LARGE, engine=replace(LARGE.engine, tensor_parallel=8))
    took = [
        forecast(replace(each, settings=settings), pool).gpu_seconds / 8 for each in (alone, many)
    ]
    # 500 requests in three windows, one after the other.
    rate = estimate(settings, shape("llama-3.1-70b"), gpu("H100")).requests_per_s
    turns = -(-500 // 3)
    assert took[1] - took[0] == pytest.approx(3 * (turns - math.ceil(30 * rate)) / rate)


def test_a_dry_run_says_of_each_configuration_what_does_not_fit():
    lines = dry_run(WIDE, "1x8:A6000", as_json=False).splitlines()
    assert max(map(len, lines)) <= 100
    text = " ".join(" ".join(lines).split())
    assert "large: 12 points in" in text
    assert "cannot run tensor_parallel=1: all of 3 points: batch_size=1: out of memory" in text
    assert "cannot run tensor_parallel=4: 1 of 3 points: batch_size=256: out of memory" in text
    assert (
        "tensor_parallel=16: all of 3 points: 16 GPUs in one lease, the widest node has 8" in text
    )
    assert "expected by the roofline and not measured" in text


def test_a_dry_run_cuts_a_long_list_and_counts_what_it_cut():
    many = study(axis("engine.options", *({"load_s": seconds} for seconds in range(1, 12))))
    text = dry_run(many, "1x1:A6000", as_json=False)
    assert text.count("cannot run") == 9
    assert "3 further configurations" in text


def test_a_dry_run_as_json_has_the_same_numbers():
    found = json.loads(dry_run(WIDE, "1x8:A6000", as_json=True))
    expected = forecast(WIDE, parse_pool("1x8:A6000"))
    assert found["points"] == 12
    assert found["expected"]["unfit"] == expected.unfit
    assert found["expected"]["makespan_s"] == expected.makespan_s
    assert "expected" not in json.loads(dry_run(WIDE, "", as_json=True))


def test_blocks_of_finalists_are_reckoned_with_and_told_apart():
    small = replace(LARGE, model=ModelSpec(shape="tiny", weights="dummy"))
    finalists = FinalistsSpec(count=2, blocks=4)
    ending = replace(small, measure=replace(small.measure, finalists=finalists))
    axes = (axis("engine.tensor_parallel", 1, 2), axis("workload.batch_size", 1, 64))
    budget = SearchSpec(kind="random", budget=BudgetSpec(launches=1))
    asked = study(*axes, settings=ending, baseline={"engine.tensor_parallel": 1}, search=budget)
    pool = parse_pool("1x4:H100")
    alone, found = forecast(study(*axes, settings=small), pool), forecast(asked, pool)
    assert alone.blocks is None
    part = found.blocks
    assert part.trials == 4
    assert found.gpu_seconds == pytest.approx(alone.gpu_seconds + part.gpu_seconds)
    assert found.energy_j == pytest.approx(alone.energy_j + part.energy_j)
    assert found.makespan_s == pytest.approx(alone.makespan_s + part.makespan_s)
    # Each block is one lease after the other, as wide as the widest: both widths at batch 64.
    assert part.gpu_seconds > 4 * 2 * 2 * cost_on(gpu("H100")).load_s(small)
    text = " ".join(dry_run(asked, "1x4:H100", as_json=False).split())
    assert "4 blocks of the 2 finalists, with what their savings are against, chosen when" in text
    assert "4 blocks:" in text
    assert "not part of the search's budget" in text
    told = json.loads(dry_run(asked, "1x4:H100", as_json=True))
    assert told["blocks"] == told["expected"]["blocks"]["trials"] == 4
    assert json.loads(dry_run(WIDE, "1x8:A6000", as_json=True))["expected"]["blocks"] is None


def test_limits_that_the_roofline_knows_of_choose_the_expected_finalists():
    finalists = FinalistsSpec(count=1, blocks=1)
    settings = replace(LARGE, engine=replace(LARGE.engine, tensor_parallel=8))
    ending = replace(settings, measure=replace(settings.measure, finalists=finalists))
    sizes = axis("workload.batch_size", 1, 64)
    pool = parse_pool("1x8:H100")
    slow = estimate(
        replace(settings, workload=WorkloadSpec(batch_size=64)), shape("llama-3.1-70b"), gpu("H100")
    )
    free = forecast(study(sizes, settings=ending), pool)
    bound = {"latency_mean_s": slow.latency_s * 0.99}
    limited = forecast(study(sizes, settings=ending, limits=bound), pool)
    assert limited.blocks.energy_j != free.blocks.energy_j
    never = forecast(study(sizes, settings=ending, limits={"latency_mean_s": 1e-6}), pool)
    assert never.blocks is None
