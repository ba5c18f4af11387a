"""Which settings change what a model says (pure)."""

from collections.abc import Mapping
from typing import Any

from sweeper.spec import Study, Values

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


def unchecked(study: Study, config: Values, chosen: Values) -> tuple[str, ...]:
    """The settings that keep a configuration from being recommended in this study."""
    return () if study.quality == "unchecked_ok" else alters_output(config, chosen)


def _kind(config: Values, key: str) -> Any:
    """The kind of a setting that is a mapping, whether it was kept whole or flattened."""
    whole = config.get(key)
    return whole.get("kind") if isinstance(whole, Mapping) else config.get(f"{key}.kind")
