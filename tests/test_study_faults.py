"""Bad study files: every fault in one message that names the place, the key and the way out."""

import pytest

from sweeper.errors import StudyError
from sweeper.study import load

BASE = "model: {shape: tiny, weights: dummy}\nengine: {kind: simulated}\n"
SIZES = "axes: {workload.batch_size: [1, 8]}\n"


@pytest.fixture
def faults(tmp_path, monkeypatch):
    """What is said of a text that stands in `s.yaml` over two lines of a sound study."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.yaml").write_text(BASE)

    def of(text: str | bytes, *words: str) -> tuple[str, ...]:
        raw = text if isinstance(text, bytes) else f"extends: base.yaml\n{text}".encode()
        (tmp_path / "s.yaml").write_bytes(raw)
        with pytest.raises(StudyError) as caught:
            load("s.yaml", words)
        assert "<object" not in str(caught.value)
        return caught.value.faults

    return of


ONE_FAULT = [
    ("extend: x", "s.yaml:2: extend: unknown key; did you mean extends?"),
    ("batch_size: 4", "s.yaml:2: batch_size: unknown key; did you mean workload.batch_size?"),
    ("engine.dtype: float16", "write engine: {dtype: ...}"),
    ("engine:\n  dtyp: float16", "s.yaml:3: engine.dtyp: unknown key; did you mean engine.dtype?"),
    ("1: 2", "s.yaml:2: 1: unknown key; known here: extends, model, engine"),
    ("engine: 5", "s.yaml:2: engine: 5 given, wanted: {kind, simulates, mode"),
    (
        "engine: {quantization: off}",
        'YAML reads off as false; if the word is meant, quote it: "off"',
    ),
    (
        "model: {shape: tiny, revision: 1e5}",
        'YAML reads 1e5 as 100000.0; if the word is meant, quote it: "1e5"',
    ),
    ("engine: {dtype: 16}", "engine.dtype: 16 given, wanted: bfloat16, float16, float32"),
    ("workload: {batch_size: [1, 2]}", "its values go under axes: as workload.batch_size: [...]"),
    (
        "workload: {input_tokens: [1, 2]}",
        "its values go under conditions: as workload.input_tokens",
    ),
    ("measure: {repeats: [1, 2]}", "it is how a point is measured, not a choice"),
    (
        "workload: {arrival: {kind: closed, rate_rps: 4}}",
        "s.yaml:2: workload.arrival.rate_rps: is no key of kind closed",
    ),
    (
        "workload: {arrival: {kind: poisson}}",
        "workload.arrival.rate_rps: missing: a number above 0",
    ),
    (
        "workload: {arrival: {rate_rps: 4}}",
        "workload.arrival.kind: missing, wanted: closed, poisson",
    ),
    ("engine: {speculative: {kind: stated, acceptance: 2, tokens: 4}}", "at least 0 and at most 1"),
    ("engine: {speculative: {kind: ngram}}", "engine.speculative.tokens: missing"),
    ("engine: {speculative: {kind: ngram, tokens: 4, n: 1}}", "is no key of kind ngram"),
    (
        "engine: {speculative: {kind: stated, acceptance: 1, tokens: 4}}",
        "engine.speculative: model: no known shape is smaller than",
    ),
    (
        (
            "model: {id: a/b, weights: auto}\n"
            "engine: {kind: vllm, speculative: {kind: draft, model: tiny, tokens: 4}}"
        ),
        "tiny is a shape and has no weights of its own",
    ),
    ("workload: {task: x}", "workload.task: is a key of kind tasks, and workload.kind is fixed"),
    ("workload: {sample: 3}", "workload.sample: is a key of kind trace"),
    ("workload: {kind: tasks}", "workload.task: missing"),
    ("workload: {kind: trace}", "workload.trace: missing"),
    ("measure: {warmup: {min_batches: 30}}", "30 is more than max_batches, which is 20"),
    ("meter: simulated\nengine: {kind: transformers}", "meter: simulated has nothing to read of"),
    ("workload: {batching: static}\nmeasure: {window: steady}", "steady cannot be had with"),
    ("model: {shape: tinny}", 'model.shape: no shape "tinny"; did you mean tiny? All:'),
    (
        "model: {shape: null}",
        "model: neither model.id nor model.shape is set; shapes: llama-3.1-70b",
    ),
    ("model: {weights: auto}\nengine: {kind: transformers}", "auto needs model.id"),
    (
        "model: {weights: dummy_engine}\nengine: {kind: transformers}",
        "with engine.kind transformers use dummy",
    ),
    ("engine: {tensor_parallel: 4}\nresources: {max_gpus: 2}", "a trial of 4 GPUs is wider than 2"),
    ("engine: {options: {nois: 1}}", "s.yaml:2: engine.options.nois: not an option"),
    ("engine: {env: {HF_TOKEN: abc}}", "set it in the environment of the command"),
    ("engine: {kind: vllm, options: {hf_token: abc}}", "set it in the environment of the command"),
    ("tracking: {uri: 'http://me:pass@host'}", "tracking.uri: holds a password"),
    ("axes: 3", "s.yaml:2: axes: 3 given, wanted: a mapping"),
    (
        "axes: {engine.tensor_paralel: [1, 2]}",
        "axes.engine.tensor_paralel: unknown key; did you mean engine.tensor_parallel?",
    ),
    ("axes: {tp: [{tensor_parallel: 1}]}", "axes.tp: unknown key"),
    ("axes: {tp: [{engine.tensor_parallel: 1, x: 1}]}", "axes.tp[0].x: unknown key"),
    ("axes: {engine: [null, {kind: vllm}]}", "axes.engine: is a section: name a key of it"),
    ("axes: {engine.tensor_parallel: []}", "axes.engine.tensor_parallel: has no values"),
    ("axes: {engine.tensor_parallel: 2}", "write [2] for an axis, or set engine.tensor_parallel"),
    ("axes: {engine.tensor_parallel: [1, 2, '4']}", 'axes.engine.tensor_parallel[2]: "4" given'),
    ("axes: {engine.tensor_parallel: [1, 2, 1]}", "has engine.tensor_parallel=1 twice"),
    ("axes: {engine: [{kind: vllm}, {kind: vllm, compile: true}]}", "engine.compile=true twice"),
    ("axes: {engine.dtype: [off]}", "s.yaml:2: axes.engine.dtype[0]: false given"),
    (
        "axes: {workload.input_tokens: [1, 2]}",
        "is imposed by traffic, not chosen: move it to conditions:",
    ),
    ("axes: {workload.arrival.rate_rps: [1, 2]}", "move it to conditions:"),
    (
        "axes: {both: [{workload.batch_size: 1, workload.seed: 1}]}",
        "axes.both[0].workload.seed: is imposed by traffic",
    ),
    ("axes: {measure.repeats: [1, 2]}", "is how a point is measured, not a choice"),
    ("axes: {meter: [nvml, rapl]}", "is how a point is measured, not a choice"),
    ("conditions: {measure.launches: [1, 2]}", "is set once for a study"),
    ("axes: {search.kind: [grid, random]}", "belongs to the study as a whole"),
    ("conditions: {name: [a, b]}", "belongs to the study as a whole"),
    ("axes: {a: [{engine.options: {}, engine.options.b: 1}]}", "and one is part of the other"),
    (
        SIZES + "conditions: {workload.batch_size: [2, 4]}",
        "moves workload.batch_size, which axes.workload.batch_size moves too: keep one of them",
    ),
    (SIZES + "exclude: {workload.batch_size: 1}", "exclude: a mapping given, wanted: a list"),
    (SIZES + "exclude: [{}]", "exclude[0]: an empty entry given"),
    (SIZES + "exclude: [{workload.batch_sise: 1}]", "did you mean workload.batch_size?"),
    (SIZES + "exclude: [{workload.batch_size: '>many'}]", "compares with no number"),
    (SIZES + "exclude: [{workload.batch_size: '>nan'}]", "compares with no number"),
    (SIZES + "exclude: [{workload.batch_size: [1, 2]}]", "a list given"),
    (SIZES + "exclude: [{engine.kind: '>vllm'}]", "give the value itself, or '!=word'"),
    (SIZES + "exclude: [{engine.kind: vlm}]", 'exclude[0].engine.kind: "vlm" given'),
    (SIZES + "exclude: [{workload.batch_size: '>0'}]", "exclude: leaves no combination"),
    (
        SIZES + "baseline: {engine.tensor_parallel: 1}",
        "is on no axis; keys on one: workload.batch_size",
    ),
    (SIZES + "baseline: {workload.batch_size: 2}", "2 is not on its axis, which has 1, 8"),
    (SIZES + "baseline: {workload.batch_size: x}", 'baseline.workload.batch_size: "x" given'),
    (SIZES + "baseline: [1]", "baseline: a list given"),
    ("objectives: {}", "objectives: a mapping given, wanted: a mapping of metrics to min or max"),
    ("objectives: {energy: min}", "objectives.energy: unknown metric; did you mean energy_j"),
    ("objectives: {energy_j: least}", "wanted: min, max"),
    ("limits: {tpot_p98_s: 0.05}", "limits.tpot_p98_s: unknown metric; did you mean tpot_p99_s"),
    ("limits: {zzz: 0.05}", "unknown metric; known: energy_j, "),
    ("limits: {tpot_p99_s: yes}", "limits.tpot_p99_s: true given, wanted: a number above 0"),
    ("limits: 3", "limits: 3 given"),
    ("demand: {gpus: 8}", "demand.requests_per_s: missing: a number above 0"),
    ("demand: 8", "demand: 8 given, wanted: {requests_per_s, gpus} or null"),
    ("quality: unchecked", "wanted: {command, min, timeout_s} or unchecked_ok or null"),
    ("expect: 3", "expect: 3 given, wanted: a list of claims"),
    (
        "expect: [{when: {}, against: {}, metric: energy_j, change: 29, source: s}]",
        'quote it: "29"',
    ),
    (
        "expect: [{when: {}, against: {}, metric: energy_j, change: more, source: s}]",
        "such as +29.3%",
    ),
    (
        "expect: [{when: {}, against: {}, metric: joules, change: 2%, source: s}]",
        "expect[0].metric: unknown metric",
    ),
    (
        "expect: [{when: {a: 1}, against: {}, metric: energy_j, change: 2%, source: s}]",
        "expect[0].when.a: unknown key",
    ),
    ("search: {budget: {gpu_hours: 0}}", "search.budget.gpu_hours: 0 given"),
    ("workload: {seed: '???'}", "workload.seed: ??? leaves it open"),
    (
        "workload: {seed: '${oc.env:HOME}'}",
        "s.yaml:2: workload.seed: ${oc.env:HOME}: a study file is data",
    ),
    (
        "engine: {options: {a: ['x ${now:%H} y']}}",
        "engine.options.a[0]: x ${now:%H} y: a study file",
    ),
    ("name: '${a.${b}}'", "only ${other.key} is known"),
    ("name: '\\${meter}'", "only ${other.key} is known"),
    (
        "workload: {seed: '${nope}'}",
        "${nope} cannot be resolved: Interpolation key 'nope' not found",
    ),
    ("workload: {seed: '${workload.seed}'}", "workload.seed: ${workload.seed} cannot be resolved"),
    (
        SIZES + "workload: {output_tokens: '${workload.batch_size}'}",
        "refers to workload.batch_size, which an axis moves",
    ),
    ("name: a/b", "s.yaml:2: name: \"a/b\" has '/', wanted: letters, digits, - _ and ."),
    ("name: a b", "name: \"a b\" has ' '"),
    ("name: ''", 'name: "" given, wanted: a word'),
    ("name: 5", 'quote it: "5"'),
    ("name: .hidden", "begins with ."),
    ("name: -x", "begins with . or -"),
    ("name: x.", "ends with ."),
    ("name: NUL", "reserved on Windows"),
    ("name: com1.x", "reserved on Windows"),
    ("name: x.rehearsal", "ends like a rehearsal"),
    (f"name: {'x' * 300}", "name: has 300 characters, at most 100 wanted"),
    (f"name: {'模' * 90}", "name: has 90 characters"),
    ("name: a😀", "name: \"a😀\" has '😀'"),
    (
        "axes: {a: [{engine.dtype: float16}], workload.batch_size: [1, 2], engine.options.x: [1]}",
        "engine.options.x",
    ),
]


@pytest.mark.parametrize(("text", "said"), ONE_FAULT)
def test_one_fault_is_one_sentence_with_its_place(faults, text, said):
    found = faults(text)
    assert len(found) == 1, found
    assert said in found[0]
    assert found[0].startswith(("s.yaml:", "base.yaml:"))


WORDS = [
    ("nothing", "command line, nothing: not key=value"),
    ("=1", "command line, =1: not key=value"),
    ("meter=", "command line, meter=: not key=value"),
    ("extends=base.yaml", "extends: belongs in a study file"),
    ("batch_size=4", "batch_size: unknown key; did you mean workload.batch_size?"),
    ("engine.dtyp=float16", "engine.dtyp: unknown key; did you mean engine.dtype?"),
    ("foo.bar=1", "foo.bar: unknown key; known here: name, model, engine"),
    ("engine.dtype=[float16", "engine.dtype: the value is not YAML"),
    ("engine.dtype=" + "[" * 90, "the value is not YAML: nested deeper"),
    (
        "engine.quantization=off",
        "engine.quantization: false given, wanted: a word or null; YAML reads off",
    ),
    ("engine.dtype=[float16, x]", 'axes.engine.dtype[1]: "x" given'),
    ("workload.seed=${oc.env:HOME}", "workload.seed: ${oc.env:HOME}: a study file is data"),
    ("workload.seed=${", "workload.seed: the value is not YAML"),
    ("workload.seed=${engine.nope}", "cannot be resolved"),
    ("measure.repeats=[1, 2]", "is how a point is measured"),
    ("limits.nope=1", "limits.nope: unknown metric"),
    ("axes.engine.nope=[1]", "axes.engine.nope: unknown key"),
    ("engine=3", "engine: 3 given, wanted: {kind"),
    ("name=a/b", "name: \"a/b\" has '/'"),
    ("engine.options.noise=0.1", "is part of engine.options, which is swept: set engine.options"),
]


@pytest.mark.parametrize(("word", "said"), WORDS)
def test_a_bad_word_is_named(faults, word, said):
    swept = "axes: {engine.options: [{noise: 0}]}" if "noise" in word else ""
    found = faults(swept, word)
    assert len(found) == 1, found
    assert found[0].startswith(f"command line, {word}: ")
    assert said in found[0]


def test_a_list_without_the_baseline_s_value_names_the_baseline(faults):
    text = SIZES + "baseline: {workload.batch_size: 1}"
    found = faults(text, "workload.batch_size=[4, 8]")
    assert len(found) == 1
    assert found[0].startswith("s.yaml:3: baseline.workload.batch_size: 1 is not on its axis")
    assert "which has 4, 8" in found[0]


def test_a_baseline_in_an_axis_of_several_keys_is_one_of_its_choices(faults):
    text = """
axes: {engine: [{dtype: float16, graphs: true}, {dtype: float32, graphs: false}]}
baseline: {engine.dtype: float16, engine.graphs: false}
"""
    assert all("is not on its axis" in fault for fault in faults(text))


def test_an_impossible_combination_is_found_on_the_axes_unless_excluded(faults, tmp_path):
    text = """
meter: simulated
model: {id: somewhere/model}
axes: {engine.kind: [simulated, transformers], workload.batch_size: [1, 8]}
"""
    assert faults(text) == (
        "s.yaml:3: meter: simulated has nothing to read of engine.kind transformers: use auto",
    )
    partly = "exclude: [{engine.kind: transformers, workload.batch_size: 1}]"
    assert len(faults(text + partly)) == 1
    (tmp_path / "s.yaml").write_text(
        "extends: base.yaml\n" + text + "exclude: [{engine.kind: transformers}]"
    )
    assert len(load(tmp_path / "s.yaml").axes) == 2


def test_too_many_combinations_are_refused(faults):
    rows = ", ".join(map(str, range(1, 1001)))
    found = faults(f"axes: {{workload.batch_size: [{rows}], engine.options.x: [{rows}]}}")
    assert found[0].startswith("s.yaml:2: axes: 1000000 combinations")


def test_all_faults_come_at_once(faults):
    text = """
name: a/b
engine: {dtyp: x, dtype: 16, quantization: off}
workload: {task: x, seed: "${oc.env:HOME}"}
model: {shape: nope}
meter: volts
axes: {tensor_parallel: [1], engine.graphs: [], workload.seed: [1]}
exclude: [{workload.batch_sise: 1}]
objectives: {speed: max}
limits: {ttft_p98_s: 1}
tracking: {uri: "http://a:b@c"}
"""
    found = faults(text, "nonsense", "measure.repeats=0")
    keys = [
        "nonsense", "workload.seed", "name", "engine.dtyp", "engine.dtype", "engine.quantization",
        "workload.task", "model.shape", "meter", "axes.tensor_parallel", "axes.engine.graphs",
        "axes.workload.seed", "exclude[0].workload.batch_sise", "objectives.speed",
        "limits.ttft_p98_s", "tracking.uri", "measure.repeats",
    ]  # fmt: skip
    assert len(found) == len(keys), "\n".join(found)
    for key in keys:
        assert any(f": {key}: " in fault or f", {key}: " in fault for fault in found), key
    assert str(StudyError(found)).count("\n") == len(found) - 1
