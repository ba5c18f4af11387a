"""What vLLM's scheduler says of a step, as its `SchedulerStats` has it."""

from types import SimpleNamespace
from typing import Any


def scheduler(**said: Any) -> Any:
    """Of a step of which nothing is said but this."""
    nothing = {
        "num_running_reqs": 0,
        "kv_cache_usage": 0.5,
        "prefix_cache_stats": None,
        "spec_decoding_stats": None,
        "cudagraph_stats": None,
    }
    return SimpleNamespace(**{**nothing, **said})
