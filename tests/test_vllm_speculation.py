"""How vLLM is asked to speculate, what it is held to, and what it does on this processor."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sweeper import shapes
from sweeper.clocks import RealClock
from sweeper.engines import Event, Request, engine_class, engine_traits
from sweeper.engines.vllm_command import architecture_file, command
from sweeper.engines.vllm_resolved import asked, refuse_other_than_asked
from sweeper.engines.vllm_settings import Place, arguments, cpu_bytes, cpu_cache_bytes
from sweeper.engines.vllm_speculation import refuse_speculation, resolved_speculation
from sweeper.engines.vllm_tally import Tally
from sweeper.errors import Infeasible, WrongSetting
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec
from tests.vllm_stats import scheduler

SIZES = Sizes(max_model_len=40, max_batch_size=16, batch_sizes=(1, 4, 16))
GPU, CPU = Place(gpu=True), Place(gpu=False, cpus=(0, 1))
LLAMA = ModelSpec(shape="llama-3.1-8b", weights="dummy")
STATED = {"kind": "stated", "acceptance": 0.5, "tokens": 3}
NGRAM = {"kind": "ngram", "tokens": 4, "prompt_lookup_max": 3, "prompt_lookup_min": 1}


def settings(said: dict[str, Any], model: ModelSpec = LLAMA, **engine: Any) -> Settings:
    spec = EngineSpec(kind="vllm", speculative=said, **engine)
    return Settings(model=model, engine=spec)


def test_each_kind_says_all_that_vllm_needs() -> None:
    def config(said: dict[str, Any], **engine: Any) -> Any:
        return arguments(settings(said, **engine), SIZES, GPU, "m", "d").get("speculative_config")

    assert config(STATED, tensor_parallel=2) == {
        "method": "draft_model",
        "model": "d",
        "num_speculative_tokens": 3,
        "draft_tensor_parallel_size": 2,
        "rejection_sample_method": "synthetic",
        "synthetic_acceptance_rates": [0.5, 0.25, 0.125],
    }
    assert config({"kind": "draft", "model": "a/b", "tokens": 2}) == {
        "method": "draft_model",
        "model": "d",
        "num_speculative_tokens": 2,
        "draft_tensor_parallel_size": 1,
    }
    assert config(NGRAM) == {
        "method": "ngram",
        "num_speculative_tokens": 4,
        "prompt_lookup_max": 3,
        "prompt_lookup_min": 1,
    }
    plain = replace(settings(STATED), engine=EngineSpec(kind="vllm"))
    assert "speculative_config" not in arguments(plain, SIZES, GPU, "m")


def test_graphs_are_captured_for_what_a_step_verifies_and_for_the_drafts() -> None:
    """Four tokens a request: 4, 16, 64 verified; 1, 4, 16 drafted, the 1 rounded up."""
    alone = replace(settings(STATED), engine=replace(settings(STATED).engine, compile=False))
    chosen = arguments(alone, SIZES, GPU, "m", "d")
    assert chosen["compilation_config"]["cudagraph_capture_sizes"] == [4, 16, 64]
    chosen = arguments(settings(STATED), SIZES, GPU, "m", "d")
    usual = [4, *range(8, 129, 8)]
    assert chosen["compilation_config"]["cudagraph_capture_sizes"] == usual
    wide = replace(SIZES, max_batch_size=4096)
    assert arguments(settings(STATED), wide, GPU, "m", "d")["max_num_batched_tokens"] == 4 * 4096


def test_the_cache_on_a_processor_holds_the_drafts_as_well() -> None:
    draft, alone = settings(STATED), Settings(model=LLAMA, engine=EngineSpec(kind="vllm"))
    both = [shapes.shape(name) for name in ("llama-3.1-8b", "llama-3.2-1b")]
    per_token = [shape.kv_bytes_per_token("bfloat16") for shape in both]
    ratio = cpu_cache_bytes(draft, SIZES) / cpu_cache_bytes(alone, SIZES)
    assert ratio == pytest.approx(sum(per_token) / per_token[0])
    more = (cpu_bytes(draft, SIZES) or 0) - (cpu_bytes(alone, SIZES) or 0)
    assert more > 2 * both[1].parameters


def test_vllm_is_held_to_what_was_asked() -> None:
    wanted = asked(arguments(settings(STATED), SIZES, GPU, "m", "d"))
    took = SimpleNamespace(
        method="draft_model",
        num_speculative_tokens=3,
        draft_tensor_parallel_size=1,
        prompt_lookup_max=0,
        prompt_lookup_min=0,
        rejection_sample_method="synthetic",
        synthetic_acceptance_rates=[0.5, 0.25, 0.125],
    )
    resolved = {**wanted, "speculative": resolved_speculation(took)}
    refuse_other_than_asked(wanted, resolved)
    assert resolved["speculative"].keys().isdisjoint({"prompt_lookup_max", "model"})
    for name, other in {
        "num_speculative_tokens": 2,
        "rejection_sample_method": "standard",
        "synthetic_acceptance_rates": [0.5, 0.25, 0.25],
        "draft_tensor_parallel_size": None,
    }.items():
        another = SimpleNamespace(**{**vars(took), name: other})
        with pytest.raises(WrongSetting, match=r"speculative=.* was asked, vLLM took"):
            refuse_other_than_asked(
                wanted, {**wanted, "speculative": resolved_speculation(another)}
            )
    with pytest.raises(WrongSetting, match="took None"):
        refuse_other_than_asked(wanted, {**wanted, "speculative": resolved_speculation(None)})


def test_what_cannot_be_is_refused_before_anything_starts() -> None:
    refuse_speculation(settings(STATED), on_gpu=True)
    with pytest.raises(Infeasible, match="stated needs a GPU"):
        refuse_speculation(settings(STATED), on_gpu=False)
    refuse_speculation(settings(NGRAM), on_gpu=False)
    real = ModelSpec(id="meta-llama/Llama-3.1-8B")
    refuse_speculation(settings(STATED, real), on_gpu=True)
    with pytest.raises(Infeasible, match="tiny, the draft, has no weights"):
        refuse_speculation(settings({**STATED, "model": "tiny"}, real), on_gpu=True)
    with pytest.raises(Infeasible, match="name the draft"):
        refuse_speculation(settings(STATED, ModelSpec(shape="tiny", weights="dummy")), on_gpu=True)


@pytest.mark.engine
def test_a_node_says_whether_it_can_speculate_as_asked() -> None:
    traits = engine_traits("vllm")
    assert traits.preflight(settings(NGRAM)) is None
    if not traits.needs_gpu:
        assert "stated needs a GPU" in str(traits.preflight(settings(STATED)))
    absent = {"kind": "draft", "model": "/not/there", "tokens": 2}
    fault = str(traits.preflight(settings(absent)))
    assert fault.startswith("engine.speculative.model: there is no folder /not/there")


def test_the_command_writes_the_drafts_shape_too() -> None:
    files = {
        name: architecture_file(name, "LlamaForCausalLM")
        for name in ("llama-3.1-8b", "llama-3.2-1b")
    }
    line = command(settings(STATED), SIZES, GPU, files)
    assert line.count("config.json <<'END'") == 2
    words = shlex.split(line.rpartition("END\n")[2])
    config = json.loads(dict(pairwise(words))["--speculative-config"])
    assert config["model"] == "./llama-3.2-1b"
    named = settings(STATED, ModelSpec(id="meta-llama/Llama-3.1-8B"))
    served = shlex.split(command(named, SIZES, GPU, {}))
    config = json.loads(dict(pairwise(served))["--speculative-config"])
    assert config["model"] == "meta-llama/Llama-3.2-1B"


def test_drafts_are_counted_step_by_step() -> None:
    tally = Tally()
    for proposed, accepted in ((8, 5), (4, 0)):
        drafts = SimpleNamespace(num_draft_tokens=proposed, num_accepted_tokens=accepted)
        tally.record(scheduler(spec_decoding_stats=drafts), None)
    tally.record(scheduler(), None)
    counts = tally.counts(drafts=True, prefixes=False)
    assert (counts["draft_tokens_proposed"], counts["draft_tokens_accepted"]) == (12, 5)
    assert "draft_tokens_proposed" not in tally.counts(drafts=False, prefixes=False)


INPUT, OUTPUT, TOKENS = 16, 22, 4
REAL = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
TINY = ModelSpec(shape="tiny", weights="dummy")


def of_engine(said: dict[str, Any]) -> Settings:
    spec = {"dtype": "float32", "compile": False, "graphs": False}
    made = settings(said, TINY, max_batched_tokens=64, chunked_prefill=True, **spec)
    workload = WorkloadSpec(batching="static", input_tokens=INPUT, output_tokens=OUTPUT)
    return replace(made, workload=workload)


def launched(of: Settings, patch: pytest.MonkeyPatch) -> Any:
    if engine_traits("vllm").needs_gpu:
        pytest.skip("made for processors")
    patch.setenv("OMP_NUM_THREADS", "1")
    sizes = Sizes(max_model_len=INPUT + OUTPUT, max_batch_size=4, batch_sizes=(3,))
    engine = engine_class("vllm")(of, sizes, (), RealClock())
    engine.load()
    return engine


def prompts(count: int, output_tokens: int = OUTPUT) -> list[Request]:
    return [
        Request(place, [(31 * place + 7 * at) % 97 for at in range(INPUT)], output_tokens)
        for place in range(count)
    ]


def generated(events: list[Event]) -> int:
    return sum(event.tokens + (event.kind == "first_token") for event in events)


@pytest.mark.slow
class TestOnThisProcessor:
    """A draft that is its own model: the same weights, so everything it proposes is accepted."""

    pytestmark = REAL

    @pytest.fixture(scope="class")
    def engine(self) -> Iterator[Any]:
        of = of_engine({"kind": "draft", "model": "tiny", "tokens": TOKENS})
        with pytest.MonkeyPatch.context() as patch:
            engine = launched(of, patch)
            yield engine
            engine.close()

    def test_it_took_what_was_asked(self, engine: Any) -> None:
        resolved = engine._resolved
        assert resolved["draft"] == "tiny"
        assert resolved["speculative"]["method"] == "draft_model"
        assert resolved["speculative"]["num_speculative_tokens"] == TOKENS
        assert resolved["speculative"]["rejection_sample_method"] == "standard"
        assert (resolved["max_batched_tokens"], resolved["chunked_prefill"]) == (64, True)

    def test_tokens_come_in_bursts_and_every_one_is_told_of_once(self, engine: Any) -> None:
        before = engine.counts()
        events = list(engine.generate(prompts(3), engine._settings))
        steps = [event for event in events if event.kind == "tokens"]
        assert generated(events) == 3 * OUTPUT
        # 21 tokens after the first: four full bursts of five, and one token.
        assert [(step.tokens, step.running) for step in steps] == [*[(15, 3)] * 4, (3, 3)]
        after = engine.counts()
        proposed = after["draft_tokens_proposed"] - before["draft_tokens_proposed"]
        accepted = after["draft_tokens_accepted"] - before["draft_tokens_accepted"]
        assert accepted == proposed >= 3 * 4 * TOKENS

    def test_a_closed_loop_goes_to_the_last_position(self, engine: Any) -> None:
        lengths = [1, 9, OUTPUT, 2, 7, 3, OUTPUT, 8]
        source = [replace_length(each, lengths) for each in prompts(8)]
        events = list(engine.serve(iter(source), 3, engine._settings))
        assert generated(events) == sum(lengths)
        assert not [event for event in events if event.kind == "failed"]


def replace_length(request: Request, lengths: list[int]) -> Request:
    return replace(request, output_tokens=lengths[request.index])


@pytest.mark.slow
class TestAtLength:
    """What needs launches of its own."""

    pytestmark = REAL

    def test_ngrams_find_what_was_there_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        engine = launched(of_engine(NGRAM), monkeypatch)
        try:
            assert engine._resolved["speculative"]["prompt_lookup_max"] == 3
            assert generated(list(engine.generate(prompts(4), engine._settings))) == 4 * OUTPUT
            counts = engine.counts()
            assert 0 <= counts["draft_tokens_accepted"] <= counts["draft_tokens_proposed"]
            assert counts["draft_tokens_proposed"] > 0
        finally:
            engine.close()

    def test_another_model_drafts_and_shares_the_cache(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        """Half the width, half the layers: some of what it proposes is the model's, not all."""
        values = json.loads(architecture_file("tiny", "LlamaForCausalLM"))
        values |= {"hidden_size": 128, "num_hidden_layers": 2, "head_dim": 32}
        (tmp_path / "config.json").write_text(json.dumps(values))
        said = {"kind": "draft", "model": str(tmp_path), "tokens": TOKENS}
        engine = launched(of_engine(said), monkeypatch)
        try:
            assert generated(list(engine.generate(prompts(4), engine._settings))) == 4 * OUTPUT
            counts = engine.counts()
            assert 0 <= counts["draft_tokens_accepted"] < counts["draft_tokens_proposed"]
            assert engine._resolved["draft"] == str(tmp_path)
        finally:
            engine.close()
