"""From a study to points, launches and trials."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.errors import StudyError
from sweeper.plan import (
    NOMINAL,
    Cost,
    by_configuration,
    chunks,
    digest,
    expand,
    holds,
    largest_first,
    min_requests,
    nominal_point_s,
    plan,
    sizes_of,
)
from sweeper.spec import (
    Axis,
    FinalistsSpec,
    MeasureSpec,
    ResourcesSpec,
    SearchSpec,
    Settings,
    Study,
    TrackingSpec,
    Trial,
    WorkloadSpec,
)

TP = Axis(label="tp", choices=tuple({"engine.tensor_parallel": width} for width in (1, 2, 4)))
BATCH = Axis(label="batch", choices=tuple({"workload.batch_size": size} for size in (1, 8, 512)))
LENGTHS = Axis(label="in", choices=tuple({"workload.input_tokens": n} for n in (128, 2048)))


def study(**changes) -> Study:
    return Study(**{"name": "s", "settings": Settings(), "axes": (TP, BATCH), **changes})


def of_batches(count: int) -> Study:
    """One configuration with as many points."""
    choices = tuple({"workload.batch_size": size} for size in range(1, count + 1))
    return study(axes=(Axis(label="b", choices=choices),))


def cost(load_s: float, point_s: float) -> Cost:
    return Cost(load_s=lambda settings: load_s, point_s=lambda settings: point_s)


def test_points_are_every_combination_in_the_order_of_the_axes():
    points, excluded = expand(study(conditions=(LENGTHS,)))
    assert excluded == 0
    assert len(points) == 18
    assert [point.condition for point in points[:9]] == [{"workload.input_tokens": 128}] * 9
    assert points[1].chosen == {"engine.tensor_parallel": 1, "workload.batch_size": 8}
    assert points[3].settings.engine.tensor_parallel == 2
    assert points[17].settings.workload.input_tokens == 2048
    assert len({point.id for point in points}) == 18


def test_a_study_without_axes_is_one_point():
    points, _ = expand(study(axes=()))
    assert [(point.chosen, point.condition) for point in points] == [({}, {})]


def test_choices_that_come_to_the_same_settings_are_one_point():
    twice = Axis(label="x", choices=({"workload.batch_size": 8}, {"workload.batch_size": 8}))
    assert len(expand(study(axes=(twice,)))[0]) == 1


@pytest.mark.parametrize(
    ("entry", "left"),
    [
        ({"engine.tensor_parallel": 1}, 6),
        ({"engine.tensor_parallel": 1, "workload.batch_size": ">8"}, 8),
        ({"workload.batch_size": ">=8"}, 3),
        ({"workload.batch_size": "<8"}, 6),
        ({"workload.batch_size": "<= 8"}, 3),
        ({"workload.batch_size": "!=8"}, 3),
        ({"workload.batch_size": "> 512"}, 9),
        ({"engine.dtype": "bfloat16"}, None),
        ({"engine.dtype": "!=bfloat16"}, 9),
        ({"engine.dtype": "!=float16"}, None),
        ({"engine.dtype": ">a"}, 9),
        ({"engine.graphs": "!=False"}, None),
    ],
)
def test_exclusions(entry, left):
    points, excluded = expand(study(exclude=(entry,)))
    assert len(points) + excluded == 9
    assert len(points) == (left or 0)


def test_an_exclusion_holds_when_all_of_it_holds():
    settings = Settings()
    assert holds({"workload.batch_size": 32, "engine.dtype": "bfloat16"}, settings)
    assert not holds({"workload.batch_size": 32, "engine.dtype": "float16"}, settings)
    assert holds({"workload.batch_size": ">31.5"}, settings)
    assert not holds({"workload.batch_size": ">32"}, settings)


def test_several_exclusions_each_take_out_theirs():
    points, excluded = expand(
        study(exclude=({"engine.tensor_parallel": 1}, {"workload.batch_size": 512}))
    )
    assert (len(points), excluded) == (4, 5)


def test_a_plan_that_excludes_everything_is_a_fault():
    with pytest.raises(StudyError, match="exclude: leaves none of 9 combinations"):
        plan(study(exclude=({"workload.batch_size": ">0"},)))


def ids(**changes) -> set[str]:
    return {point.id for point in expand(study(**changes))[0]}


@pytest.mark.parametrize(
    "changes",
    [
        {"limits": {"tpot_p99_s": 0.05}},
        {"objectives": {"energy_j": "min"}},
        {"search": SearchSpec(seed=7)},
        {"tracking": TrackingSpec(uri="http://127.0.0.1:5000")},
        {"name": "another"},
        {"baseline": {"engine.tensor_parallel": 1}},
        {"resources": ResourcesSpec(max_gpus=2)},
        {"settings": Settings(measure=MeasureSpec(launches=5))},
        {"settings": Settings(measure=MeasureSpec(finalists=FinalistsSpec(blocks=6)))},
    ],
)
def test_ids_do_not_depend_on_why_a_point_is_measured(changes):
    assert ids(**changes) == ids()


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": Settings(measure=MeasureSpec(repeats=5))},
        {"settings": Settings(measure=MeasureSpec(min_window_s=10.0))},
        {"settings": Settings(meter="simulated")},
        {"settings": Settings(workload=WorkloadSpec(output_tokens=65))},
        {"resources": ResourcesSpec(accelerator="H200")},
    ],
)
def test_ids_depend_on_what_is_measured_and_how(changes):
    assert not ids(**changes) & ids()


def test_ids_are_the_same_in_every_process():
    [point] = expand(study(axes=()))[0]
    assert point.id == "13c8427b338b"
    assert point.configuration == "ec463fa067d2"
    [trial] = plan(study(axes=())).trials
    assert (trial.id, trial.launches[0].seed) == ("6c66f8e64d", 465584055885)


def test_digest_ignores_the_order_of_keys_and_nothing_else():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})
    assert digest([1, 2]) != digest([2, 1])
    assert len(digest("x")) == 12
    assert len(digest("x", 10)) == 10


def test_a_configuration_is_what_needs_an_engine_start():
    points, _ = expand(study(conditions=(LENGTHS,)))
    groups = by_configuration(points)
    assert [len(group) for group in groups] == [6, 6, 6]
    assert len({group[0].configuration for group in groups}) == 3
    here = expand(study())[0][0].configuration
    there = expand(study(resources=ResourcesSpec(accelerator="H200")))[0][0].configuration
    assert here != there


def test_sizes_come_from_all_points_of_a_configuration():
    sizes = sizes_of(expand(study(conditions=(LENGTHS,)))[0])
    assert (sizes.max_model_len, sizes.max_batch_size) == (2048 + 64, 512)
    assert sizes.batch_sizes == (1, 8, 512)


def test_sizes_do_not_depend_on_what_is_done_or_how_it_is_cut():
    whole = plan(study())
    done = {(point.id, 0, "full") for point in whole.points[1:]}
    [launch] = plan(study(), done=done).launches
    assert launch.sizes == whole.launches[0].sizes
    assert [point.id for point in launch.points] == [whole.points[0].id]


def test_one_launch_a_configuration_where_the_pool_is_unknown():
    found = plan(study())
    assert len(found.points) == 9
    assert [trial.gpus for trial in found.trials] == [4, 2, 1]
    assert [len(launch.points) for launch in found.launches] == [3, 3, 3]
    assert {(launch.number, launch.stage) for launch in found.launches} == {(0, "full")}
    # A window of the control follows the nine of the points.
    assert found.trials[0].expected_s == 60.0 + (3 + 1 / 3) * nominal_point_s(Settings())
    assert len({trial.id for trial in found.trials}) == 3


def test_every_launch_number_measures_every_point():
    settings = Settings(measure=MeasureSpec(launches=3))
    found = plan(study(settings=settings))
    keys = [
        (point.id, launch.number, launch.stage)
        for launch in found.launches
        for point in launch.points
    ]
    assert len(keys) == len(set(keys)) == 27
    assert {number for _, number, _ in keys} == {0, 1, 2}
    assert len({launch.seed for launch in found.launches}) == 9


def test_what_is_done_is_not_planned_again_and_the_points_stay():
    whole = plan(study())
    done = {(point.id, 0, "full") for point in whole.points}
    assert plan(study(), done=done).trials == ()
    assert plan(study(), done=done).points == whole.points
    other_stage = {(point.id, 0, "final") for point in whole.points}
    other_launch = {(point.id, 1, "full") for point in whole.points}
    assert plan(study(), done=other_stage | other_launch).trials == whole.trials


@given(st.sets(st.integers(0, 26)), st.integers(1, 16), st.integers(1, 200))
def test_a_plan_covers_exactly_what_is_left(done, devices, load_s):
    settings = Settings(measure=MeasureSpec(launches=3))
    points = expand(study())[0]
    keys = [
        (point.id, number, "full")
        for point in expand(study(settings=settings))[0]
        for number in range(3)
    ]
    assert len(points) == 9
    finished = {keys[index] for index in done}
    found = plan(study(settings=settings), done=finished, devices=devices, cost=cost(load_s, 100.0))
    planned = [
        (point.id, launch.number, launch.stage)
        for launch in found.launches
        for point in launch.points
    ]
    assert sorted(planned) == sorted(set(keys) - finished)
    for trial in found.trials:
        assert {p.settings.engine.gpus for p in trial.launches[0].points} == {trial.gpus}


def test_a_long_configuration_is_cut_so_that_the_pool_is_filled():
    one = of_batches(40)
    alone = plan(one, devices=1, cost=cost(10.0, 100.0))
    assert [len(launch.points) for launch in alone.launches] == [40]
    # 4,010 s on two GPUs: half of 2,005 s holds the load and 9 points.
    pair = plan(one, devices=2, cost=cost(10.0, 100.0))
    assert [len(launch.points) for launch in pair.launches] == [8, 8, 8, 8, 8]
    spread = plan(one, devices=8, cost=cost(10.0, 100.0))
    assert len(spread.launches) > 8
    assert max(trial.expected_s for trial in spread.trials) <= 4010 / 8 / 2 + 100


@pytest.mark.parametrize(
    ("launches", "devices", "cut"),
    [
        # A launch is 10 s of load and 90 s of points, each launch of all widths 700 GPU-seconds.
        (1, 3, (1, 1, 1)),
        (1, 4, (2, 2, 1)),
        (1, 7, (3, 3, 1)),
        (1, 8, (3, 3, 3)),
        (2, 4, (1, 1, 1)),
        (2, 7, (1, 1, 1)),
        (2, 8, (2, 2, 2)),
    ],
)
def test_a_pool_is_filled_by_the_launches_of_all_configurations(launches, devices, cut):
    several = study(settings=Settings(measure=MeasureSpec(launches=launches)))
    found = plan(several, devices=devices, cost=cost(10.0, 30.0))
    counted = Counter(trial.gpus for trial in found.trials)
    assert tuple(counted[gpus] for gpus in (1, 2, 4)) == tuple(launches * each for each in cut)


def test_a_single_point_fills_no_pool():
    [launch] = plan(study(axes=()), devices=16, cost=cost(10.0, 30.0)).launches
    assert len(launch.points) == 1


@pytest.mark.parametrize(
    ("limit_s", "load_s", "sizes"),
    [
        (20.0, 60.0, [6, 6]),
        (119.0, 60.0, [6, 6]),
        (121.0, 60.0, [6, 6]),
        (179.0, 60.0, [6, 6]),
        (180.0, 60.0, [12]),
        (40.0, 20.0, [2] * 6),
        (55.0, 15.0, [4, 4, 4]),
    ],
)
def test_a_chunk_fits_beside_its_load_and_is_never_shorter(limit_s, load_s, sizes):
    found = chunks(expand(of_batches(12))[0], limit_s, cost(load_s, 10.0))
    assert [len(chunk) for chunk in found] == sizes


@given(
    st.integers(1, 40),
    st.one_of(st.none(), st.floats(0.1, 1e4)),
    st.floats(0.1, 500),
    st.floats(0.1, 500),
)
def test_chunks_keep_every_point_once_and_are_as_few_as_the_limit_allows(
    count, limit_s, load_s, point_s
):
    points = expand(of_batches(count))[0]
    found = chunks(points, limit_s, cost(load_s, point_s))
    assert sorted(p.id for chunk in found for p in chunk) == sorted(p.id for p in points)
    sizes = [len(chunk) for chunk in found]
    assert max(sizes) - min(sizes) <= 1
    if limit_s is None:
        assert len(found) == 1
    else:
        room_s = max(limit_s - load_s, load_s)
        assert len(found) <= count
        if len(found) < count:
            assert max(sizes) * point_s <= room_s + point_s
        if len(found) > 1:
            assert count * point_s > room_s * (len(found) - 1) * (1 - 1e-9)


def test_chunks_of_nothing():
    assert chunks((), None, NOMINAL) == ()


def test_chunks_balance_points_of_different_lengths_and_keep_their_order():
    points = expand(of_batches(4))[0]
    by_size = Cost(
        load_s=lambda settings: 1.0,
        point_s=lambda settings: float(settings.workload.batch_size),
    )
    found = chunks(points, 6.0, by_size)
    assert [[p.settings.workload.batch_size for p in chunk] for chunk in found] == [[1, 4], [2, 3]]


def trial(name: str, gpus: int, expected_s: float) -> Trial:
    return Trial(id=name, gpus=gpus, launches=(), expected_s=expected_s)


def test_trials_go_by_gpu_seconds_the_largest_first():
    trials = [trial("a", 1, 50.0), trial("b", 4, 20.0), trial("c", 2, 25.0), trial("d", 1, 90.0)]
    assert [each.id for each in largest_first(trials)] == ["d", "b", "a", "c"]


@pytest.mark.parametrize(
    ("limits", "objectives", "needed"),
    [
        ({}, {"energy_j": "min"}, 1),
        ({"tpot_p99_s": 0.05}, {"energy_j": "min"}, 500),
        ({"ttft_p90_s": 0.05}, {"energy_j": "min"}, 50),
        ({}, {"latency_p50_s": "min", "energy_j": "min"}, 10),
        ({"tpot_p99_s": 0.05}, {"latency_p50_s": "min"}, 500),
        ({"tpot_mean_s": 0.05}, {"energy_j": "min"}, 1),
    ],
)
def test_requests_that_percentiles_need(limits, objectives, needed):
    asked = study(limits=limits, objectives=objectives)
    assert min_requests(asked) == needed
    assert plan(asked).launches[0].min_requests == needed


def test_nominal_cost():
    settings = replace(Settings(), measure=MeasureSpec(repeats=3, min_window_s=30.0))
    assert nominal_point_s(settings) == 180.0
    assert NOMINAL.load_s(settings) == 60.0
    assert NOMINAL.point_s(settings) == 180.0
