"""Speculative decoding as a study asks for it: a draft proposes tokens, the model verifies (pure).

A step keeps the tokens before the first that is refused, and adds one of the model's own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeper import shapes
from sweeper.errors import StudyError
from sweeper.schema import read_kind
from sweeper.shapes import Shape
from sweeper.spec import EngineSpec, ModelSpec, Settings

ASSUMED_ACCEPTANCE = 0.7
"""Of a draft model, in plans and simulations.

Measured pairs of models have 0.53 to 0.82 (Leviathan et al., arXiv 2211.17192, table 2).
"""


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A draft model proposes `tokens` at a time: a hub id, a folder, or the name of a shape."""

    model: str
    tokens: int = field(metadata={"min": 1})


@dataclass(frozen=True, kw_only=True)
class Ngram:
    """What followed the last few tokens where they stood before is proposed, `tokens` at a time.

    As many tokens are looked for as `prompt_lookup_max` says, then fewer, down to
    `prompt_lookup_min`; the defaults are vLLM's.
    """

    tokens: int = field(metadata={"min": 1})
    prompt_lookup_max: int = field(default=5, metadata={"min": 1})
    prompt_lookup_min: int = field(default=5, metadata={"min": 1})


@dataclass(frozen=True, kw_only=True)
class Stated:
    """A draft model proposes `tokens` at a time and pays for it; each is accepted by chance.

    `acceptance` is the probability of a token if those before it were accepted, so that the first
    i are with acceptance ** i. Time and energy are real, the text is not. `model` is as in
    `Draft`; without it the draft is the smallest known shape with the model's vocabulary.
    """

    acceptance: float = field(metadata={"min": 0, "max": 1})
    tokens: int = field(metadata={"min": 1})
    model: str | None = None


Speculation = Draft | Ngram | Stated
KINDS: Mapping[str, type[Speculation]] = {"draft": Draft, "ngram": Ngram, "stated": Stated}
"""By the `kind` of `engine.speculative`."""


def speculation(engine: EngineSpec) -> Speculation | None:
    """What `engine.speculative` says, `None` where nothing is proposed.

    Raises:
        StudyError: it says what no kind has.
    """
    given = engine.speculative
    return None if given is None else read_kind(KINDS, given, "engine.speculative")


def verified_tokens(engine: EngineSpec) -> int:
    """Tokens of one request that a decoding step computes: those proposed, and one of its own."""
    asked = speculation(engine)
    return 1 if asked is None else asked.tokens + 1


def acceptance(asked: Speculation) -> float | None:
    """Probability that a token is accepted after accepted ones; `None` where the text decides."""
    if isinstance(asked, Stated):
        return asked.acceptance
    return ASSUMED_ACCEPTANCE if isinstance(asked, Draft) else None


def acceptance_rates(probability: float, tokens: int) -> list[float]:
    """By position: the probability that this and all before it are accepted."""
    return [probability**position for position in range(1, tokens + 1)]


def draft_model(settings: Settings) -> ModelSpec | None:
    """The draft, with weights from where the model has them; `None` where no model drafts.

    Raises:
        StudyError: none is named, and no known shape can be taken.
    """
    asked, model = speculation(settings.engine), settings.model
    if asked is None or isinstance(asked, Ngram):
        return None
    name = asked.model or _smallest_beside(shapes.shape_of_model(model))
    if name not in shapes.known():
        name = next((each for each in shapes.known() if name in shapes.models(each)), name)
    if name not in shapes.known():
        return ModelSpec(id=name, weights=model.weights)
    ids = (*(each for each in (asked.model,) if each and each != name), *shapes.models(name))
    return ModelSpec(id=ids[0] if ids else None, shape=name, weights=model.weights)


def draft_shape(settings: Settings) -> Shape | None:
    """The draft's shape; `None` where no model drafts.

    Raises:
        StudyError: it is not known.
    """
    model = draft_model(settings)
    return None if model is None else shapes.shape_of_model(model)


def _smallest_beside(target: Shape) -> str:
    smaller = [
        shape
        for shape in map(shapes.shape, shapes.known())
        if shape.vocab == target.vocab and shape.parameters < target.parameters
    ]
    if not smaller:
        raise StudyError(
            f"engine.speculative.model: no known shape is smaller than {target.name} and has its "
            f"vocabulary of {target.vocab}: name the draft"
        )
    return min(smaller, key=lambda shape: shape.parameters).name
