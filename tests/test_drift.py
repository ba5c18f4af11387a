"""Drift of each GPU, from the records of controls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.answers.best import answers
from sweeper.answers.drift import drift_object, drifts
from sweeper.answers.page import page
from sweeper.answers.summary import answers_object
from sweeper.results.contents import Contents
from sweeper.results.record import Record
from tests.records import make_record, two_objectives
from tests.studies import simulated


def control(name: str, *gpus: str, energy: float | None, tpot: float | None) -> Record:
    ratios = {"energy_drift_ratio": energy, "tpot_drift_ratio": tpot}
    told = {key: value for key, value in ratios.items() if value is not None}
    devices = {"gpus": [{"uuid": gpu, "name": "H100"} for gpu in gpus]}
    return make_record(
        name,
        metrics=two_objectives(1.0, 1.0, **told),
        environment={"host": "node-1", "devices": devices},
    )


def test_a_launch_tells_of_each_of_its_gpus_and_others_tell_nothing() -> None:
    records = [
        control("a", "GPU-0", "GPU-1", energy=1.02, tpot=1.0),
        control("b", "GPU-0", energy=0.9, tpot=None),
        control("c", "GPU-0", energy=1.05, tpot=1.1),
        control("d", "GPU-2", energy=None, tpot=None),
    ]
    first, second = drifts(records)
    assert drift_object(first) == {
        "gpu": "GPU-0",
        "name": "H100",
        "host": "node-1",
        "energy_drift_ratio": {"controls": 3, "median": 1.02, "extreme": 0.9},
        "tpot_drift_ratio": {"controls": 2, "median": pytest.approx(1.05), "extreme": 1.1},
    }
    assert second.gpu == "GPU-1"
    assert second.ratios["energy_drift_ratio"].controls == 1


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.floats(0.5, 2.0)), max_size=12))
def test_the_extreme_is_the_furthest_from_no_drift(told: list[tuple[str, float]]) -> None:
    records = [
        control(str(place), gpu, energy=ratio, tpot=None) for place, (gpu, ratio) in enumerate(told)
    ]
    found = {each.gpu: each.ratios["energy_drift_ratio"] for each in drifts(records)}
    assert found.keys() == {gpu for gpu, _ in told}
    for gpu, each in found.items():
        mine = [ratio for name, ratio in told if name == gpu]
        assert each.controls == len(mine)
        assert each.extreme in mine
        assert max(abs(ratio - 1) for ratio in mine) == abs(each.extreme - 1)
        assert min(mine) <= each.median <= max(mine)


def test_a_discarded_energy_tells_no_drift_of_energy() -> None:
    record = control("a", "GPU-0", energy=1.5, tpot=1.1)
    invalid = make_record(
        "a", status="energy_invalid", metrics=record.metrics, environment=record.environment
    )
    [found] = drifts([invalid])
    assert found.ratios.keys() == {"tpot_drift_ratio"}


def test_the_page_and_the_json_show_it() -> None:
    study = simulated()
    records = [control("a", "GPU-0", energy=1.021, tpot=None)]
    found = answers(records, study)
    assert answers_object("s", found, records)["drift"] == [
        drift_object(each) for each in drifts(records)
    ]
    text = page(study, Contents(records=tuple(records)), found)
    assert "Drift of each GPU within its launches" in text
    assert "+2.1 %" in text
    bare = [make_record("a")]
    assert "Drift of each GPU" not in page(study, Contents(records=tuple(bare)), found)
