import json
from pathlib import Path

import pytest

from sweeper.errors import StudyError
from sweeper.shapes import (
    FAMILIES,
    FOLDER,
    Shape,
    architecture,
    known,
    shape,
    shape_of,
    shape_of_model,
)
from sweeper.spec import ModelSpec

PUBLISHED = {
    "llama-3.2-1b": 1.24e9,
    "llama-3.1-8b": 8.03e9,
    "llama-3.1-70b": 70.6e9,
    "qwen-2.5-32b": 32.8e9,
    "olmo-1b": 1.18e9,
    "olmo-7b": 6.9e9,
    "olmoe-1b-7b": 6.9e9,
}
SMALL = {
    "vocab_size": 64,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.mark.parametrize(("name", "parameters"), PUBLISHED.items())
def test_parameters_are_those_published(name: str, parameters: float) -> None:
    assert shape(name).parameters == pytest.approx(parameters, rel=0.005)


def test_active_parameters_of_the_mixture_are_those_published() -> None:
    assert shape("olmoe-1b-7b").active_parameters == pytest.approx(1.3e9, rel=0.02)
    for name in known():
        if name != "olmoe-1b-7b":
            assert shape(name).active_parameters == shape(name).parameters


def test_every_published_model_has_a_shape_and_every_shape_a_source() -> None:
    assert set(known()) == {*PUBLISHED, "tiny"}
    for name in known():
        assert json.loads((FOLDER / f"{name}.json").read_text())["source"]


def test_kv_cache_of_an_8b_llama_is_128_kib_a_token() -> None:
    assert shape("llama-3.1-8b").kv_bytes_per_token("bfloat16") == 128 * 1024
    assert shape("llama-3.1-8b").kv_bytes_per_token("fp8") == 64 * 1024


def brute_force_parameters_read(found: Shape, tokens: int) -> float:
    """By the chance of each expert of each layer to be chosen by any of the tokens."""
    experts = sum(
        1 - (1 - found.active_experts / found.experts) ** tokens for _ in range(found.experts)
    )
    dense = found.parameters - found.layers * found.experts * found.expert_parameters
    table = 0 if found.tied else found.embedding_parameters
    return dense - table + found.layers * experts * found.expert_parameters


@pytest.mark.parametrize("name", ["olmoe-1b-7b", "olmo-1b", "llama-3.1-8b"])
@pytest.mark.parametrize("tokens", [1, 2, 8, 512])
def test_parameters_read_by_a_pass(name: str, tokens: int) -> None:
    found = shape(name)
    assert found.parameters_read(tokens) == pytest.approx(
        brute_force_parameters_read(found, tokens)
    )


def test_a_pass_reads_its_own_experts_at_one_token_and_all_at_many() -> None:
    found = shape("olmoe-1b-7b")
    table = found.embedding_parameters
    assert found.parameters_read(1) == pytest.approx(found.active_parameters - table)
    assert found.parameters_read(500) == pytest.approx(found.parameters - table)


def test_the_shape_of_a_local_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(architecture("llama-3.2-1b")))
    found = shape_of_model(ModelSpec(id=str(folder)))
    assert found.name == "mine"
    assert found.parameters == shape("llama-3.2-1b").parameters


def test_a_study_names_a_shape_or_a_model_that_has_one() -> None:
    named = ModelSpec(id="someone/else", shape="olmo-7b")
    assert shape_of_model(named) == shape("olmo-7b")
    published = ModelSpec(id="meta-llama/Llama-3.1-8B-Instruct")
    assert shape_of_model(published) == shape("llama-3.1-8b")


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (ModelSpec(shape="llama-9"), "no shape 'llama-9'; known: .*llama-3.1-8b"),
        (ModelSpec(id="nobody/nothing"), "nobody/nothing .* set model.shape"),
        (ModelSpec(), "name an id or a shape"),
    ],
)
def test_an_unknown_shape_is_refused_with_those_known(model: ModelSpec, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        shape_of_model(model)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot read"),
        ("[]", "not a model's configuration"),
        ('{"model_type": "mamba"}', "model_type 'mamba'; known: .*llama"),
        ('{"model_type": "llama", "hidden_size": 8}', "has no 'num_attention_heads'"),
    ],
)
def test_a_configuration_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(StudyError, match=said):
        shape_of(tmp_path / "config.json")


def test_a_changed_architecture_does_not_change_the_next_one() -> None:
    architecture("tiny")["rope_parameters"]["rope_theta"] = 1.0
    assert architecture("tiny")["rope_parameters"]["rope_theta"] == 10000.0


def parameters_in_transformers(values: dict[str, object]) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**values)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.engine
@pytest.mark.parametrize("name", known())
def test_transformers_builds_as_many_parameters(name: str) -> None:
    assert parameters_in_transformers(architecture(name)) == shape(name).parameters


@pytest.mark.engine
@pytest.mark.parametrize("attention_bias", [False, True])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_each_family_has_the_parameters_transformers_gives_it(
    model_type: str, attention_bias: bool, tmp_path: Path
) -> None:
    values = {"model_type": model_type, "tie_word_embeddings": attention_bias, **SMALL}
    expert_key = FAMILIES[model_type].expert_key
    if expert_key:
        values |= {expert_key: 4, "num_experts_per_tok": 2}
    if model_type in {"llama", "olmo", "olmo2", "olmoe", "qwen3"}:
        values["attention_bias"] = attention_bias
    if model_type == "llama":
        values["mlp_bias"] = attention_bias
    if model_type == "qwen3":
        values["head_dim"] = 16
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert shape_of(tmp_path / "config.json").parameters == parameters_in_transformers(values)
