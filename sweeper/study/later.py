"""What a study may ask for and no room takes up yet (pure)."""

from collections.abc import Iterator
from typing import Any

from sweeper.decoding import DECODINGS
from sweeper.engines import ENGINES
from sweeper.engines.transformers_quantization import QUANTIZATIONS
from sweeper.meters import METERS
from sweeper.schema import leaves, lookup, show
from sweeper.search import SEARCHES
from sweeper.spec import EngineKind, Settings, Study
from sweeper.study.kinds import kind_of
from sweeper.study.rules import looks
from sweeper.workloads import WORKLOADS

TAKEN: dict[str, tuple[EngineKind, ...]] = {
    "engine.mode": ("vllm",),
    "engine.pipeline_parallel": ("vllm",),
    "engine.data_parallel": (),
    "engine.kv_cache_dtype": ("vllm",),
    "engine.prefix_caching": ("vllm",),
}
"""Which engines take more of a setting than its default; what it simulates in a simulation."""
AVAILABLE: dict[str, tuple[str, ...]] = {
    "engine.kind": tuple(ENGINES),
    "meter": ("auto", *METERS),
    "workload.kind": tuple(WORKLOADS),
}
"""Settings that some values are available of."""
KIND_AVAILABLE: dict[str, tuple[str, ...]] = {"workload.arrival": ("closed",)}
DECODING: dict[EngineKind, tuple[str, ...]] = {
    "vllm": tuple(DECODINGS),
    "transformers": tuple(DECODINGS),
    "endpoint": ("greedy",),
    "simulated": tuple(DECODINGS),
}
"""Kinds of `workload.decoding` that an engine has."""
SPECULATION: dict[EngineKind, tuple[str, ...]] = {
    "vllm": ("draft", "ngram", "stated"),
    "transformers": ("draft", "ngram"),
    # What ngram would find depends on a text, and a simulation has none.
    "simulated": ("draft", "stated"),
}
"""Kinds of `engine.speculative` that an engine has; null goes with every engine."""
BY_ENGINE = {"engine.speculative": SPECULATION, "workload.decoding": DECODING}
ENGINE = ("engine.kind", "engine.simulates")
GPU_KEYS = ("gpu.power_limit_w", "gpu.clock_mhz")
VALUES_BY_ENGINE: dict[str, dict[EngineKind, tuple[str, ...]]] = {
    "engine.attention": {"transformers": ("eager", "sdpa", "flash_attention_2")},
    "engine.quantization": {"transformers": tuple(QUANTIZATIONS)},
}
"""Settings that an engine has some values of, beside null."""
ANY_VALUE: tuple[EngineKind, ...] = ("vllm",)
"""Engines whose values of these are theirs to know."""
OF_A_SCHEDULER = ("engine.chunked_prefill", "engine.max_batched_tokens")
"""Settings that mean something only where prompts and decoding share passes."""


def unavailable(study: Study) -> list[str]:
    """What the study asks for that is known and not available yet, a sentence each."""
    keys = {*TAKEN, *AVAILABLE, *KIND_AVAILABLE}
    found = list(_of_study(study))
    for key in (key for key in leaves(Settings) if key in keys):
        beside = ENGINE if key in TAKEN else ()
        looked = looks(study, (key, *beside))
        found += [said for settings in looked for said in _of_key(settings, key)]
    touched = (
        "engine.kind",
        "engine.compile",
        "engine.tensor_parallel",
        "workload.batching",
        "workload.decoding",
        *OF_A_SCHEDULER,
    )
    for settings in looks(study, touched):
        found += _of_transformers(settings)
    for key in VALUES_BY_ENGINE:
        for settings in looks(study, (*ENGINE, key)):
            found += _of_values(settings, key)
    for key in BY_ENGINE:
        for settings in looks(study, (*ENGINE, key)):
            found += _by_engine(settings, key)
    for settings in looks(study, (*GPU_KEYS, "engine.kind", "meter")):
        found += _of_gpus(settings)
    return list(dict.fromkeys(found))


def _of_study(study: Study) -> Iterator[str]:
    asked: dict[str, Any] = {
        "search.kind": study.search.kind if study.search.kind not in SEARCHES else None,
        "demand": study.demand,
    }
    yield from (
        f"{key}: not available yet, leave it out" for key in asked if asked[key] is not None
    )


def _of_key(settings: Settings, key: str) -> Iterator[str]:
    value = lookup(settings, key)
    if key in TAKEN:
        default, engine = lookup(Settings(), key), _modelled(settings)
        if value != default and engine not in TAKEN[key]:
            beside = f" with engine.kind {engine}" if TAKEN[key] else ""
            yield f"{key}: {show(value)} is not available yet{beside}, only {show(default)}"
    elif key in AVAILABLE and value not in AVAILABLE[key]:
        yield f"{key}: {value} is not available yet, only {', '.join(AVAILABLE[key])}"
    elif key in KIND_AVAILABLE and kind_of(settings, key) not in KIND_AVAILABLE[key]:
        only = ", ".join(KIND_AVAILABLE[key])
        yield f"{key}: {kind_of(settings, key)} is not available yet, only {only}"


def _of_values(settings: Settings, key: str) -> Iterator[str]:
    engine, value = settings.engine.kind, lookup(settings, key)
    # A rehearsal stands for an engine, and takes what that one does.
    known = VALUES_BY_ENGINE[key].get(_modelled(settings), ())
    if value is not None and value not in known and _modelled(settings) not in ANY_VALUE:
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
    if settings.workload.decoding.get("seed_requests"):
        yield f"workload.decoding.seed_requests: true {said} false: it seeds whole batches"
    for key in OF_A_SCHEDULER:
        value, default = lookup(settings, key), lookup(Settings(), key)
        budget = key == "engine.max_batched_tokens" and not static
        if value != default and not budget:
            yield f"{key}: {show(value)} {said} {show(default)}"


def _modelled(settings: Settings) -> EngineKind:
    return settings.engine.simulates or settings.engine.kind


def _by_engine(settings: Settings, key: str) -> Iterator[str]:
    engine = _modelled(settings) if key == "workload.decoding" else settings.engine.kind
    kind, kinds = kind_of(settings, key), BY_ENGINE[key].get(engine, ())
    if kind is not None and kind not in kinds and engine in ENGINES:
        # No speculation goes with every engine, no decoding with none.
        only = ", ".join((*(("null",) if key == "engine.speculative" else ()), *kinds))
        said = f"is not available yet with engine.kind {engine}, only {only}"
        yield f"{key}: {kind} {said}"


def _of_gpus(settings: Settings) -> Iterator[str]:
    """NVML sets GPUs, and simulated ones follow a power limit."""
    asked = [key for key in GPU_KEYS if lookup(settings, key) is not None]
    simulated = settings.engine.kind == "simulated" and settings.meter != "nvml"
    for key in asked:
        if settings.meter not in ("auto", "nvml", "simulated"):
            said = f"is not available yet with meter {settings.meter}, only auto, nvml"
            yield f"{key}: {show(lookup(settings, key))} {said}"
        elif simulated and key == "gpu.clock_mhz":
            yield f"{key}: is not available yet with engine.kind simulated: leave it out"
