"""Which settings change what a model says, and what a score of it allows (pure)."""

from collections.abc import Mapping
from typing import Any

from sweeper.answers.results import Result
from sweeper.results.metrics import QUALITY_SCORE
from sweeper.spec import QualitySpec, Study, Values

LOSSLESS_SPECULATION = frozenset({"draft", "ngram"})
"""Drafts that the model verifies with rejection sampling, which keeps its distribution
(Leviathan et al., arXiv 2211.17192); a `stated` acceptance accepts whatever comes."""


def alters_output(config: Values, chosen: Values) -> tuple[str, ...]:
    """The settings of a configuration for which its output may be worse than its model's.

    Quantized weights, a KV cache of another precision and speculation that is not verified always
    do. Decoding does where the study moves it (`chosen`) and it is not greedy: fixed for all, it
    is part of what was asked for.
    """
    found = []
    if config.get("engine.quantization") is not None:
        found.append("engine.quantization")
    if config.get("engine.kv_cache_dtype", "auto") not in {"auto", config.get("engine.dtype")}:
        found.append("engine.kv_cache_dtype")
    speculation = _kind(config, "engine.speculative")
    if speculation is not None and speculation not in LOSSLESS_SPECULATION:
        found.append("engine.speculative")
    moved = any(key.startswith("workload.decoding") for key in chosen)
    if moved and _kind(config, "workload.decoding") != "greedy":
        found.append("workload.decoding")
    return tuple(found)


def quality_fault(study: Study, result: Result) -> str | None:
    """Why quality keeps a result from being recommended in this study; `None` if it does not.

    With a scorer every configuration needs its score; without one, those whose output may be worse
    than the model's are not recommended, unless the study allows them.
    """
    if study.quality == "unchecked_ok":
        return None
    if isinstance(study.quality, QualitySpec):
        score = result.value(QUALITY_SCORE)
        if score is None:
            return "quality: its scorer gave no score"
        least = study.quality.min
        return f"quality: a score of {score:g}, below {least:g}" if score < least else None
    keys = ", ".join(alters_output(result.config, result.chosen))
    return f"{keys} may change what the model says (quality: unchecked)" if keys else None


def quality_mark(study: Study, result: Result) -> str:
    """The same in a word or two, for a cell; empty where nothing is to be said."""
    if quality_fault(study, result) is None:
        return ""
    score = result.value(QUALITY_SCORE)
    if not isinstance(study.quality, QualitySpec):
        return "quality: unchecked"
    return "quality: no score" if score is None else f"quality: {score:g}"


def is_unchecked(result: Result) -> bool:
    """Whether its output may be worse than its model's, and no score tells."""
    altered = alters_output(result.config, result.chosen)
    return bool(altered) and result.value(QUALITY_SCORE) is None


def _kind(config: Values, key: str) -> Any:
    """The kind of a setting that is a mapping, whether it was kept whole or flattened."""
    whole = config.get(key)
    return whole.get("kind") if isinstance(whole, Mapping) else config.get(f"{key}.kind")
