"""What a study may ask for and no room takes up yet."""

import pytest

from sweeper.study import load, unavailable

BASE = "model: {shape: tiny, weights: dummy}\nengine: {kind: simulated}\n"
SIZES = "axes: {engine.tensor_parallel: [1, 2, 4], workload.batch_size: [1, 8]}\n"


@pytest.fixture
def study(tmp_path):
    def write_and_load(text: str):
        (tmp_path / "s.yaml").write_text(BASE + text)
        return load(tmp_path / "s.yaml")

    return write_and_load


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("engine: {kind: vllm, data_parallel: 2}", "engine.data_parallel"),
        (
            "axes: {engine.kind: [vllm, simulated], engine.prefix_caching: [false, true]}",
            "engine.prefix_caching: true is not available yet with engine.kind simulated",
        ),
        ("engine: {mode: online}", "engine.mode"),
        ("engine: {speculative: {kind: ngram, tokens: 2}}", "engine.speculative: ngram"),
        ("engine: {quantization: fp8}", "engine.quantization"),
        ("engine: {kv_cache_dtype: fp8}", "engine.kv_cache_dtype"),
        ("engine: {prefix_caching: true}", "engine.prefix_caching"),
        ("engine: {attention: flash}", "engine.attention: flash"),
        (
            "engine: {kind: transformers, attention: flash}\nworkload: {batching: static}",
            "engine.attention: flash is not available yet with engine.kind transformers, only null",
        ),
        ("engine: {pipeline_parallel: 2}", "engine.pipeline_parallel"),
        ("axes: {engine.data_parallel: [1, 2]}", "engine.data_parallel: 2"),
        ("gpu: {clock_mhz: 900}", "gpu.clock_mhz"),
        ("gpu: {power_limit_w: 300}\nmeter: codecarbon", "gpu.power_limit_w: 300"),
        ("engine: {kind: vllm}\ngpu: {clock_mhz: 900}\nmeter: amd", "gpu.clock_mhz: 900"),
        ("workload: {kind: tasks, task: x}", "workload.kind: tasks"),
        ("workload: {kind: trace, trace: x}", "workload.kind: trace"),
        ("workload: {arrival: {kind: gamma, cv: 2}}", "workload.arrival: gamma"),
        (
            (
                "engine: {kind: endpoint, options: {url: 'http://h:1'}}\n"
                "workload: {decoding: {kind: beam, width: 4}}"
            ),
            "workload.decoding: beam is not available yet with engine.kind endpoint, only greedy",
        ),
        ("search: {kind: guided}", "search.kind"),
        ("demand: {requests_per_s: 1, gpus: 1}", "demand"),
        (
            "engine: {kind: transformers}",
            "engine.compile: true is not available yet with engine.kind transformers, only false",
        ),
        (
            "engine: {kind: transformers, tensor_parallel: 2}\nworkload: {batching: static}",
            "engine.tensor_parallel: 2",
        ),
        (
            "engine: {kind: transformers, chunked_prefill: false}\nworkload: {batching: static}",
            "engine.chunked_prefill: false",
        ),
        (
            "engine: {kind: transformers, max_batched_tokens: 9}\nworkload: {batching: static}",
            "engine.max_batched_tokens: 9",
        ),
        (
            (
                "engine: {kind: transformers, speculative: {kind: stated, acceptance: 0.5, "
                "model: tiny, tokens: 2}}\nworkload: {batching: static}"
            ),
            "engine.speculative: stated is not available yet with engine.kind transformers, only",
        ),
    ],
)
def test_what_has_no_room_yet_is_said(tmp_path, text, said):
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "s.yaml").write_text("extends: base.yaml\n" + text)
    found = unavailable(load(tmp_path / "s.yaml"))
    assert len(found) == 1
    assert found[0].startswith(said)
    assert "not available yet" in found[0]


def test_what_is_excluded_is_not_asked_for(study):
    text = """
axes: {engine.kind: [simulated, transformers], workload.batching: [static, continuous]}
"""
    assert len(unavailable(study(text))) == 1
    excluded = "exclude: [{engine.kind: transformers, workload.batching: continuous}]"
    assert unavailable(study(text + excluded)) == []
    # An entry that also needs a batch size leaves other batch sizes to be run.
    partly = "exclude: [{engine.kind: transformers, workload.batch_size: '>4'}]"
    sizes = text.replace("}\n", ", workload.batch_size: [1, 8]}\n")
    assert len(unavailable(study(sizes + partly))) == 1


def test_vllm_batches_either_way_over_several_gpus(study):
    ways = "axes: {engine.kind: [vllm], workload.batching: [static, continuous], "
    assert unavailable(study(ways + "engine.tensor_parallel: [1, 2]}")) == []


def test_a_simulated_study_asks_for_nothing_that_is_not_there(study):
    assert unavailable(study(SIZES + "quality: unchecked_ok\nmeter: nvml")) == []


def test_transformers_batches_either_way_with_budgets_where_steps_are_shared(study):
    text = "axes: {engine.kind: [transformers], engine.compile: [false], "
    assert unavailable(study(text + "engine.max_batched_tokens: [null, 99]}")) == []


def test_engines_speculate_each_in_its_ways(study):
    drafts = "{kind: draft, model: tiny, tokens: 4}, {kind: ngram, tokens: 4}"
    stated = "{kind: stated, acceptance: 0.6, tokens: 4, model: tiny}"
    axis = f"engine.speculative: [null, {drafts}, {stated}]"
    assert unavailable(study(f"axes: {{engine.kind: [vllm], {axis}}}")) == []
    both = f"axes: {{engine.kind: [simulated, vllm], {axis}}}\n"
    assert unavailable(study(both)) == [
        (
            "engine.speculative: ngram is not available yet with engine.kind simulated, "
            "only null, draft, stated"
        )
    ]
    excluded = "exclude: [{engine.kind: simulated, engine.speculative: {kind: ngram, tokens: 4}}]"
    assert unavailable(study(both + excluded)) == []


def test_vllm_takes_its_levers_and_so_does_what_simulates_it(study):
    levers = """
    engine.mode: [offline, online]
    engine.prefix_caching: [false, true]
    engine.kv_cache_dtype: [auto, fp8]
    engine.attention: [null, FLASH_ATTN]
    engine.quantization: [null, fp8]
    engine.pipeline_parallel: [1, 2]
    workload.decoding: [{kind: greedy}, {kind: temperature}, {kind: top_p, top_p: 0.9}]
"""
    assert unavailable(study("axes:\n    engine.kind: [vllm]" + levers)) == []
    assert unavailable(study("axes:\n    engine.simulates: [vllm]" + levers)) == []
    assert len(unavailable(study("axes:" + levers))) > 5


def test_gpus_are_set_where_nvml_may_measure_them(study):
    axis = "axes: {gpu.power_limit_w: [null, 300, 500]}\n"
    assert unavailable(study(axis)) == []
    engines = "axes: {engine.kind: [vllm], gpu.clock_mhz: [900, null]}"
    assert unavailable(study(engines)) == []
    assert unavailable(study("gpu: {clock_mhz: 900}\nmeter: nvml\n" + axis)) == []


def test_a_scheduler_takes_budgets_and_whole_prompts(study):
    ways = "axes: {engine.kind: [simulated, vllm], engine.chunked_prefill: [true, false], "
    assert unavailable(study(ways + "engine.max_batched_tokens: [512, 4096]}")) == []
