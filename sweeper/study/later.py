"""What a study may ask for and no room takes up yet (pure)."""

from collections.abc import Iterator
from typing import Any

from sweeper.engines import ENGINES
from sweeper.meters import METERS
from sweeper.schema import leaves, lookup, show
from sweeper.search import SEARCHES
from sweeper.spec import Settings, Study
from sweeper.study.kinds import kind_of
from sweeper.study.rules import looks
from sweeper.workloads import WORKLOADS

UNTOUCHED = (
    "engine.mode",
    "engine.pipeline_parallel",
    "engine.data_parallel",
    "engine.quantization",
    "engine.kv_cache_dtype",
    "engine.chunked_prefill",
    "engine.prefix_caching",
    "engine.attention",
    "engine.max_batched_tokens",
    "gpu.power_limit_w",
    "gpu.clock_mhz",
    "measure.phases",
    "measure.finalists.blocks",
)
"""Settings that only their default is available of."""
AVAILABLE: dict[str, tuple[str, ...]] = {
    "engine.kind": tuple(ENGINES),
    "meter": ("auto", *METERS),
    "workload.kind": tuple(WORKLOADS),
}
"""Settings that some values are available of."""
KIND_AVAILABLE: dict[str, tuple[str | None, ...]] = {
    "workload.arrival": ("closed",),
    "workload.decoding": ("greedy",),
    "engine.speculative": (None,),
}


def unavailable(study: Study) -> list[str]:
    """What the study asks for that is known and not available yet, a sentence each."""
    keys = {*UNTOUCHED, *AVAILABLE, *KIND_AVAILABLE}
    found = list(_of_study(study))
    for key in (key for key in leaves(Settings) if key in keys):
        found += [said for settings in looks(study, (key,)) for said in _of_key(settings, key)]
    touched = ("engine.kind", "engine.tensor_parallel", "workload.batching")
    for settings in looks(study, touched):
        found += _of_transformers(settings)
    return list(dict.fromkeys(found))


def _of_study(study: Study) -> Iterator[str]:
    asked: dict[str, Any] = {
        "search.kind": study.search.kind if study.search.kind not in SEARCHES else None,
        "demand": study.demand,
        "quality.command": None if study.quality in (None, "unchecked_ok") else study.quality,
        "expect": study.expect or None,
        "resources.exclusive_node": study.resources.exclusive_node or None,
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
        only = ", ".join(str(each or "null") for each in KIND_AVAILABLE[key])
        yield f"{key}: {kind_of(settings, key)} is not available yet, only {only}"


def _of_transformers(settings: Settings) -> Iterator[str]:
    if settings.engine.kind != "transformers":
        return
    said = "is not available yet with engine.kind transformers, only"
    if settings.workload.batching != "static":
        yield f"workload.batching: {settings.workload.batching} {said} static"
    if settings.engine.tensor_parallel > 1:
        yield f"engine.tensor_parallel: {settings.engine.tensor_parallel} {said} 1"
