"""What a study may ask for and no room takes up yet (pure)."""

from collections.abc import Iterator
from typing import Any

from sweeper.decoding import KINDS as DECODING
from sweeper.engines import ENGINES
from sweeper.engines.transformers_quantization import QUANTIZATIONS
from sweeper.meters import METERS
from sweeper.schema import leaves, lookup, show
from sweeper.search import SEARCHES
from sweeper.spec import EngineKind, Settings, Study
from sweeper.study.kinds import kind_of
from sweeper.study.rules import looks
from sweeper.workloads import WORKLOADS

UNTOUCHED = (
    "engine.mode",
    "engine.pipeline_parallel",
    "engine.data_parallel",
    "engine.kv_cache_dtype",
    "engine.prefix_caching",
    "gpu.power_limit_w",
    "gpu.clock_mhz",
)
"""Settings that only their default is available of."""
AVAILABLE: dict[str, tuple[str, ...]] = {
    "engine.kind": tuple(ENGINES),
    "meter": ("auto", *METERS),
    "workload.kind": tuple(WORKLOADS),
}
"""Settings that some values are available of."""
KIND_AVAILABLE: dict[str, tuple[str, ...]] = {"workload.arrival": ("closed",)}
DECODINGS: dict[EngineKind, tuple[str, ...]] = {
    "vllm": ("greedy",),
    "transformers": tuple(DECODING),
    "simulated": tuple(DECODING),
}
"""Kinds of `workload.decoding` that an engine has."""
SPECULATION: dict[EngineKind, tuple[str, ...]] = {
    "vllm": ("draft", "ngram", "stated"),
    "transformers": ("draft", "ngram"),
    # What ngram would find depends on a text, and a simulation has none.
    "simulated": ("draft", "stated"),
}
"""Kinds of `engine.speculative` that an engine has; null goes with every engine."""
BY_ENGINE = {"engine.speculative": SPECULATION, "workload.decoding": DECODINGS}
ATTENTIONS: dict[EngineKind, tuple[str, ...]] = {
    "transformers": ("eager", "sdpa", "flash_attention_2"),
}
QUANTIZED: dict[EngineKind, tuple[str, ...]] = {"transformers": tuple(QUANTIZATIONS)}
VALUES_BY_ENGINE = {"engine.attention": ATTENTIONS, "engine.quantization": QUANTIZED}
"""Settings that an engine has some values of, beside null."""
OF_A_SCHEDULER = ("engine.chunked_prefill", "engine.max_batched_tokens")
"""Settings that mean something only where prompts and decoding share passes."""


def unavailable(study: Study) -> list[str]:
    """What the study asks for that is known and not available yet, a sentence each."""
    keys = {*UNTOUCHED, *AVAILABLE, *KIND_AVAILABLE}
    found = list(_of_study(study))
    for key in (key for key in leaves(Settings) if key in keys):
        found += [said for settings in looks(study, (key,)) for said in _of_key(settings, key)]
    touched = (
        "engine.kind",
        "engine.compile",
        "engine.tensor_parallel",
        "workload.batching",
        *OF_A_SCHEDULER,
    )
    for settings in looks(study, touched):
        found += _of_transformers(settings)
    for key in VALUES_BY_ENGINE:
        for settings in looks(study, ("engine.kind", "engine.simulates", key)):
            found += _of_values(settings, key)
    for key in BY_ENGINE:
        for settings in looks(study, ("engine.kind", key)):
            found += _by_engine(settings, key)
    return list(dict.fromkeys(found))


def _of_study(study: Study) -> Iterator[str]:
    asked: dict[str, Any] = {
        "search.kind": study.search.kind if study.search.kind not in SEARCHES else None,
        "demand": study.demand,
        "quality.command": None if study.quality in (None, "unchecked_ok") else study.quality,
        "expect": study.expect or None,
    }
    yield from (
        f"{key}: not available yet, leave it out" for key in asked if asked[key] is not None
    )


def _of_key(settings: Settings, key: str) -> Iterator[str]:
    value = lookup(settings, key)
    if key in UNTOUCHED:
        default = lookup(Settings(), key)
        if value != default:
            yield f"{key}: {show(value)} is not available yet, only {show(default)}"
    elif key in AVAILABLE and value not in AVAILABLE[key]:
        yield f"{key}: {value} is not available yet, only {', '.join(AVAILABLE[key])}"
    elif key in KIND_AVAILABLE and kind_of(settings, key) not in KIND_AVAILABLE[key]:
        only = ", ".join(KIND_AVAILABLE[key])
        yield f"{key}: {kind_of(settings, key)} is not available yet, only {only}"


def _of_values(settings: Settings, key: str) -> Iterator[str]:
    engine, value = settings.engine.kind, lookup(settings, key)
    # A rehearsal stands for an engine, and takes what that one does.
    stands_for = settings.engine.simulates or engine
    known = VALUES_BY_ENGINE[key].get(stands_for, ())
    if value is not None and value not in known:
        only = ", ".join(("null", *known))
        yield f"{key}: {value} is not available yet with engine.kind {engine}, only {only}"


def _of_transformers(settings: Settings) -> Iterator[str]:
    if settings.engine.kind != "transformers":
        return
    said = "is not available yet with engine.kind transformers, only"
    static = settings.workload.batching == "static"
    if settings.engine.compile and not static:
        yield f"engine.compile: true {said} false where workload.batching is continuous"
    if settings.engine.tensor_parallel > 1:
        yield f"engine.tensor_parallel: {settings.engine.tensor_parallel} {said} 1"
    for key in OF_A_SCHEDULER:
        value, default = lookup(settings, key), lookup(Settings(), key)
        budget = key == "engine.max_batched_tokens" and not static
        if value != default and not budget:
            yield f"{key}: {show(value)} {said} {show(default)}"


def _by_engine(settings: Settings, key: str) -> Iterator[str]:
    engine, kind = settings.engine.kind, kind_of(settings, key)
    kinds = BY_ENGINE[key].get(engine, ())
    if kind is not None and kind not in kinds and engine in ENGINES:
        # No speculation goes with every engine, no decoding with none.
        only = ", ".join((*(("null",) if key == "engine.speculative" else ()), *kinds))
        said = f"is not available yet with engine.kind {engine}, only {only}"
        yield f"{key}: {kind} {said}"
