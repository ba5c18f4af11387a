"""What vLLM decides by itself, and where that is not what it usually does (pure).

A setting that no key of a study says can come out differently on two sides of a comparison: with
a draft model vLLM 0.26 takes its first runner and turns asynchronous scheduling off. So what was
left open is told of every launch, and what departs from vLLM's usual choice is named with the key
that pins the other side to it.
"""

from collections.abc import Mapping
from typing import Any

from sweeper.spec import EngineSpec

RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
"""The variable that chooses vLLM's runner: 0 is its first, 1 its second."""
SECOND = "vllm.v1.worker.gpu.model_runner"
"""The module of the second runner; the first is elsewhere, and so is that of processors."""
USUAL_ON_GPUS: Mapping[str, Any] = {
    "async_scheduling": True,
    "runner_version": 2,
    "chunked_prefill": True,
}
"""What vLLM 0.26 and 0.32 take for a dense decoder on a GPU that nothing else is asked of."""
USUAL_ON_CPUS: Mapping[str, Any] = {
    "async_scheduling": False,
    "runner_version": 1,
    "chunked_prefill": True,
}
PINS: Mapping[str, str] = {
    "async_scheduling": "engine.options.async_scheduling",
    "runner_version": f"engine.env.{RUNNER}",
    "chunked_prefill": "engine.chunked_prefill",
    "attention": "engine.attention",
    "graph_mode": "engine.options.cudagraph_mode",
}
"""Keys of a study that decide what is otherwise left to vLLM."""
OF_CONFIGS = (
    "model_config",
    "cache_config",
    "parallel_config",
    "scheduler_config",
    "load_config",
    "compilation_config",
    "observability_config",
)
"""Parts of a `VllmConfig` in which an engine argument is found under its own name."""


def runner_version(module: str) -> int:
    """1 or 2, by the module that a runner is of."""
    return 2 if module.startswith(SECOND) else 1


def asked_runner(spec: EngineSpec) -> int | None:
    """The runner that `engine.env` asks for; `None` leaves it to vLLM."""
    said = spec.env.get(RUNNER)
    return None if said is None else 1 + (said.lower() in {"1", "true"})


def left_open(spec: EngineSpec, resolved: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `PINS` that the study does not say, as vLLM took them."""
    said = {
        "async_scheduling": spec.options.get("async_scheduling"),
        "runner_version": asked_runner(spec),
        "chunked_prefill": spec.chunked_prefill,
        "attention": spec.attention,
        "graph_mode": spec.options.get("cudagraph_mode"),
    }
    return {name: resolved[name] for name, value in said.items() if value is None}


def changed(left: Mapping[str, Any], graph_mode: str, *, on_gpu: bool) -> dict[str, str]:
    """Of what was left open, what is not as usual, in words; `graph_mode` is what was wanted."""
    usual = {**(USUAL_ON_GPUS if on_gpu else USUAL_ON_CPUS), "graph_mode": graph_mode}
    return {
        name: f"{left[name]} in place of {usual[name]}; {PINS[name]} pins it"
        for name in usual
        if name in left and left[name] != usual[name]
    }


def taken(config: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a `VllmConfig` says of engine arguments, where it says it as one plain value."""
    found = {}
    for name in options:
        for part in OF_CONFIGS:
            value = getattr(getattr(config, part, None), name, None)
            if isinstance(value, bool | int | float | str):
                found[name] = value
                break
    return found


def asked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `engine.options` that are one plain value, and so can be compared.

    `auto` leaves it to vLLM.
    """
    return {
        name: value
        for name, value in options.items()
        if isinstance(value, bool | int | float | str) and value != "auto"
    }
