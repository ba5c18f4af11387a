"""Words of the command line, and one study file over another."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.plan import expand
from sweeper.schema import flat
from sweeper.study import load

BASE = "model: {shape: tiny, weights: dummy}\nengine: {kind: simulated}\n"
SWEPT = """
axes:
  engine.tensor_parallel: [1, 2, 4]
  workload.batch_size: [1, 8]
baseline: {engine.tensor_parallel: 1}
"""


@pytest.fixture
def study(tmp_path):
    def write_and_load(text: str, *words: str):
        (tmp_path / "s.yaml").write_text(BASE + text)
        return load(tmp_path / "s.yaml", words)

    return write_and_load


def test_words_override_keys_and_the_last_one_counts(study):
    found = study(
        "name: a\nlimits: {ttft_p50_s: 1}",
        "name=b",
        "workload.batch_size=4",
        "workload.batch_size = 8",
        "limits.latency_mean_s=2",
        "search.seed=3",
        "demand.gpus=8",
        "demand.requests_per_s=1",
        "engine.options.noise=0.1",
        "quality=unchecked_ok",
        "measure={repeats: 5, warmup: {max_batches: 9}}",
    )
    assert found.name == "b"
    assert found.settings.workload.batch_size == 8
    assert found.limits == {"ttft_p50_s": 1.0, "latency_mean_s": 2.0}
    assert found.search.seed == 3
    assert found.demand is not None
    assert found.settings.engine.options == {"noise": 0.1}
    assert found.quality == "unchecked_ok"
    assert (found.settings.measure.repeats, found.settings.measure.min_window_s) == (5, 30.0)
    assert found.settings.measure.warmup.min_batches == 4


def test_a_word_over_a_swept_key_takes_its_axis_away(study):
    found = study(SWEPT, "engine.tensor_parallel=2")
    assert [axis.label for axis in found.axes] == ["workload.batch_size"]
    assert found.settings.engine.tensor_parallel == 2
    assert found.baseline == {}


def test_a_list_replaces_an_axis_in_its_place(study):
    found = study(SWEPT, "engine.tensor_parallel=[4, 1]")
    assert [axis.label for axis in found.axes] == ["engine.tensor_parallel", "workload.batch_size"]
    assert [choice["engine.tensor_parallel"] for choice in found.axes[0].choices] == [4, 1]


def test_a_list_makes_an_axis_or_a_condition(study):
    found = study(SWEPT, "engine.dtype=[float16, float32]", "workload.input_tokens=[64, 128]")
    assert [axis.label for axis in found.axes][-1] == "engine.dtype"
    assert [axis.label for axis in found.conditions] == ["workload.input_tokens"]


def test_a_list_over_a_condition_stays_a_condition(study):
    text = "conditions: {engine.dtype: [float16, float32]}"
    found = study(text, "engine.dtype=[float32, bfloat16]")
    assert found.axes == ()
    assert [choice["engine.dtype"] for choice in found.conditions[0].choices] == [
        "float32",
        "bfloat16",
    ]


def test_a_word_over_a_key_that_moves_with_others(study):
    text = """
axes:
  engine: [{dtype: float16, graphs: false}, {dtype: float32, graphs: false}, {graphs: true}]
"""
    found = study(text, "engine.dtype=bfloat16")
    assert found.axes[0].choices == ({"engine.graphs": False}, {"engine.graphs": True})
    assert study(text, "engine.dtype=float16", "engine.graphs=true").axes == ()
    listed = study(
        "axes: [{engine.dtype: float16, engine.graphs: false}, {engine.dtype: float32}]",
        "engine.dtype=[bfloat16, float32]",
    )
    assert [axis.label for axis in listed.axes] == ["axes", "engine.dtype"]
    assert listed.axes[0].choices == ({"engine.graphs": False},)


def test_a_word_over_a_whole_mapping_takes_away_what_was_swept_below_it(study):
    found = study("axes: {engine.options.noise: [0, 0.1]}", "engine.options={noise: 0.05}")
    assert found.axes == ()
    assert found.settings.engine.options == {"noise": 0.05}


def test_words_reach_axes_and_the_baseline_by_name(study):
    found = study(
        SWEPT, "axes.engine.tensor_parallel=[2, 4]", "baseline={engine.tensor_parallel: 2}"
    )
    assert len(found.axes[0].choices) == 2
    assert found.baseline == {"engine.tensor_parallel": 2}
    assert study(SWEPT, "axes={}", "baseline={}").axes == ()


def test_a_file_extends_another_key_by_key(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "base.yaml").write_text(
        BASE
        + SWEPT
        + "name: base\nworkload: {batch_size: 4, arrival: {kind: poisson, rate_rps: 1}}\n"
        + "limits: {ttft_p50_s: 1}\ndemand: {gpus: 8, requests_per_s: 1}"
    )
    (tmp_path / "middle.yaml").write_text(
        "extends: a/base.yaml\nworkload: {arrival: {kind: closed}, input_tokens: 64}\n"
        "limits: {latency_mean_s: 2}\ndemand: {gpus: 4}\nengine:\n"
    )
    (tmp_path / "top.yaml").write_text("extends: middle.yaml\nworkload: {input_tokens: 96}")
    found = load(tmp_path / "top.yaml")
    assert found.name == "top"
    assert found.settings.engine.kind == "simulated"
    assert found.settings.workload.batch_size == 4
    assert found.settings.workload.input_tokens == 96
    assert found.settings.workload.arrival == {"kind": "closed"}
    assert found.limits == {"latency_mean_s": 2.0}
    assert found.demand is not None
    assert (found.demand.gpus, found.demand.requests_per_s) == (4, 1.0)
    assert [axis.label for axis in found.axes] == ["engine.tensor_parallel", "workload.batch_size"]
    assert found.baseline == {"engine.tensor_parallel": 1}


def test_a_key_set_over_an_extended_file_replaces_its_axis_unless_axes_are_given(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE + SWEPT + "meter: simulated")
    (tmp_path / "one.yaml").write_text("extends: base.yaml\nengine: {tensor_parallel: 2}")
    found = load(tmp_path / "one.yaml")
    assert [axis.label for axis in found.axes] == ["workload.batch_size"]
    assert found.settings.engine.tensor_parallel == 2
    (tmp_path / "two.yaml").write_text(
        "extends: base.yaml\nengine: {tensor_parallel: 2}\nmeter: auto\nbaseline: {}\n"
        "axes: {engine.tensor_parallel: [4]}"
    )
    found = load(tmp_path / "two.yaml")
    assert found.axes[0].choices == ({"engine.tensor_parallel": 4},)
    assert found.settings.meter == "auto"


SETTABLE = {
    "engine.tensor_parallel": st.integers(1, 8),
    "engine.dtype": st.sampled_from(["float16", "bfloat16", "float32"]),
    "engine.graphs": st.booleans(),
    "workload.batch_size": st.integers(1, 512),
    "workload.input_tokens": st.integers(1, 512),
}


@pytest.mark.long
@settings(max_examples=40)
@given(st.data(), st.lists(st.sampled_from(sorted(SETTABLE)), max_size=5))
def test_after_any_words_the_last_of_each_key_is_what_every_point_has(tmp_path_factory, data, keys):
    file = tmp_path_factory.mktemp("w") / "w.yaml"
    file.write_text(BASE + SWEPT.replace("baseline", "#"))
    last, words = {}, []
    for key in keys:
        values = data.draw(st.lists(SETTABLE[key], min_size=1, max_size=3, unique=True))
        single = data.draw(st.booleans())
        last[key] = values[:1] if single else values
        shown = [str(each).lower() for each in last[key]]
        words.append(f"{key}={shown[0]}" if single else f"{key}=[{', '.join(shown)}]")
    points, _ = expand(load(file, words))
    expected = {"engine.tensor_parallel": [1, 2, 4], "workload.batch_size": [1, 8], **last}
    for key, values in expected.items():
        assert {flat(point.settings)[key] for point in points} == set(values)
    count = 1
    for values in expected.values():
        count *= len(values)
    assert len(points) == count
