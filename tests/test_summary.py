import json

import pytest

from sweeper.answers.best import answers
from sweeper.answers.summary import answers_object, counts, gpu_seconds, launches, summary
from sweeper.spec import Settings, Study
from tests.records import make_record, two_objectives

STUDY = Study(name="a_study", settings=Settings(), limits={"latency_mean_s": 5.0})
ENTRY = {"id", "config", "metrics", "energy", "launches", "gpus", "launch_command"}


def records():
    return [
        make_record("a", metrics=two_objectives(1, 9), gpus=2, trial_id="t1"),
        make_record("b", metrics=two_objectives(2, 3), gpus=2, trial_id="t1", configuration="c"),
        make_record("b", launch=1, status="failed", reason="node lost", trial_id="t2"),
        make_record("c", status="infeasible", reason="out of memory"),
        make_record("d", status="energy_invalid", metrics=two_objectives(1, 1)),
        make_record("e", status="wrong_setting", reason="eager"),
    ]


def told(given):
    return summary(
        "a_study",
        given,
        answers(given, STUDY),
        points=7,
        gpu_seconds=60.0,
        wall_seconds=12.5,
        tracking_uri="sqlite:///mlruns/mlflow.db",
    )


def test_the_summary_is_the_object_that_was_promised():
    found = told(records())
    assert list(found) == [
        *("study", "points", "ok", "energy_invalid", "wrong_setting", "infeasible", "failed"),
        *("launches", "gpu_seconds", "wall_seconds", "discarded", "answers", "claims"),
        *("report", "tracking_uri"),
    ]
    numbers = ("points", "ok", "energy_invalid", "wrong_setting", "infeasible", "failed")
    assert [found[name] for name in numbers] == [7, 1, 1, 1, 1, 1]
    assert (found["gpu_seconds"], found["wall_seconds"], found["report"]) == (60.0, 12.5, None)
    (answer,) = found["answers"]
    assert set(answer) == {"condition", "front", "best", "why", "nearest_miss", "savings"}
    assert [set(each) for each in answer["front"]] == [ENTRY | {"ties"}] * 2
    assert answer["best"] == answer["front"][1]
    energy = {"source": "nvml", "measured": True, "scope": "gpu", "systematic": 0.05}
    assert answer["best"]["energy"] == energy
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_what_is_uncertain_is_marked_in_the_entry():
    record = make_record(
        "a",
        metrics=two_objectives(1, 1, ttft_p99_s=1),
        undersampled=["ttft_p99_s"],
        config={"engine.quantization": "fp8"},
    )
    (answer,) = answers_object("s", answers([record], STUDY), [record])["answers"]
    (entry,) = answer["front"]
    assert (entry["undersampled"], entry["quality"]) == (["ttft_p99_s"], "unchecked")
    assert answer["best"] is None
    assert answer["nearest_miss"]["id"] == "a"


def test_a_nearest_miss_says_which_limit_by_how_much():
    record = make_record("a", metrics=two_objectives(1, 6.0))
    found = answers_object("s", answers([record], STUDY), [record])
    miss = found["answers"][0]["nearest_miss"]
    assert set(miss) == ENTRY | {"reason", "limit", "value", "excess"}
    assert miss["limit"] == {"metric": "latency_mean_s", "bound": 5.0, "kind": "upper"}
    assert (miss["value"], miss["excess"]) == (6.0, pytest.approx(0.2))


def test_a_result_without_a_meter_has_no_energy():
    record = make_record("a", metrics={"latency_mean_s": 1.0}, energy=None)
    (answer,) = answers([record], STUDY, objectives={"latency_mean_s": "min"})
    assert answers_object("s", [answer], [record])["answers"][0]["best"]["energy"] is None


def test_a_point_counts_once_under_its_worst():
    given = [make_record("a"), make_record("a", launch=1, status="energy_invalid")]
    assert counts(given) == {"energy_invalid": 1}
    retried = [make_record("a", status="failed"), make_record("a", attempt=1)]
    assert counts(retried) == {"ok": 1}


def test_gpu_seconds_are_those_of_launches_not_of_points():
    def record(name, started, ended, **fields):
        times = {"started_at": f"2026-01-01T00:00:{started}+00:00"}
        return make_record(name, ended_at=f"2026-01-01T00:00:{ended}+00:00", **times, **fields)

    same = {"trial_id": "t", "configuration": "c", "gpus": 4}
    given = [record("a", "00", "10", **same), record("b", "00", "30", **same)]
    given.append(record("c", "00", "05", trial_id="u", gpus=1))
    assert launches(given) == 2
    assert gpu_seconds(given) == 125.0
    assert (launches([]), gpu_seconds([])) == (0, 0)
