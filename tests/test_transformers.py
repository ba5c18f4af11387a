"""The transformers engine with real models on the CPU, tiny ones."""

import os
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Clock, Request
from sweeper.errors import EngineError, Infeasible, WrongSetting
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec

pytestmark = pytest.mark.engine

INPUT, OUTPUT = 16, 6
SIZES = Sizes(max_model_len=INPUT + OUTPUT, max_batch_size=3, batch_sizes=(1, 3))
DUMMY = ModelSpec(shape="tiny", weights="dummy")
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 512}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "tied llama": {"model_type": "llama", "tie_word_embeddings": True, "intermediate_size": 96},
    "llama3 rope": {
        "model_type": "llama",
        "tie_word_embeddings": False,
        "intermediate_size": 96,
        "num_key_value_heads": 2,
        "rope_parameters": {
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    },
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2, "intermediate_size": 96},
    "olmo": {"model_type": "olmo", "intermediate_size": 96},
    "olmoe": {
        "model_type": "olmoe",
        "intermediate_size": 32,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def restless(tmp_path: Path) -> ModelSpec:
    """A model that goes on saying different things: tied, small random weights soon repeat."""
    from transformers import AutoConfig

    from sweeper import shapes

    altered = {"tie_word_embeddings": False, "initializer_range": 0.3}
    AutoConfig.for_model(**{**shapes.architecture("tiny"), **altered}).save_pretrained(tmp_path)
    return ModelSpec(id=str(tmp_path), weights="dummy")


@pytest.fixture
def make() -> Iterator[Callable[..., Any]]:
    from sweeper.engines.transformers import TransformersEngine

    made = []

    def engine(
        model: ModelSpec = DUMMY,
        clock: Clock | None = None,
        devices: tuple[str, ...] = (),
        **spec: Any,
    ) -> Any:
        asked = {"kind": "transformers", "dtype": "float32", "compile": False, **spec}
        settings = Settings(
            model=model,
            engine=EngineSpec(**asked),
            workload=WorkloadSpec(
                batching="static", batch_size=3, input_tokens=INPUT, output_tokens=OUTPUT
            ),
        )
        made.append(TransformersEngine(settings, SIZES, devices, clock or RealClock()))
        return made[-1]

    yield engine
    for each in made:
        each.close()


def requests(*prompts: int, output_tokens: int = OUTPUT) -> list[Request]:
    """One request for each prompt length."""
    return [
        Request(place, [(31 * place + 7 * at) % 4096 for at in range(length)], output_tokens)
        for place, length in enumerate(prompts)
    ]


def settings_of(**decoding: Any) -> Settings:
    return Settings(workload=WorkloadSpec(decoding=decoding))


def tokens(engine: Any, batch: list[Request]) -> list[list[int]]:
    list(engine.generate(batch, Settings()))
    ids: list[list[int]] = engine.last_tokens.tolist()
    return ids


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_model_laid_out_without_memory_computes_as_any_other(name: str) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from sweeper.engines import weights

    def config() -> Any:
        return AutoConfig.for_model(**{**SMALL, **ARCHITECTURES[name]})

    cpu = torch.device("cpu")
    built = weights.build(DUMMY, config(), "float32", None, cpu)
    usual = AutoModelForCausalLM.from_config(config(), dtype=torch.float32).eval()
    usual.load_state_dict(built.state_dict())
    prompt = torch.arange(40).reshape(2, 20)
    with torch.no_grad():
        assert torch.equal(built(prompt).logits, usual(prompt).logits)
    ours, theirs = dict(built.named_buffers()), dict(usual.named_buffers())
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert weights.weight_bytes(built) == weights.weight_bytes(usual)
    assert not any(weight.is_meta for weight in [*built.parameters(), *built.buffers()])


def test_dummy_weights_are_what_is_said_of_them(make: Callable[..., Any]) -> None:
    import torch

    engine = make()
    said = engine.load()["weights"]
    assert (said["kind"], said["distribution"], said["mean"]) == ("dummy", "normal", 0.0)
    again = make()
    assert again.load()["weights"] == said
    for (name, weight), other in zip(
        engine.model.named_parameters(), again.model.parameters(), strict=True
    ):
        assert torch.equal(weight, other)
        if weight.ndim > 1:
            assert weight.mean().item() == pytest.approx(said["mean"], abs=1e-3)
            assert weight.std().item() == pytest.approx(said["std"], rel=0.02)
        else:
            assert torch.all(weight == said["norms"]), name
    embeddings = engine.model.get_input_embeddings().weight
    assert engine.model.get_output_embeddings().weight is embeddings


def test_zeros_are_zeros(make: Callable[..., Any]) -> None:
    import torch

    engine = make(replace(DUMMY, weights="dummy_zeros"))
    assert engine.load()["weights"] == {"kind": "dummy_zeros"}
    assert not any(torch.any(weight) for weight in engine.model.parameters())
    assert torch.any(engine.model.model.rotary_emb.inv_freq)
    assert tokens(engine, requests(4)) == [[0] * OUTPUT]


def test_weights_that_do_not_fit_are_refused_before_they_are_drawn() -> None:
    import torch
    from transformers import AutoConfig

    from sweeper.engines import weights

    config = AutoConfig.for_model("llama", **{**SMALL, "vocab_size": 2**40})
    with pytest.raises(Infeasible, match=r"out of memory: weights of 28\d{13} bytes, \d+ free"):
        weights.build(DUMMY, config, "bfloat16", None, torch.device("cpu"))


def test_memory_that_is_refused_is_infeasible_and_free_again() -> None:
    import torch

    from sweeper.engines.transformers_device import within_memory

    held: list[Any] = []

    def too_much() -> None:
        local = torch.zeros(1000)
        held.append(weakref.ref(local))
        torch.empty(2**50, dtype=torch.uint8)

    with pytest.raises(Infeasible, match="out of memory"):
        within_memory(too_much)
    assert held[0]() is None
    with pytest.raises(EngineError, match="ZeroDivisionError"):
        within_memory(lambda: 1 // 0)
    with pytest.raises(Infeasible, match=r"no kernel: .* not implemented for 'Bool'"):
        within_memory(lambda: torch.ones(2, 2).bool() @ torch.ones(2, 2).bool())


def test_a_local_folder_is_served_with_its_own_weights(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    """Its end-of-sequence token and its sampling would end or change what must be forced."""
    from transformers import GenerationConfig

    dummy = make()
    dummy.load()
    expected = tokens(dummy, requests(INPUT, INPUT))
    dummy.model.generation_config = GenerationConfig(
        eos_token_id=expected[0][1], do_sample=True, temperature=9.0, max_new_tokens=2
    )
    dummy.model.save_pretrained(tmp_path)
    engine = make(ModelSpec(id=str(tmp_path)))
    resolved = engine.load()
    assert (resolved["model"], resolved["weights"]) == (str(tmp_path), {"kind": "auto"})
    assert resolved["dtype"] == "float32"
    assert tokens(engine, requests(INPUT, INPUT)) == expected
    shaped = make(ModelSpec(id=str(tmp_path), weights="dummy"), dtype="bfloat16")
    assert shaped.load()["weights"]["kind"] == "dummy"
    assert shaped.load()["dtype"] == "bfloat16"


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        (ModelSpec(id="nobody/no-such-model"), EngineError, "HF_TOKEN"),
        (ModelSpec(id="nobody/no-such-model"), EngineError, "huggingface.co/nobody/no-such-model"),
        (ModelSpec(id="nobody/no-such-model"), EngineError, "model.weights=dummy"),
        (ModelSpec(id="/no/such/folder"), EngineError, "/no/such/folder"),
        (ModelSpec(shape="tiny"), Infeasible, "needs model.id"),
        (replace(DUMMY, weights="dummy_engine"), Infeasible, "vLLM's own"),
    ],
)
def test_a_model_that_cannot_be_had_says_what_to_do(
    make: Callable[..., Any], model: ModelSpec, error: type[Exception], said: str
) -> None:
    engine = make(model)
    with pytest.raises(error, match=said):
        engine.load()
    assert engine.launch_command()


def test_gpus_that_are_not_there_are_told(make: Callable[..., Any]) -> None:
    with pytest.raises(EngineError, match="GPU-nobody"):
        make(devices=("GPU-nobody",)).load()


def test_a_padded_prompt_generates_what_it_does_alone(
    make: Callable[..., Any], restless: ModelSpec
) -> None:
    engine = make(restless)
    engine.load()
    batch = requests(5, INPUT, 9)
    together = tokens(engine, batch)
    assert together == [tokens(engine, [request])[0] for request in batch]
    assert len({token for row in together for token in row}) > OUTPUT


def test_progress_is_seen_while_a_batch_runs(make: Callable[..., Any]) -> None:
    seen: list[int] = []

    class Watch(RealClock):
        def now(self) -> float:
            seen.append(engine.progress())
            return super().now()

    engine = make(clock=Watch())
    engine.load()
    list(engine.generate(requests(INPUT), Settings()))
    events = list(engine.generate(requests(INPUT), Settings()))
    assert seen[-OUTPUT:] == list(range(OUTPUT, 2 * OUTPUT))
    assert engine.progress() == 2 * OUTPUT
    assert engine.counts()["generated_tokens"] == 2 * OUTPUT
    assert len(events) == 3 + OUTPUT - 1


def test_more_positions_than_the_model_has_are_infeasible(make: Callable[..., Any]) -> None:
    engine = make()
    engine.load()
    with pytest.raises(Infeasible, match="8198 positions asked, the model has 8192"):
        tokens(engine, requests(8192))
    assert len(tokens(engine, requests(4))[0]) == OUTPUT


def test_attention_is_what_was_asked(make: Callable[..., Any], restless: ModelSpec) -> None:
    engine = make(restless, attention="eager")
    assert engine.load()["attention"] == "eager"
    usual = make(restless)
    assert usual.load()["attention"] == "sdpa"
    assert tokens(engine, requests(INPUT)) == tokens(usual, requests(INPUT))
    with pytest.raises(Infeasible, match="no_such_attention"):
        make(attention="no_such_attention").load()
    with pytest.raises(Infeasible, match="FlashAttention2"):
        make(attention="flash_attention_2").load()


def test_options_reach_generate_and_unknown_ones_fail(make: Callable[..., Any]) -> None:
    usual = make()
    usual.load()
    other = make(options={"repetition_penalty": 5.0})
    assert other.load()["options"] == {"repetition_penalty": 5.0}
    assert tokens(usual, requests(INPUT)) != tokens(other, requests(INPUT))
    unknown = make(options={"no_such_option": 1})
    unknown.load()
    with pytest.raises(EngineError, match="no_such_option"):
        tokens(unknown, requests(INPUT))


def test_threads_are_those_given(make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert make().load()["threads"] == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert make().load()["threads"] == len(os.sched_getaffinity(0))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert make().load()["threads"] == 1


def test_work_before_load_is_refused(make: Callable[..., Any]) -> None:
    with pytest.raises(EngineError, match="not loaded"):
        tokens(make(), requests(INPUT))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_compiled_decoding_generates_the_same_tokens(
    make: Callable[..., Any], restless: ModelSpec
) -> None:
    """Each batch size is compiled once for itself, and not again."""
    plain, compiled = make(restless), make(restless, compile=True)
    plain.load()
    resolved = compiled.load()
    assert (resolved["compile"], resolved["kv_cache"], resolved["graphs"]) == (
        True,
        "static",
        False,
    )
    for _ in range(2):
        for batch in (requests(INPUT), requests(INPUT, 9, INPUT)):
            rows = tokens(plain, batch)
            assert tokens(compiled, batch) == rows
            assert all(len(set(row)) > 3 for row in rows)
    counts = compiled.counts()
    assert (counts["compiled_graphs"], counts["graph_breaks"]) == (2.0, 0.0)
    assert counts["compiled_steps"] == 4 * (OUTPUT - 1)
    assert "compiled_steps" not in plain.counts()
    drawn = settings_of(kind="top_p", top_p=0.9)
    list(compiled.generate(requests(INPUT), drawn))
    assert compiled.counts()["compiled_steps"] == 5 * (OUTPUT - 1)
    with pytest.raises(Infeasible, match="compiles no step of a beam search"):
        list(compiled.generate(requests(INPUT), settings_of(kind="beam", width=2)))
    # As a model may that says it can be compiled.
    compiled.model.get_compiled_call = lambda config: compiled.model.__call__
    with pytest.raises(WrongSetting, match="ran 0 of 5 decoding steps compiled"):
        tokens(compiled, requests(INPUT))
