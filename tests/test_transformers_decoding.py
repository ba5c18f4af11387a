"""What the transformers engine says under each decoding strategy, held against the model itself."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Request
from sweeper.errors import Infeasible, WrongSetting
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec

pytestmark = pytest.mark.engine

PROMPT = [(31 * place) % 4096 for place in range(12)]
MANY = 400
SIZES = Sizes(max_model_len=24, max_batch_size=MANY, batch_sizes=(1, 2, MANY))


def asked(seed: int = 0, **decoding: Any) -> Settings:
    workload = WorkloadSpec(batching="static", decoding=decoding, seed=seed)
    engine = EngineSpec(kind="transformers", dtype="float32", compile=False)
    return Settings(engine=engine, workload=workload)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Of a model that has several things to say: tied, small random weights repeat one token."""
    from transformers import AutoConfig

    from sweeper import shapes
    from sweeper.engines.transformers import TransformersEngine

    folder = tmp_path_factory.mktemp("restless")
    altered = {"tie_word_embeddings": False, "initializer_range": 0.1}
    AutoConfig.for_model(**{**shapes.architecture("tiny"), **altered}).save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        settings = Settings(
            model=ModelSpec(id=str(folder), weights="dummy"),
            engine=EngineSpec(kind="transformers", dtype="float32", compile=False),
            workload=WorkloadSpec(batching="static"),
        )
        made = TransformersEngine(settings, SIZES, (), RealClock())
        made.load()
        yield made
        made.close()


def requests(*prompts: list[int], output_tokens: int = 4, first: int = 0) -> list[Request]:
    return [Request(first + at, prompt, output_tokens) for at, prompt in enumerate(prompts)]


def said(engine: Any, batch: list[Request], settings: Settings) -> list[list[int]]:
    list(engine.generate(batch, settings))
    rows: list[list[int]] = engine.last_tokens.tolist()
    return rows


def log_probabilities(engine: Any, text: list[int], temperature: float = 1.0) -> Any:
    import torch

    with torch.no_grad():
        logits = engine.model(torch.tensor([text])).logits[0, -1]
    return torch.log_softmax(logits / temperature, dim=-1)


def best_of_beams(engine: Any, prompt: list[int], width: int, tokens: int) -> list[int]:
    """Beam search as it is defined, one text at a time."""
    beams: list[tuple[float, list[int]]] = [(0.0, [])]
    for _ in range(tokens):
        longer = [
            (score + value, [*text, token])
            for score, text in beams
            for value, token in zip(
                *(each.tolist() for each in log_probabilities(engine, prompt + text).topk(width)),
                strict=True,
            )
        ]
        beams = sorted(longer, reverse=True)[:width]
    return beams[0][1]


def test_a_beam_search_finds_what_the_definition_does(engine: Any) -> None:
    prompts = [[*PROMPT[:-1], last] for last in range(40, 52)]
    greedy = said(engine, requests(*prompts), asked(kind="greedy"))
    found = said(engine, requests(*prompts), asked(kind="beam", width=3))
    assert found == [best_of_beams(engine, prompt, 3, 4) for prompt in prompts]
    assert found != greedy
    assert said(engine, requests(*prompts), asked(kind="beam", width=1)) == greedy


def test_of_a_beam_search_nothing_is_told_before_its_end(engine: Any) -> None:
    before = engine.progress()
    events = list(engine.generate(requests(PROMPT, PROMPT), asked(kind="beam", width=3)))
    times = {event.t_s for event in events if event.kind != "admitted"}
    assert len(times) == 1
    assert sum(event.tokens + (event.kind == "first_token") for event in events) == 8
    assert engine.progress() - before == 4
    assert {"beam_search_requests", "beams"} <= engine.counts().keys()


def test_tokens_are_drawn_as_often_as_the_model_says(engine: Any) -> None:
    """Within five standard errors, for every token that is likely enough to be counted."""
    temperature = 0.25
    drawn = Counter(
        row[0]
        for row in said(
            engine,
            requests(*[PROMPT] * MANY, output_tokens=1),
            asked(kind="temperature", temperature=temperature),
        )
    )
    probabilities = log_probabilities(engine, PROMPT, temperature).exp()
    likely = [token for token, p in enumerate(probabilities.tolist()) if p * MANY > 20]
    assert len(likely) > 2
    for token in likely:
        p = probabilities[token].item()
        error = (MANY * p * (1 - p)) ** 0.5
        assert drawn[token] == pytest.approx(MANY * p, abs=5 * error)


def test_top_p_draws_from_the_nucleus_alone(engine: Any) -> None:
    import torch

    temperature, p = 0.25, 0.6
    rows = said(
        engine,
        requests(*[PROMPT] * MANY, output_tokens=1),
        asked(kind="top_p", top_p=p, temperature=temperature),
    )
    probabilities = log_probabilities(engine, PROMPT, temperature).exp()
    ordered, tokens = torch.sort(probabilities, descending=True)
    size = int((ordered.cumsum(0) < p).sum()) + 1
    assert 1 < size < 4096
    nucleus = set(tokens[:size].tolist())
    assert {row[0] for row in rows} == nucleus


def test_what_is_drawn_comes_again_with_its_seed(engine: Any) -> None:
    draws = {"kind": "temperature", "temperature": 1.0}
    batch = requests(PROMPT, PROMPT)
    rows = said(engine, batch, asked(**draws))
    assert rows[0] != rows[1]
    said(engine, requests(PROMPT), asked(**draws))
    assert said(engine, batch, asked(**draws)) == rows
    assert said(engine, batch, asked(seed=1, **draws)) != rows
    assert said(engine, requests(PROMPT, PROMPT, first=7), asked(**draws)) != rows
    assert [len(row) for row in rows] == [4, 4]


def test_beams_that_the_host_cannot_cache_are_infeasible(engine: Any) -> None:
    batch = requests(*[PROMPT * 600] * 100)
    with pytest.raises(Infeasible, match="out of memory: KV cache of"):
        said(engine, batch, asked(kind="beam", width=1000))


def test_a_model_that_decodes_in_another_way_is_told(
    engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a checkpoint's code may: it brings a `generate` of its own."""
    generate = type(engine.model).generate

    def greedily(*prompts: Any, generation_config: Any, **more: Any) -> Any:
        generation_config.do_sample = False
        return generate(engine.model, *prompts, generation_config=generation_config, **more)

    monkeypatch.setattr(engine.model, "generate", greedily)
    with pytest.raises(WrongSetting, match="no token by chance"):
        said(engine, requests(PROMPT), asked(kind="temperature", temperature=1.0))
