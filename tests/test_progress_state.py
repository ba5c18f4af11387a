"""What happened, put together: counts that add up in any order, and how long the rest takes."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.plan import plan
from sweeper.progress.snapshot import STATUSES, Snapshot
from sweeper.progress.state import TROUBLES, State, aged
from sweeper.spec import Axis
from tests.records import make_record, two_objectives
from tests.snapshots import snapshot
from tests.studies import simulated

ENERGY = {"source": "nvml", "measured": True, "method": "counter", "scope": "gpu"}


def study_of(widths, sizes):
    """A study of one launch for each width, with a point of each batch size."""
    study = simulated(batch_sizes=sizes)
    wide = Axis(
        label="engine.tensor_parallel",
        choices=tuple({"engine.tensor_parallel": width} for width in widths),
    )
    return replace(study, axes=(wide, *study.axes))


STUDY = study_of((1, 2, 4), (1, 2))
TRIALS = plan(STUDY).trials
POINTS = [(trial, point) for trial in TRIALS for point in trial.launches[0].points]


def state(trials=TRIALS, **fields):
    made = State(STUDY, (), 0, Path("x"))
    made.planned(trials, **fields)
    return made


def tell(to, trial, kind, now_s=0.0, **fields):
    to.event(trial, {"kind": kind, **fields}, now_s)


def lease(to, trial, now_s=0.0):
    tell(to, trial, "trial", now_s, devices=["GPU"] * trial.gpus, host="node-1")


def window(to, trial, point, now_s, energy_j=10.0, reasons=()):
    told = {"energy_j": energy_j, "reasons": list(reasons), "energy": ENERGY}
    tell(to, trial, "window", now_s, id=point.id, launch=0, stage="full", **told)


def verdict(to, trial, point, now_s, status="ok"):
    metrics = two_objectives(1.0, 1.0) if status == "ok" else {}
    record = make_record(point.id, trial_id=trial.id, status=status, metrics=metrics, reason="a: b")
    to.record(record, now_s)


EVENTS = st.one_of(
    st.tuples(st.just("trial"), st.integers(0, 2)),
    st.tuples(st.sampled_from(["launched", "death", "ended", "log"]), st.integers(0, 2)),
    st.tuples(st.sampled_from(["phase", "window", "discard"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(STATUSES), st.integers(0, 5)),
    st.tuples(st.just("more"), st.integers(0, 2)),
)


@given(events=st.lists(st.tuples(EVENTS, st.floats(0, 100)), max_size=60), begun=st.integers(0, 3))
def test_whatever_happens_the_counts_add_up(events, begun):
    made, now_s, joules, discards, leases = state(TRIALS[:begun]), 0.0, 0.0, 0, 0
    seen, before = set(), 0
    for (kind, number), later_s in events:
        now_s += later_s
        trial, point = POINTS[number] if kind not in ("trial", "more") else (TRIALS[number], None)
        match kind:
            case "trial":
                lease(made, trial, now_s)
                leases += 1
            case "phase":
                tell(made, trial, "phase", now_s, phase="window", point=point.id)
            case "window" | "discard":
                energy_j = 10.0 if kind == "window" else None
                window(made, trial, point, now_s, energy_j, ["counter_stuck: x"])
                joules += energy_j or 0.0
                discards += energy_j is None
            case "launched":
                tell(made, trial, "launched", now_s)
            case "death":
                tell(made, trial, "death", now_s, reason=f"died: {now_s}")
            case "ended":
                tell(made, trial, "ended", now_s, gpu_seconds=later_s)
            case "log":
                tell(made, trial, "attachment", now_s, role="engine_log", name="a", data="")
            case "more":
                made.planned([trial])
            case status:
                verdict(made, trial, point, now_s, status)
                seen.add(point.id)
        now = made.snapshot(now_s)
        assert now.done == sum(now.counts.values()) == len(seen)
        assert now.asked == now.done + now.left
        assert now.left >= 0
        assert now.gpu_seconds >= 0.0
        assert now.leases == leases
        assert sum(now.discards.values()) == discards
        assert sum(now.energy_j.values()) == pytest.approx(joules)
        assert len(now.under_way) <= len(TRIALS)
        assert len(now.troubles) <= TROUBLES
        assert now.share is None or 0.0 <= now.share <= 1.0
        assert now.left_s is None or now.left_s >= 0.0
        assert now.left_s is None or now.left
        assert Snapshot.from_json(now.to_json()) == now
        assert now.done >= before
        before = now.done


def test_a_failure_that_was_mended_is_none():
    made = state()
    trial, point = POINTS[0]
    verdict(made, trial, point, 1.0, "failed")
    assert made.snapshot(1.0).counts["failed"] == 1
    verdict(made, trial, point, 2.0, "infeasible")
    verdict(made, trial, point, 3.0, "failed")
    now = made.snapshot(3.0)
    assert (now.counts["failed"], now.counts["infeasible"], now.done) == (0, 1, 1)


def test_a_launch_under_way_is_told_with_its_place_phase_and_point():
    made = state()
    trial, point = POINTS[0]
    lease(made, trial, 10.0)
    tell(made, trial, "phase", 12.0, phase="load", point=None)
    tell(made, trial, "phase", 40.0, phase="warm-up", point=point.id)
    [found] = made.snapshot(45.0).under_way
    assert (found.node, found.gpus, found.phase, found.phase_s) == ("node-1", 4, "warm-up", 5.0)
    assert found.point == "tensor_parallel=4, batch_size=1"
    assert (found.held_s, found.points, found.points_done) == (35.0, 2, 0)
    tell(made, trial, "death", 50.0, reason="lost: the actor is gone")
    now = made.snapshot(1000.0)
    assert (now.under_way, now.deaths, now.gpu_seconds) == ((), {"lost": 1}, 160.0)


def test_nothing_is_said_of_the_time_left_before_something_is_done():
    made = state()
    trial, point = POINTS[0]
    lease(made, trial)
    tell(made, trial, "phase", 60.0, phase="window", point=point.id)
    assert made.snapshot(100.0).left_s is None
    window(made, trial, point, 120.0)
    assert made.snapshot(120.0).left_s is not None


def test_loads_and_windows_are_counted_for_what_they_took():
    [trial] = plan(study_of((1,), (1, 2))).trials
    first, second = trial.launches[0].points
    made = state([trial])
    lease(made, trial)
    tell(made, trial, "phase", 100.0, phase="warm-up", point=first.id)
    window(made, trial, first, 110.0)
    # Three windows of ten seconds are left, and no load.
    assert made.snapshot(110.0).left_s == pytest.approx(30.0)
    assert made.snapshot(115.0).left_s == pytest.approx(25.0)
    assert made.snapshot(150.0).left_s == pytest.approx(20.0)
    # It dies: all four windows are left, and a load like the first.
    tell(made, trial, "death", 150.0, reason="hang: x")
    assert made.snapshot(150.0).left_s == pytest.approx(140.0)
    retried = replace(trial, attempt=1)
    lease(made, retried, 200.0)
    assert made.snapshot(230.0).left_s == pytest.approx(110.0)
    tell(made, retried, "phase", 300.0, phase="window", point=second.id)
    verdict(made, retried, second, 300.0, "infeasible")
    assert made.snapshot(300.0).left_s == pytest.approx(20.0)


def test_gpus_in_parallel_share_the_rest_and_the_longest_trial_bounds_it():
    trials = plan(study_of((1, 2, 4), (1,))).trials
    four, two, one = trials
    made = state(trials)
    for trial in (four, two):
        lease(made, trial)
        [point] = trial.launches[0].points
        tell(made, trial, "phase", 0.0, phase="window", point=point.id)
        window(made, trial, point, 60.0)
    # Six GPUs were held at once. Left are a window each of four and two, and all of one: two
    # windows, which no other GPU can help with.
    assert made.snapshot(60.0).left_s == pytest.approx(120.0)
    verdict(made, one, one.launches[0].points[0], 60.0, "failed")
    assert made.snapshot(60.0).left_s == pytest.approx(60.0)


def test_a_search_has_no_time_left_and_no_share_until_it_asks_for_no_more():
    made = state(TRIALS[:1], more=True, budget="3 launches")
    trial, point = POINTS[0]
    lease(made, trial)
    tell(made, trial, "phase", 0.0, phase="window", point=point.id)
    window(made, trial, point, 60.0)
    now = made.snapshot(60.0)
    assert (now.more, now.budget, now.left_s, now.share) == (True, "3 launches", None, None)
    made.planned(TRIALS[1:])
    now = made.snapshot(60.0)
    assert now.more is False
    assert (now.asked, now.launches) == (6, 3)
    assert now.left_s is not None


def test_what_depends_on_the_clock_alone_is_brought_up_to_now():
    now = aged(snapshot(launches=1, left_s=10.0), 4.0)
    assert (now.under_way[0].phase_s, now.left_s) == (16.0, 6.0)
    assert aged(snapshot(left_s=1.0), 4.0).left_s == 0.0
    assert aged(snapshot(left_s=None), 4.0).left_s is None


def test_500_points_are_told_without_slowing_them():
    study = simulated(batch_sizes=tuple(range(1, 501)))
    [trial] = plan(study).trials
    made = State(study, (), 0, Path("x"))
    made.planned([trial])
    lease(made, trial)
    took = []
    for number, point in enumerate(trial.launches[0].points):
        record = make_record(
            point.id, trial_id=trial.id, chosen=point.chosen, metrics=two_objectives(1.0, number)
        )
        before_s = time.perf_counter()
        made.record(record, number / 100)
        made.best_for(record, number / 100)
        made.snapshot(number / 100)
        took.append(time.perf_counter() - before_s)
    now = made.snapshot(10.0)
    assert (now.done, now.counts["ok"], now.left_s) == (500, 500, None)
    # Far from what it takes; with all records pooled for each of them it took minutes.
    assert sum(took) < 20.0
