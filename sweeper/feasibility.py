"""Launches that no GPU can hold, whatever its memory (pure)."""

from sweeper.roofline import batched_tokens
from sweeper.shapes import Shape
from sweeper.spec import EngineSpec, Settings, Sizes
from sweeper.speculation import draft_shape


def impossible(settings: Settings, shape: Shape, sizes: Sizes) -> str | None:
    """Why a launch cannot exist whatever the memory, or `None`."""
    engine = settings.engine
    if shape.heads % engine.tensor_parallel:
        return (
            f"{shape.name} has {shape.heads} attention heads, which engine.tensor_parallel "
            f"{engine.tensor_parallel} does not divide"
        )
    if shape.layers < engine.pipeline_parallel:
        return (
            f"{shape.name} has {shape.layers} layers, fewer than engine.pipeline_parallel "
            f"{engine.pipeline_parallel}"
        )
    if sizes.max_model_len > shape.max_positions:
        return (
            f"{sizes.max_model_len} tokens of input and output, {shape.name} takes at most "
            f"{shape.max_positions}"
        )
    draft = draft_shape(settings)
    if draft is not None and draft.vocab != shape.vocab:
        return (
            f"{draft.name}, the draft, has a vocabulary of {draft.vocab}, {shape.name} one of "
            f"{shape.vocab}"
        )
    if draft is not None and draft.heads % engine.tensor_parallel:
        return (
            f"{draft.name}, the draft, has {draft.heads} attention heads, which "
            f"engine.tensor_parallel {engine.tensor_parallel} does not divide"
        )
    return None if engine.kind == "transformers" else _too_few_tokens(engine, sizes)


def _too_few_tokens(engine: EngineSpec, sizes: Sizes) -> str | None:
    """Why vLLM would not start with such a token budget."""
    budget = batched_tokens(engine, sizes)
    if budget < sizes.sequences:
        return (
            f"engine.max_batched_tokens {budget} is less than one token for each of "
            f"{sizes.sequences} requests"
        )
    if engine.chunked_prefill is False and budget < sizes.max_model_len:
        return (
            f"engine.max_batched_tokens {budget} with engine.chunked_prefill false: a prompt goes "
            f"in one pass, and may have {sizes.max_model_len} tokens"
        )
    return None
