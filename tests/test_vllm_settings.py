"""What vLLM is asked for and what is made of its answers: pure, no vLLM."""

import json
import shlex
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper import shapes
from sweeper.engines import Request, engine_traits
from sweeper.engines.vllm_command import architecture_file, command
from sweeper.engines.vllm_events import Output, Running
from sweeper.engines.vllm_resolved import asked, notes, refuse_other_than_asked, weight_facts
from sweeper.engines.vllm_settings import (
    DECIDED,
    DRIVEN,
    Place,
    arguments,
    cpu_bytes,
    cpu_cache_bytes,
    environment,
    refuse_unavailable,
    thread_binding,
)
from sweeper.errors import Infeasible, WrongSetting
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes
from tests.vllm_names import USED, found

SIZES = Sizes(max_model_len=40, max_batch_size=16, batch_sizes=(16, 1, 4))
GPU, CPU = Place(gpu=True), Place(gpu=False, cpus=(0, 1))
DUMMY = ModelSpec(shape="tiny", weights="dummy")
EVERYTHING: dict[str, Any] = {
    "chunked_prefill": True,
    "attention": "FLASH_ATTN",
    "max_batched_tokens": 4096,
    "quantization": "fp8",
    "kv_cache_dtype": "fp8",
    "prefix_caching": True,
}
OPTIONS = {"async_scheduling", "enable_return_routed_experts"}
"""Engine arguments that `engine.options` is told to set."""


def settings(model: ModelSpec = DUMMY, **engine: Any) -> Settings:
    return Settings(model=model, engine=EngineSpec(kind="vllm", **engine))


@pytest.mark.engine
def test_every_name_of_vllm_that_is_used_is_in_both_versions():
    """The table was read from the sources of 0.26.0 and 0.32.0; the installed one is read now."""
    table = json.loads((Path(__file__).parent / "vllm_signatures.json").read_text())
    used = sorted(
        set(DECIDED)
        | set(DRIVEN)
        | set(arguments(settings(**EVERYTHING), SIZES, GPU, "m"))
        | OPTIONS
        | set(arguments(settings(), SIZES, CPU, "m"))
    )
    wanted = {**USED, "engine/arg_utils.py": {"EngineArgs": used}}
    assert set(table) == {"0.26.0", "0.32.0"}
    assert table["0.26.0"] == table["0.32.0"] == wanted
    installed = find_spec("vllm")
    if installed is not None and installed.submodule_search_locations:
        assert found(Path(installed.submodule_search_locations[0]), wanted) == wanted


@pytest.mark.parametrize(
    ("compiled", "graphs", "mode", "graph_mode"),
    [
        (True, True, "VLLM_COMPILE", "FULL_AND_PIECEWISE"),
        (True, False, "VLLM_COMPILE", "NONE"),
        (False, True, "NONE", "FULL_DECODE_ONLY"),
        (False, False, "NONE", "NONE"),
    ],
)
def test_compilation_and_graphs_are_factors_of_their_own(compiled, graphs, mode, graph_mode):
    spec = settings(compile=compiled, graphs=graphs)
    found = arguments(spec, SIZES, GPU, "m")["compilation_config"]
    assert (found["mode"], found["cudagraph_mode"]) == (mode, graph_mode)
    # Compiled passes also have pieces in graphs, where prefills join the decoding.
    captured = [1, 2, 4, 8, 16, 24, 32] if compiled else [1, 4, 16]
    assert found.get("cudagraph_capture_sizes") == (captured if graphs else None)
    on_cpu = arguments(spec, SIZES, CPU, "m")["compilation_config"]
    assert on_cpu == {"mode": mode, "cudagraph_mode": "NONE"}
    assert ("graphs" in notes(spec.engine, (), False)) is graphs


def test_a_pass_that_prefills_beside_its_batch_has_a_graph_of_its_size():
    """Without, an 8B model on an H200 took 14 to 39 ms for such a pass, and 3 ms for the others."""
    sizes = Sizes(max_model_len=256, max_batch_size=128, batch_sizes=(1, 5, 128))
    found = arguments(settings(), sizes, GPU, "m")["compilation_config"]["cudagraph_capture_sizes"]
    assert found[:6] == [1, 2, 4, 5, 8, 16]
    assert found[-1] == 256 >= 127 + 128
    gaps = [b - a for a, b in pairwise(found)]
    assert max(gaps) == 8
    wide = replace(sizes, max_batch_size=1024, batch_sizes=(1024,))
    found = arguments(settings(), wide, GPU, "m")["compilation_config"]["cudagraph_capture_sizes"]
    assert found[-2:] == [512, 1024]


def test_everything_that_vllm_would_choose_by_itself_is_said():
    plain = arguments(settings(), SIZES, GPU, "m")
    assert plain["distributed_executor_backend"] == "uni"
    assert (plain["max_model_len"], plain["max_num_seqs"]) == (40, 16)
    assert plain["max_num_batched_tokens"] == 8192
    assert plain["enable_prefix_caching"] is False
    assert plain["load_format"] == "sweeper_drawn"
    assert plain["model_loader_extra_config"] == {"zeros": False}
    assert plain.keys().isdisjoint({"enforce_eager", "attention_backend", "kv_cache_memory_bytes"})
    wide = arguments(settings(tensor_parallel=2, pipeline_parallel=2), SIZES, GPU, "m")
    assert wide["distributed_executor_backend"] == "mp"
    full = arguments(settings(**EVERYTHING, options={"seed": 3}), SIZES, GPU, "m")
    assert full["attention_backend"] == "FLASH_ATTN"
    assert (full["enable_chunked_prefill"], full["max_num_batched_tokens"]) == (True, 4096)
    assert full["seed"] == 3


@pytest.mark.parametrize(
    ("model", "loaded"),
    [
        (ModelSpec(id="a/b"), {"load_format": "auto"}),
        (replace(DUMMY, weights="dummy_engine"), {"load_format": "dummy"}),
        (
            replace(DUMMY, weights="dummy_zeros"),
            {"load_format": "sweeper_drawn", "model_loader_extra_config": {"zeros": True}},
        ),
    ],
)
def test_weights_come_from_where_they_are_said_to(model, loaded):
    found = arguments(settings(model), SIZES, GPU, "m")
    assert {name: found[name] for name in found if "load" in name} == loaded


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"data_parallel": 2}, "engine.data_parallel: vLLM's copies step"),
        ({"quantization": "fp8"}, "engine.quantization: drawn weights"),
        ({"options": {"enforce_eager": True}}, "engine.options.enforce_eager"),
    ],
)
def test_what_is_not_available_is_refused_by_name(engine, said):
    with pytest.raises(Infeasible, match=said):
        refuse_unavailable(settings(**engine), on_gpu=True)
    refuse_unavailable(settings(), on_gpu=True)
    with pytest.raises(Infeasible, match="auto needs model"):
        refuse_unavailable(settings(ModelSpec(shape="tiny"), **engine), on_gpu=True)
    stages = settings(pipeline_parallel=2, compile=False)
    with pytest.raises(Infeasible, match=r"leave engine\.compile on"):
        refuse_unavailable(stages, on_gpu=False)
    refuse_unavailable(stages, on_gpu=True)
    refuse_unavailable(settings(pipeline_parallel=2), on_gpu=False)


@given(st.sets(st.integers(0, 99), min_size=1, max_size=24), st.integers(1, 8), st.integers(0, 30))
def test_workers_share_the_processors_evenly_and_none_twice(cpus, ranks, stated):
    text = str(stated) if stated else ""
    if ranks > len(cpus):
        with pytest.raises(Infeasible, match=f"{ranks} workers on {len(cpus)} processors"):
            thread_binding(tuple(cpus), text, ranks)
        return
    shares = [part.split(",") for part in thread_binding(tuple(cpus), text, ranks).split("|")]
    given_out = [int(cpu) for share in shares for cpu in share]
    assert len(shares) == ranks
    assert len({len(share) for share in shares}) == 1
    assert len(set(given_out)) == len(given_out) <= max(ranks, stated or len(cpus))
    assert set(given_out) <= cpus
    # One is left to the processes that schedule, unless each worker has just the one it needs.
    assert set(given_out) < cpus or ranks == len(cpus)
    if not text:
        assert len(given_out) == max(ranks, (len(cpus) - 1) // ranks * ranks)


def test_variables_keep_downloads_away_and_a_study_overrides_them():
    found = environment(settings(tensor_parallel=2), CPU, "", local=True)
    assert found["VLLM_CPU_OMP_THREADS_BIND"] == "0|1"
    assert (found["HF_HUB_OFFLINE"], found["VLLM_NO_USAGE_STATS"]) == ("1", "1")
    assert "HF_HUB_OFFLINE" not in environment(settings(), GPU, "", local=False)
    own = settings(env={"VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    assert environment(own, CPU, "", local=True)["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"


@given(st.integers(1, 512), st.integers(1, 8192), st.sampled_from([1, 2]))
def test_the_cache_on_a_processor_holds_the_largest_batch(batch, length, ranks):
    sizes = Sizes(max_model_len=length, max_batch_size=batch, batch_sizes=(batch,))
    spec = settings(tensor_parallel=ranks)
    per_token = shapes.shape("tiny").kv_bytes_per_token("bfloat16") / ranks
    blocks = cpu_cache_bytes(spec, sizes) // (128 * per_token)
    assert blocks > batch * -(-length // 128)
    assert cpu_bytes(spec, sizes) > ranks * cpu_cache_bytes(spec, sizes)
    assert cpu_bytes(settings(ModelSpec(id="who/knows")), sizes) is None


def test_another_setting_than_asked_is_named():
    options = {"async_scheduling": False, "cudagraph_mode": "PIECEWISE", "block_size": 32}
    everything = settings(**EVERYTHING, options=options, env={"VLLM_USE_V2_MODEL_RUNNER": "0"})
    wanted = asked(arguments(everything, SIZES, GPU, "m"), everything.engine)
    refuse_other_than_asked(wanted, wanted)
    for name in wanted:
        with pytest.raises(WrongSetting, match=rf"^{name}=.* was asked, vLLM took other$"):
            refuse_other_than_asked(wanted, {**wanted, name: "other"})
    left_open = asked(arguments(settings(), SIZES, GPU, "m"), settings().engine)
    assert set(wanted) - set(left_open) == {
        "async_scheduling",
        "attention",
        "chunked_prefill",
        "graph_mode",
        "quantization",
        "runner_version",
    }


def test_only_drawn_weights_have_a_distribution():
    facts = {"std": 0.02, "mean_of_largest": 0.0, "std_of_largest": 0.02}
    worker = {"weights": {**facts, "norms": 1.0, "biases": 0.0}}
    assert weight_facts(settings(), [worker])["std"] == 0.02
    zeros = settings(replace(DUMMY, weights="dummy_zeros"))
    assert weight_facts(zeros, [worker]) == {"kind": "dummy_zeros"}
    assert weight_facts(settings(ModelSpec(id="a/b")), [{"weights": None}]) == {"kind": "auto"}


def test_the_command_serves_the_same_settings():
    line = command(settings(ModelSpec(id="a/b", revision="c d"), **EVERYTHING), SIZES, GPU, {})
    words = shlex.split(line)
    assert words[:3] == ["vllm", "serve", "a/b"]
    flags = dict(pairwise(words))
    assert flags["--revision"] == "c d"
    assert flags["--max-num-seqs"] == "16"
    assert json.loads(flags["--compilation-config"])["cudagraph_capture_sizes"] == [
        *(1, 2, 4, 8, 16, 24, 32)
    ]
    assert "--enable-prefix-caching" in words
    assert (flags["--quantization"], flags["--kv-cache-dtype"]) == ("fp8", "fp8")
    assert "--skip-tokenizer-init" not in words
    file = architecture_file("tiny", "LlamaForCausalLM")
    shaped = command(settings(), SIZES, CPU, {"tiny": file})
    assert "VLLM_CPU_OMP_THREADS_BIND=0 python -m vllm.entrypoints" in shaped
    assert "--model ./tiny --dtype bfloat16" in shaped
    assert "--no-enable-prefix-caching" in shaped
    assert "--load-format dummy" in shaped
    assert "sweeper" not in shaped
    written = shaped.split("<<'END'\n")[1].split("\nEND\n")[0]
    assert json.loads(written)["architectures"] == ["LlamaForCausalLM"]


def test_every_shape_has_a_class_of_vllm():
    from sweeper.engines.vllm_settings import ARCHITECTURES

    kinds = {shapes.architecture(name)["model_type"] for name in shapes.known()}
    assert kinds <= set(ARCHITECTURES) == set(shapes.FAMILIES)


def requests(*output_tokens: int) -> list[Request]:
    return [Request(100 + place, [1, 2], count) for place, count in enumerate(output_tokens)]


def test_a_step_tells_who_decoded_who_began_and_who_ended():
    running = Running()
    one, two = (running.begin(request)[0].name for request in requests(3, 1))
    first = list(running.events([Output(one, 1)], 1.0))
    assert [(event.kind, event.request) for event in first] == [("first_token", 100)]
    second = list(running.events([Output(one, 1), Output(two, 1, True, "length")], 2.0))
    assert [(event.kind, event.request, event.tokens, event.running) for event in second] == [
        ("tokens", None, 1, 1),
        ("first_token", 101, 0, 0),
        ("finished", 101, 0, 0),
    ]
    third = list(running.events([Output(one, 1, True, "abort"), Output("9", 5)], 3.0))
    assert [event.kind for event in third] == ["tokens", "failed"]
    assert third[-1].detail == "ended by abort"
    assert (len(running), running.names, running.generated_tokens) == (0, [], 4)


def test_what_comes_with_a_first_token_has_no_step_of_its_own():
    running = Running()
    one, two = (running.begin(request)[0].name for request in requests(9, 9))
    list(running.events([Output(one, 1)], 1.0))
    step = list(running.events([Output(one, 5), Output(two, 3)], 2.0))
    assert [(event.kind, event.request, event.tokens, event.running) for event in step] == [
        ("tokens", None, 5, 1),
        ("first_token", 101, 0, 0),
        ("tokens", None, 2, 0),
    ]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=5))
def test_every_token_is_told_of_once_however_many_a_step_gives(given_by_step):
    running = Running()
    names = [running.begin(request)[0].name for request in requests(*map(sum, given_by_step))]
    assert len(set(names)) == len(names)
    told = 0
    for step in range(max(map(len, given_by_step))):
        outputs = [
            Output(name, counts[step], step == len(counts) - 1, "length")
            for name, counts in zip(names, given_by_step, strict=True)
            if step < len(counts)
        ]
        events = list(running.events(outputs, float(step)))
        told += sum(event.tokens + (event.kind == "first_token") for event in events)
    assert told == running.generated_tokens == sum(map(sum, given_by_step))
    assert not running.names


def test_its_capabilities_are_known_without_it():
    traits = engine_traits("vllm")
    assert traits.streams
    assert traits.continuous
    assert traits.isolated(settings())
    if find_spec("vllm") is not None:
        assert traits.preflight(settings()) is None
    assert "no folder" in str(traits.preflight(settings(ModelSpec(id="/not/there"))))


FAILING_START = """
import os, sys
from sweeper.engines.vllm_processes import Said, explained
os.write(1, b"ERROR CUDA out of memory, long ago\\n")
said = Said()
os.write(1, sys.argv[1].encode())
def start():
    raise RuntimeError("Engine core initialization failed")
try:
    explained(start, said)
except Exception as error:
    sys.stderr.write(f"{type(error).__name__}: {error}")
"""


@pytest.mark.process
@pytest.mark.parametrize(
    ("printed", "kind", "said"),
    [
        (
            (
                "ERROR ValueError: To serve one request, 9.0 GiB KV cache is needed, which is "
                "larger than the available KV cache memory (2.1 GiB)."
            ),
            "Infeasible",
            "9.0 GiB KV cache is needed",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried 2 GiB", "Infeasible", "Tried 2 GiB"),
        (
            (
                "ValueError: Free memory on device cuda:0 (3/80 GiB) is less than desired\n"
                "RuntimeError: CUDA out of memory"
            ),
            "EngineError",
            "Free memory on device",
        ),
        ("RuntimeError: NCCL error: unhandled system error", "EngineError", "NCCL error"),
        ("", "EngineError", "said: nothing"),
    ],
)
def test_why_a_start_failed_is_what_its_processes_printed(tmp_path, printed, kind, said):
    with (tmp_path / "log").open("wb") as log:
        child = subprocess.run(
            [sys.executable, "-c", FAILING_START, printed],
            cwd=Path(__file__).parents[1],
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    assert child.stderr.startswith(f"{kind}: ")
    assert said in child.stderr
