"""What a study says of speculation, and which model drafts."""

from typing import Any

import pytest

from sweeper import shapes
from sweeper.errors import StudyError
from sweeper.spec import EngineSpec, ModelSpec, Settings
from sweeper.speculation import (
    ASSUMED_ACCEPTANCE,
    Draft,
    Ngram,
    Stated,
    acceptance,
    acceptance_rates,
    draft_model,
    draft_shape,
    speculation,
    verified_tokens,
)

STATED = {"kind": "stated", "acceptance": 0.5, "tokens": 3}
INSTRUCT = "meta-llama/Llama-3.2-1B-Instruct"


def settings(model: ModelSpec, said: dict[str, Any] | None) -> Settings:
    return Settings(model=model, engine=EngineSpec(speculative=said))


def test_each_kind_is_read_as_what_it_is() -> None:
    asked = {
        "stated": speculation(EngineSpec(speculative=STATED)),
        "draft": speculation(EngineSpec(speculative={"kind": "draft", "model": "m", "tokens": 2})),
        "ngram": speculation(EngineSpec(speculative={"kind": "ngram", "tokens": 4})),
    }
    assert asked == {
        "stated": Stated(acceptance=0.5, tokens=3),
        "draft": Draft(model="m", tokens=2),
        "ngram": Ngram(tokens=4, prompt_lookup_max=5, prompt_lookup_min=5),
    }
    assert {kind: acceptance(each) for kind, each in asked.items() if each} == {
        "stated": 0.5,
        "draft": ASSUMED_ACCEPTANCE,
        "ngram": None,
    }
    assert verified_tokens(EngineSpec(speculative=STATED)) == 4
    assert (speculation(EngineSpec()), verified_tokens(EngineSpec())) == (None, 1)


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"kind": "eagle"}, r"engine\.speculative\.kind: 'eagle'; draft, ngram, stated"),
        ({"kind": "stated", "acceptance": 2, "tokens": 1}, r"engine\.speculative\.acceptance: 2"),
        ({"kind": "ngram"}, r"engine\.speculative\.tokens: missing"),
    ],
)
def test_what_no_kind_has_is_refused(said: dict[str, Any], fault: str) -> None:
    with pytest.raises(StudyError, match=fault):
        speculation(EngineSpec(speculative=said))


def test_rates_are_of_a_token_and_all_before_it() -> None:
    assert acceptance_rates(0.5, 3) == [0.5, 0.25, 0.125]
    assert acceptance_rates(0.0, 2) == [0.0, 0.0]


@pytest.mark.parametrize(
    ("model", "named", "draft"),
    [
        (
            ModelSpec(shape="llama-3.1-8b", weights="dummy"),
            None,
            ModelSpec(id="meta-llama/Llama-3.2-1B", shape="llama-3.2-1b", weights="dummy"),
        ),
        (
            ModelSpec(id="meta-llama/Llama-3.1-8B"),
            None,
            ModelSpec(id="meta-llama/Llama-3.2-1B", shape="llama-3.2-1b"),
        ),
        (
            ModelSpec(id="meta-llama/Llama-3.1-8B"),
            INSTRUCT,
            ModelSpec(id=INSTRUCT, shape="llama-3.2-1b"),
        ),
        (ModelSpec(id="a/b"), "c/d", ModelSpec(id="c/d")),
        (
            ModelSpec(shape="tiny", weights="dummy"),
            "tiny",
            ModelSpec(shape="tiny", weights="dummy"),
        ),
        (
            ModelSpec(shape="olmo-7b", weights="dummy"),
            None,
            ModelSpec(id="allenai/OLMo-1B-hf", shape="olmo-1b", weights="dummy"),
        ),
    ],
)
def test_the_draft_is_named_or_the_smallest_of_the_vocabulary(
    model: ModelSpec, named: str | None, draft: ModelSpec
) -> None:
    said = {**STATED, **({"model": named} if named else {})}
    assert draft_model(settings(model, said)) == draft


def test_no_model_drafts_without_speculation_or_from_ngrams() -> None:
    model = ModelSpec(shape="llama-3.1-8b")
    for said in (None, {"kind": "ngram", "tokens": 2}):
        assert draft_model(settings(model, said)) is None
        assert draft_shape(settings(model, said)) is None
    assert draft_shape(settings(model, STATED)) == shapes.shape("llama-3.2-1b")


def test_a_draft_that_cannot_be_chosen_must_be_named() -> None:
    with pytest.raises(StudyError, match="no known shape is smaller than tiny"):
        draft_model(settings(ModelSpec(shape="tiny"), STATED))
    with pytest.raises(StudyError, match="shape of c/d is not known"):
        draft_shape(settings(ModelSpec(shape="tiny"), {**STATED, "model": "c/d"}))
