"""Speculative decoding as vLLM is asked for it, and what it took (pure).

Names are those of `vllm.config.SpeculativeConfig`.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from sweeper.errors import Infeasible, StudyError
from sweeper.spec import EngineSpec, Settings
from sweeper.speculation import (
    Ngram,
    Stated,
    acceptance_rates,
    draft_model,
    speculation,
    verified_tokens,
)

TAKEN = (
    "method",
    "num_speculative_tokens",
    "draft_tensor_parallel_size",
    "prompt_lookup_max",
    "prompt_lookup_min",
    "rejection_sample_method",
    "synthetic_acceptance_rates",
)
"""What is told of the configuration that vLLM made."""
STATED_ON_CPUS = (
    "engine.speculative: stated needs a GPU: vLLM's build for processors takes the acceptance and "
    "fails at the first step (its rejection sampler has no synthetic mode, 0.32); draft and ngram "
    "run on processors"
)

LARGEST_USUAL_CAPTURE = 512
"""Tokens of the largest pass that vLLM captures a graph for by itself."""


def speculative_config(settings: Settings, draft: str) -> dict[str, Any] | None:
    """The engine argument of that name, `None` without speculation.

    `draft` is the draft's folder or the hub's name. It is split like its model: vLLM takes no
    other width.
    """
    asked = speculation(settings.engine)
    if asked is None:
        return None
    if isinstance(asked, Ngram):
        return {
            "method": "ngram",
            "num_speculative_tokens": asked.tokens,
            "prompt_lookup_max": asked.prompt_lookup_max,
            "prompt_lookup_min": asked.prompt_lookup_min,
        }
    found = {
        "method": "draft_model",
        "model": draft,
        "num_speculative_tokens": asked.tokens,
        "draft_tensor_parallel_size": settings.engine.tensor_parallel,
    }
    if isinstance(asked, Stated):
        rates = acceptance_rates(asked.acceptance, asked.tokens)
        found |= {"rejection_sample_method": "synthetic", "synthetic_acceptance_rates": rates}
    return found


def refuse_speculation(settings: Settings, *, on_gpu: bool) -> None:
    """Raises `Infeasible` for speculation that vLLM does not have here, or without a draft."""
    asked = speculation(settings.engine)
    if isinstance(asked, Stated) and not on_gpu:
        raise Infeasible(STATED_ON_CPUS)
    try:
        draft = draft_model(settings)
    except StudyError as error:
        raise Infeasible(str(error)) from error
    if draft is not None and draft.id is None and draft.weights == "auto":
        raise Infeasible(f"engine.speculative: {draft.shape}, the draft, has no weights of its own")


def capture_sizes(spec: EngineSpec, batch_sizes: Iterable[int], budget: int) -> list[int]:
    """Tokens of the passes that CUDA graphs are captured for: vLLM's own, and every batch exactly.

    A pass that is larger than all of them runs without a graph, and takes as long as the processor
    needs to launch it: 14 to 39 ms in place of 3 for an 8B model on an H200, where prefills joined
    the decoding of a batch and only its size had a graph. Between its own sizes vLLM pads, so that
    a batch of 5 would cost as much as one of 8. Without compilation graphs are of decoding alone.

    A verifying pass has several tokens a request, a draft's has one. vLLM takes multiples of the
    former only, and rounds others up to them.
    """
    each = verified_tokens(spec)
    batches = set(batch_sizes)
    sizes = batches | {size * each for size in batches}
    if spec.compile:
        sizes |= set(usual_capture_sizes(max(batches) * each))
    if each > 1:
        sizes = {math.ceil(size / each) * each for size in sizes}
    return sorted(size for size in sizes if size <= budget)


def usual_capture_sizes(largest: int) -> list[int]:
    """What vLLM captures by itself for decoding passes of up to `largest` tokens.

    As in `VllmConfig._set_cudagraph_sizes` of vLLM 0.26 and 0.32.
    """
    most = min(2 * largest, LARGEST_USUAL_CAPTURE)
    usual = [1, 2, 4, *range(8, 256, 8), *range(256, LARGEST_USUAL_CAPTURE + 1, 16)]
    return [size for size in usual if size <= most]


def resolved_speculation(config: Any) -> dict[str, Any] | None:
    """What a `SpeculativeConfig` says; parts that its method does not use are left out."""
    if config is None:
        return None
    found = {name: getattr(config, name) for name in TAKEN}
    return {name: value for name, value in found.items() if value not in (None, 0)}


def asked_speculation(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the engine argument asks for, under the names of `resolved_speculation`."""
    if config is None:
        return None
    return {name: config[name] for name in TAKEN if name in config}
