"""Speculation of the transformers engine: real pairs of models on the CPU, and look-up."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Event, Request
from sweeper.errors import Infeasible, WrongSetting
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec
from sweeper.trial.latency import Timeline, samples

pytestmark = pytest.mark.engine

INPUT, OUTPUT, TOKENS = 16, 24, 4
SIZES = Sizes(max_model_len=INPUT + OUTPUT, max_batch_size=1, batch_sizes=(1,))
PROMPTS = [[(31 * at + 7 * place) % 4096 for at in range(INPUT)] for place in range(4)]
GREEDY = Settings(workload=WorkloadSpec(batching="static"))
LOOKUP = {
    "kind": "ngram",
    "tokens": TOKENS,
    "prompt_lookup_max": 3,
    "prompt_lookup_min": 1,
}


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of a model that says different things, and of a draft that often agrees with it."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from sweeper import shapes

    altered = {"tie_word_embeddings": False, "initializer_range": 0.1}
    config = AutoConfig.for_model(**{**shapes.architecture("tiny"), **altered})
    folder = tmp_path_factory.mktemp("pair")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder / "model")
    for weight in model.parameters():
        weight.data += 0.006 * torch.randn_like(weight)
    model.save_pretrained(folder / "draft")
    return str(folder / "model"), str(folder / "draft")


@pytest.fixture
def make(pair: tuple[str, str]) -> Iterator[Callable[..., Any]]:
    from sweeper.engines.transformers import TransformersEngine

    made = []

    def engine(speculative: dict[str, Any] | None, **spec: Any) -> Any:
        asked = {"kind": "transformers", "dtype": "float32", "compile": False, **spec}
        settings = Settings(
            model=ModelSpec(id=pair[0]),
            engine=EngineSpec(**asked, speculative=speculative),
            workload=GREEDY.workload,
        )
        made.append(TransformersEngine(settings, SIZES, (), RealClock()))
        return made[-1]

    yield engine
    for each in made:
        each.close()


def requests(output_tokens: int = OUTPUT) -> list[Request]:
    return [Request(index, prompt, output_tokens) for index, prompt in enumerate(PROMPTS)]


def texts(engine: Any, settings: Settings = GREEDY) -> list[list[int]]:
    """What the engine says to each prompt, one after the other."""
    rows = []
    for request in requests():
        list(engine.generate([request], settings))
        rows += engine.last_tokens.tolist()
    return rows


def check_counts(engine: Any) -> tuple[int, int]:
    """Proposed and accepted: each verification gives what it accepts, and a token of its own."""
    counts = engine.counts()
    proposed, accepted = (int(counts[f"draft_tokens_{name}"]) for name in ("proposed", "accepted"))
    assert counts["generated_tokens"] == len(PROMPTS) * OUTPUT == accepted + engine.progress()
    assert accepted <= proposed <= TOKENS * engine.progress()
    return proposed, accepted


def test_a_draft_changes_how_a_text_comes_and_not_the_text(
    make: Callable[..., Any], pair: tuple[str, str]
) -> None:
    plain = make(None)
    assert plain.load()["speculative"] is None
    engine = make({"kind": "draft", "model": pair[1], "tokens": TOKENS})
    resolved = engine.load()
    assert (resolved["draft"], resolved["draft_weights"]) == (pair[1], {"kind": "auto"})
    assert resolved["speculative"] == {
        "method": "draft_model",
        "num_assistant_tokens": TOKENS,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0.0,
    }
    assert texts(engine) == texts(plain)
    proposed, accepted = check_counts(engine)
    assert 0 < accepted < proposed
    assert "draft_tokens_proposed" not in plain.counts()
    assert engine.counts()["peak_memory_bytes"] > 0


def test_a_draft_that_is_the_model_is_always_right(
    make: Callable[..., Any], pair: tuple[str, str]
) -> None:
    """Every pass gives `tokens` + 1, and the last the rest, of which one is the model's own.

    Also of a prompt that holds token 0, which transformers must not take for padding.
    """
    assert any(0 in prompt for prompt in PROMPTS)
    engine = make({"kind": "draft", "model": pair[0], "tokens": TOKENS})
    engine.load()
    texts(engine)
    proposed, accepted = check_counts(engine)
    passes = -(-OUTPUT // (TOKENS + 1))
    assert engine.progress() == len(PROMPTS) * passes
    assert accepted == proposed == len(PROMPTS) * (OUTPUT - passes)


def test_what_stood_before_is_looked_up(make: Callable[..., Any]) -> None:
    """A model that hears a pattern goes on with it where it has learnt to; this one at random."""
    plain, engine = make(None), make(LOOKUP)
    plain.load()
    assert engine.load()["speculative"] == {
        "method": "prompt_lookup",
        "prompt_lookup_num_tokens": TOKENS,
        "max_matching_ngram_size": 3,
    }
    said = texts(plain)
    assert texts(engine) == said
    _, few = check_counts(engine)
    # Where a prompt already holds the answer, its continuation is found there.
    [answer] = said[:1]
    told = Request(9, [*PROMPTS[0], *answer, *PROMPTS[0]], OUTPUT)
    list(engine.generate([told], GREEDY))
    assert engine.counts()["draft_tokens_proposed"] > 0
    assert engine.counts()["draft_tokens_accepted"] >= few
    [row] = engine.last_tokens.tolist()
    list(plain.generate([told], GREEDY))
    assert plain.last_tokens.tolist() == [row]


def test_drawn_tokens_are_verified_too(make: Callable[..., Any], pair: tuple[str, str]) -> None:
    workload = WorkloadSpec(batching="static", decoding={"kind": "temperature", "temperature": 0.5})
    engine = make({"kind": "draft", "model": pair[1], "tokens": TOKENS})
    engine.load()
    first = texts(engine, Settings(workload=workload))
    proposed, accepted = check_counts(engine)
    assert 0 < accepted < proposed
    assert engine.counts()["sampled_requests"] == len(PROMPTS)
    assert texts(engine, Settings(workload=workload)) == first


def test_tokens_of_a_burst_are_counted_as_such(
    make: Callable[..., Any], pair: tuple[str, str]
) -> None:
    engine = make({"kind": "draft", "model": pair[0], "tokens": TOKENS})
    engine.load()
    timeline, [request, *_] = Timeline(), requests()
    events: list[Event] = list(engine.generate([request], GREEDY))
    for event in events:
        timeline.add(event)
    seen = samples(timeline, {request.index: OUTPUT}, -1.0, float("inf"), streams=True)
    gaps = [gap for gap, tokens in seen.itl_s for _ in range(tokens)]
    assert len(gaps) == OUTPUT - 1
    assert sum(gap > 0 for gap in gaps) == engine.progress() - 1
    assert sum(gaps) == pytest.approx(seen.tpot_s[0] * (OUTPUT - 1))


def test_one_request_at_a_time(make: Callable[..., Any]) -> None:
    engine = make(LOOKUP)
    engine.load()
    with pytest.raises(Infeasible, match=r"a batch of 4 .*workload\.batch_size: 1"):
        list(engine.generate(requests(), GREEDY))
    beam = replace(GREEDY.workload, decoding={"kind": "beam", "width": 2})
    with pytest.raises(Infeasible, match="beam search"):
        list(engine.generate(requests()[:1], replace(GREEDY, workload=beam)))
    assert len(texts(engine)[0]) == OUTPUT


def test_a_draft_of_another_vocabulary_is_refused(make: Callable[..., Any], tmp_path: Path) -> None:
    from transformers import AutoConfig

    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    AutoConfig.for_model("llama", vocab_size=99, intermediate_size=32, **small).save_pretrained(
        tmp_path
    )
    engine = make({"kind": "draft", "model": str(tmp_path), "tokens": 2})
    engine._settings = replace(engine._settings, model=ModelSpec(shape="tiny", weights="dummy"))
    with pytest.raises(Infeasible, match="vocabulary of 99, the model one of 4096"):
        engine.load()


def test_a_model_that_does_not_speculate_is_told(make: Callable[..., Any]) -> None:
    engine = make(LOOKUP)
    engine.load()
    generate = engine.model.generate

    def plainly(*prompts: Any, generation_config: Any, **more: Any) -> Any:
        generation_config.prompt_lookup_num_tokens = None
        return generate(*prompts, generation_config=generation_config, **more)

    engine.model.generate = plainly
    with pytest.raises(WrongSetting, match="did not speculate"):
        texts(engine)
