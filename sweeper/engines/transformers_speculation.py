"""Speculation as `generate` offers it, for one request at a time, and what came of it (pure).

transformers calls it assisted generation: a draft model, or what followed the last tokens where
they stood before. Names are those of `transformers.GenerationConfig`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sweeper.engines import Request
from sweeper.errors import Infeasible, StudyError, WrongSetting
from sweeper.spec import EngineSpec, ModelSpec, Settings
from sweeper.speculation import Draft, Ngram, Speculation, Stated, draft_model, speculation

SHORTEST_MATCH = 1
"""Tokens that prompt look-up goes down to; transformers has no setting for it."""


def assistance(spec: EngineSpec) -> Speculation | None:
    """What `engine.speculative` asks of transformers.

    Raises:
        Infeasible: what it has no way to do.
    """
    try:
        asked = speculation(spec)
    except StudyError as error:
        raise Infeasible(str(error)) from error
    if isinstance(asked, Stated):
        raise Infeasible("engine.speculative: transformers accepts no tokens by a stated chance")
    if isinstance(asked, Ngram) and asked.prompt_lookup_min != SHORTEST_MATCH:
        raise Infeasible(
            "engine.speculative.prompt_lookup_min: transformers looks for as little as "
            f"{SHORTEST_MATCH} token: set {SHORTEST_MATCH}"
        )
    if asked is not None and spec.compile:
        raise Infeasible(
            "engine.speculative with engine.compile: transformers speculates with a cache that "
            "grows, and compiles for one that does not: set engine.compile: false"
        )
    return asked


def draft_of(settings: Settings) -> ModelSpec | None:
    """The draft model, `None` where none is asked for.

    Raises:
        Infeasible: none is named, or it has no weights.
    """
    try:
        draft = draft_model(settings)
    except StudyError as error:
        raise Infeasible(str(error)) from error
    if draft is not None and draft.id is None and draft.weights == "auto":
        raise Infeasible(f"engine.speculative: {draft.shape}, the draft, has no weights of its own")
    return draft


def assisted_options(asked: Speculation | None) -> dict[str, Any]:
    """Further options of `generate`.

    No token may be padding: a draft model would not see those of its prompt (transformers drops a
    mask of ones, and makes the draft another from the padding's id).
    """
    if asked is None:
        return {}
    return {"pad_token_id": None, **lookup_options(asked)}


def lookup_options(asked: Speculation) -> dict[str, Any]:
    """Options of `generate` that look drafts up in the text."""
    if not isinstance(asked, Ngram):
        return {}
    return {
        "prompt_lookup_num_tokens": asked.tokens,
        "max_matching_ngram_size": asked.prompt_lookup_max,
    }


def draft_options(asked: Draft) -> dict[str, Any]:
    """Options of the draft model: as many tokens each time, however sure of them it is.

    By themselves they would be 20, fewer after each that is refused, and end where it is unsure.
    """
    return {
        "num_assistant_tokens": asked.tokens,
        "num_assistant_tokens_schedule": "constant",
        "assistant_confidence_threshold": 0.0,
    }


def resolved_assistance(asked: Speculation | None, options: Any) -> dict[str, Any] | None:
    """What is told of it; `options` are those that the draft model was found with."""
    if isinstance(asked, Ngram):
        return {"method": "prompt_lookup", **lookup_options(asked)}
    if isinstance(asked, Draft):
        return {
            "method": "draft_model",
            **{name: getattr(options, name) for name in draft_options(asked)},
        }
    return None


def refuse_several(asked: Speculation | None, requests: int, *, beams: int) -> None:
    """Raises `Infeasible` for what transformers does not speculate for."""
    if asked is None:
        return
    if requests > 1:
        raise Infeasible(
            f"a batch of {requests} with engine.speculative: transformers speculates for one "
            "request at a time (workload.batch_size: 1)"
        )
    if beams > 1:
        raise Infeasible("engine.speculative with a beam search: transformers has no such search")


class Drafts:
    """Counts what is proposed and accepted, by looking at the candidates that are verified."""

    def __init__(self) -> None:
        self.requests = 0
        """Requests that candidates were asked for."""
        self.proposed = 0
        self.accepted = 0

    def counting(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """What makes the generator of a request's candidates, so that these are counted."""

        def made(*args: Any, **kwargs: Any) -> Any:
            generator = make(*args, **kwargs)
            propose, learn = generator.get_candidates, generator.update_candidate_strategy

            def get_candidates(input_ids: Any, *args: Any, **kwargs: Any) -> Any:
                candidates, logits = propose(input_ids, *args, **kwargs)
                self.proposed += candidates.shape[1] - input_ids.shape[1]
                return candidates, logits

            def update_candidate_strategy(input_ids: Any, scores: Any, num_matches: Any) -> Any:
                self.accepted += int(num_matches)
                return learn(input_ids, scores, num_matches)

            generator.get_candidates = get_candidates
            generator.update_candidate_strategy = update_candidate_strategy
            self.requests += 1
            return generator

        return made

    def check(self, before: int, request: Request) -> None:
        """Raises `WrongSetting` if the last request was generated without candidates.

        `before` is what `requests` was before it.
        """
        if self.requests != before + 1 and request.output_tokens > 1:
            raise WrongSetting("engine.speculative was asked, transformers did not speculate")

    def counts(self) -> Mapping[str, float]:
        """Tokens since load; those of a match beyond a request's end are proposed all the same."""
        return {
            "draft_tokens_proposed": float(self.proposed),
            "draft_tokens_accepted": float(self.accepted),
        }
