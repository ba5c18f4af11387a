"""From a study file and words to a `Study`, and back."""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.errors import StudyError
from sweeper.plan import expand
from sweeper.schema import with_values
from sweeper.spec import Axis, ExpectSpec, QualitySpec, Settings, Study
from sweeper.study import dump, load

BASE = "model: {shape: tiny, weights: dummy}\nengine: {kind: simulated}\n"
SWEPT = """
axes:
  engine.tensor_parallel: [1, 2, 4]
  workload.batch_size: [1, 8]
baseline: {engine.tensor_parallel: 1}
"""


@pytest.fixture
def study(tmp_path):
    def write_and_load(text: str, *words: str, name: str = "s.yaml") -> Study:
        (tmp_path / name).write_text(BASE + text, encoding="utf-8")
        return load(tmp_path / name, words)

    return write_and_load


def test_defaults_stand_where_nothing_is_said(study):
    found = study("name: small")
    expected = with_values(
        Settings(), {"model.shape": "tiny", "model.weights": "dummy", "engine.kind": "simulated"}
    )
    assert found == Study(name="small", settings=expected)


def test_a_study_without_a_name_has_its_file_s(study):
    assert study("", name="three.yaml").name == "three"
    assert study("name: null", name="four.yaml").name == "four"


@pytest.mark.parametrize("name", ["tp_study", "Größe-3.x", "模型", "_x", "9", "x" * 100])
def test_a_name_may_be_of_any_letters(study, name):
    assert study(f'name: "{name}"').name == name


def test_a_name_is_composed(study):
    assert study('name: "e\u0301tude"').name == "\u00e9tude"


def test_a_section_left_empty_sets_nothing(study):
    assert study("measure:\n  warmup:\n") == study("")


def test_axes_of_one_key_and_of_several(study):
    found = study(
        """
axes:
  workload.batch_size: [1, 8]
  pair:
    - {engine.dtype: float16, engine.graphs: false}
    - {engine.dtype: float32}
conditions:
  - {workload.input_tokens: 128, workload.output_tokens: 16}
  - {workload.input_tokens: 256}
"""
    )
    assert found.axes == (
        Axis(
            label="workload.batch_size",
            choices=({"workload.batch_size": 1}, {"workload.batch_size": 8}),
        ),
        Axis(
            label="pair",
            choices=(
                {"engine.dtype": "float16", "engine.graphs": False},
                {"engine.dtype": "float32", "engine.graphs": True},
            ),
        ),
    )
    assert found.conditions == (
        Axis(
            label="conditions",
            choices=(
                {"workload.input_tokens": 128, "workload.output_tokens": 16},
                {"workload.input_tokens": 256, "workload.output_tokens": 64},
            ),
        ),
    )


def test_an_axis_of_a_section_has_relative_keys(study):
    found = study("axes: {engine: [{kind: vllm}, {kind: simulated, compile: false}]}")
    assert found.axes[0].choices == (
        {"engine.kind": "vllm", "engine.compile": True},
        {"engine.kind": "simulated", "engine.compile": False},
    )


def test_axes_may_be_one_list(study):
    found = study("axes: [{workload.batch_size: 1, engine.graphs: false}, {engine.dtype: float32}]")
    assert [axis.label for axis in found.axes] == ["axes"]
    assert found.axes[0].choices[1] == {
        "workload.batch_size": 32,
        "engine.graphs": True,
        "engine.dtype": "float32",
    }


def test_an_axis_may_take_mappings_and_go_below_them(study):
    found = study(
        """
conditions: {workload.arrival: [{kind: closed}, {kind: poisson, rate_rps: 4}]}
axes:
  engine.speculative: [null, {kind: draft, model: m, tokens: 4}]
  engine.options.noise: [0, 0.1]
"""
    )
    assert found.conditions[0].choices[1] == {
        "workload.arrival": {"kind": "poisson", "rate_rps": 4}
    }
    assert found.axes[0].choices[0] == {"engine.speculative": None}
    points, _ = expand(found)
    assert {point.settings.engine.options["noise"] for point in points} == {0, 0.1}


def test_exclusions_are_values_and_comparisons(study):
    found = study(
        SWEPT
        + """
exclude:
  - {engine.tensor_parallel: 1, workload.batch_size: ' > 4'}
  - {engine.kind: '!= simulated'}
  - {engine.compile: false}
"""
    )
    assert found.exclude[0] == {"engine.tensor_parallel": 1, "workload.batch_size": ">4"}
    points, excluded = expand(found)
    assert (len(points), excluded) == (5, 1)


def test_a_reference_takes_the_other_key_s_value(study):
    found = study(
        """
name: "${model.shape}-${workload.input_tokens}"
workload: {input_tokens: 96, output_tokens: "${workload.input_tokens}"}
measure: {repeats: "${measure.launches}"}
"""
    )
    assert found.name == "tiny-96"
    assert found.settings.workload.output_tokens == 96
    assert found.settings.measure.repeats == 1


def test_a_reference_may_stand_in_an_axis_and_for_a_mapping(study):
    found = study(
        'axes: {workload.batch_size: ["${measure.launches}", 8]}\nmeter: auto',
        "engine.kind=transformers",
        "engine.options={again: '${workload.arrival}'}",
    )
    assert found.settings.engine.options == {"again": {"kind": "closed"}}
    assert found.axes[0].choices[0] == {"workload.batch_size": 1}


def test_claims_are_read(study):
    found = study(
        """
expect:
  - {when: {engine.tensor_parallel: 4}, against: {engine.tensor_parallel: 1},
     metric: energy_j, change: +29.3%, source: figure 6}
quality: {command: ./score, min: 0.5}
demand: {requests_per_s: 40, gpus: 8}
"""
    )
    assert found.expect == (
        ExpectSpec(
            when={"engine.tensor_parallel": 4},
            against={"engine.tensor_parallel": 1},
            metric="energy_j",
            change="+29.3%",
            source="figure 6",
        ),
    )
    assert found.quality == QualitySpec(command="./score", min=0.5)
    assert found.demand is not None
    assert found.demand.requests_per_s == 40.0


def test_a_study_s_folder_is_loaded_as_resolved(study, tmp_path):
    found = study(SWEPT)
    folder = tmp_path / "mlruns" / "studies" / "s"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(dump(found))
    assert load(folder) == found
    assert load(str(folder / "study.yaml")) == found


def test_a_rehearsal_is_loaded_from_its_folder_alone(study, tmp_path):
    found = replace(study(SWEPT), name="x" * 100 + ".rehearsal")
    folder = tmp_path / found.name
    folder.mkdir()
    (folder / "study.yaml").write_text(dump(found))
    assert load(folder) == found
    (tmp_path / "other.yaml").write_text(dump(found))
    with pytest.raises(StudyError, match="name"):
        load(tmp_path / "other.yaml")


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda text: text.strip() and "${" not in text and text != "???"
)
TRICKY = st.sampled_from(
    ["off", "1e3", "0x1", "12:30", "null", "~", "2020-01-01", "1_0", "<<", "="]
)
WORD = TEXT | TRICKY
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e9, 1e9) | WORD,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORD, inner, max_size=2),
    max_leaves=4,
)
BATCHES = st.lists(st.integers(1, 999), min_size=1, max_size=4, unique=True)


@pytest.mark.long
@settings(max_examples=40)
@given(
    st.dictionaries(WORD.filter(lambda word: "token" not in word.lower()), PLAIN, max_size=3),
    WORD,
    BATCHES,
    BATCHES,
)
def test_what_is_dumped_loads_to_an_equal_study(options, revision, batches, lengths):
    changed = with_values(
        Settings(),
        {
            "engine.kind": "transformers",
            "model.id": revision,
            "model.revision": revision,
            "engine.options": options,
        },
    )
    found = Study(
        name="s",
        settings=changed,
        axes=(
            Axis(
                label="workload.batch_size",
                choices=tuple({"workload.batch_size": size} for size in batches),
            ),
            Axis(
                label="both",
                choices=(
                    {"engine.dtype": "float16", "model.shape": None},
                    {"engine.dtype": "float32", "model.shape": "tiny"},
                ),
            ),
        ),
        conditions=(
            Axis(
                label="conditions",
                choices=tuple(
                    {"workload.input_tokens": length, "workload.seed": length} for length in lengths
                ),
            ),
        ),
        exclude=({"workload.batch_size": ">1000", "engine.compile": False},),
        limits={"latency_mean_s": 1.0},
    )
    assert reloaded(dump(found)) == found


def reloaded(text: str) -> Study:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "study.yaml").write_text(text, encoding="utf-8")
        return load(folder)


def test_importing_the_study_file_loads_nothing_heavy():
    heavy = "torch ray mlflow vllm pynvml transformers codecarbon pandas"
    code = f"import sys, sweeper.study; print([m for m in '{heavy}'.split() if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
