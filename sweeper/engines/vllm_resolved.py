"""What vLLM made of the settings, as plain data, and whether that is what was asked (pure)."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.engines.vllm_settings import GRAPH_MODE, from_shape
from sweeper.engines.vllm_speculation import asked_speculation, resolved_speculation
from sweeper.engines.vllm_unasked import asked_options, asked_runner, runner_version, taken
from sweeper.errors import WrongSetting
from sweeper.spec import EngineSpec, ModelSpec, Settings

EQUAL = (
    "dtype",
    "tensor_parallel",
    "pipeline_parallel",
    "max_model_len",
    "max_num_seqs",
    "max_batched_tokens",
    "prefix_caching",
    "chunked_prefill",
    "kv_cache_dtype",
    "compile",
    "graphs",
    "graph_sizes",
    "attention",
    "speculative",
    "quantization",
    "async_scheduling",
    "runner_version",
    "graph_mode",
    "options_taken",
)
"""What must come out as it was asked, where it was asked."""


def resolved_config(config: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a `VllmConfig` says, under the study's names where it has them.

    Of `engine.options` what it took, where it tells that.
    """
    model, cache, parallel = config.model_config, config.cache_config, config.parallel_config
    scheduler = config.scheduler_config
    return {
        "dtype": str(model.dtype).removeprefix("torch."),
        "vocabulary": model.get_vocab_size(),
        "max_model_len": model.max_model_len,
        "revision": getattr(model.hf_config, "_commit_hash", None) or model.revision,
        "model_type": model.hf_config.model_type,
        "quantization": None if model.quantization is None else str(model.quantization),
        "load_format": str(config.load_config.load_format),
        "tensor_parallel": parallel.tensor_parallel_size,
        "pipeline_parallel": parallel.pipeline_parallel_size,
        "data_parallel": parallel.data_parallel_size,
        "executor": str(parallel.distributed_executor_backend),
        "max_num_seqs": scheduler.max_num_seqs,
        "max_batched_tokens": scheduler.max_num_batched_tokens,
        "chunked_prefill": scheduler.enable_chunked_prefill,
        "async_scheduling": scheduler.async_scheduling,
        "prefix_caching": cache.enable_prefix_caching,
        "kv_cache_dtype": str(cache.cache_dtype),
        "kv_cache_blocks": cache.num_gpu_blocks,
        "kv_cache_block_tokens": cache.block_size,
        "kv_cache_tokens": cache.num_gpu_blocks * cache.block_size,
        "memory_share": cache.gpu_memory_utilization,
        "enforce_eager": bool(model.enforce_eager),
        "speculative": resolved_speculation(config.speculative_config),
        "seed": model.seed,
        "experts": model.get_num_experts(),
        "options_taken": taken(config, options),
    }


def resolved_workers(workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What only the workers know: they choose attention, runner and what graphs it allows."""
    first = workers[0]
    chosen = ("attention", "runner", "compile_mode", "graph_mode", "graph_sizes")
    return {
        **{name: first[name] for name in (*chosen, "kv_cache_storage")},
        "runner_version": runner_version(first["runner"]),
        "compile": first["compile_mode"] != "NONE",
        "graphs": first["graph_mode"] != "NONE",
        "workers": [
            {name: worker[name] for name in ("device", "uuid", "threads")} for worker in workers
        ],
        "threads": sum(worker["threads"] for worker in workers),
        "kv_cache_bytes": sum(worker["kv_cache_bytes"] for worker in workers),
        "weight_bytes": weight_bytes(workers),
    }


def asked(arguments: Mapping[str, Any], spec: EngineSpec | None = None) -> dict[str, Any]:
    """What the engine arguments ask for, under the names of `resolved_config`.

    `spec` is what they were made from, with the variables of a study.
    """
    compiled = arguments["compilation_config"]
    wanted = {
        "dtype": arguments["dtype"],
        "tensor_parallel": arguments["tensor_parallel_size"],
        "pipeline_parallel": arguments["pipeline_parallel_size"],
        "max_model_len": arguments["max_model_len"],
        "max_num_seqs": arguments["max_num_seqs"],
        "max_batched_tokens": arguments["max_num_batched_tokens"],
        "prefix_caching": arguments["enable_prefix_caching"],
        "chunked_prefill": arguments.get("enable_chunked_prefill"),
        "kv_cache_dtype": arguments["kv_cache_dtype"],
        "compile": compiled["mode"] != "NONE",
        "graphs": compiled["cudagraph_mode"] != "NONE",
        "graph_sizes": compiled.get("cudagraph_capture_sizes"),
        "attention": arguments.get("attention_backend"),
        "speculative": asked_speculation(arguments.get("speculative_config")),
        "quantization": arguments.get("quantization"),
        "async_scheduling": arguments.get("async_scheduling"),
    }
    if spec is not None:
        own = asked_options(spec.options)
        wanted |= {
            "runner_version": asked_runner(spec),
            "graph_mode": own.pop(GRAPH_MODE, None),
            "options_taken": own,
        }
    return {name: value for name, value in wanted.items() if value is not None}


def refuse_other_than_asked(wanted: Mapping[str, Any], resolved: Mapping[str, Any]) -> None:
    """Raises `WrongSetting` naming every setting that vLLM took differently."""
    other = [
        f"{name}={wanted[name]} was asked, vLLM took {resolved[name]}"
        for name in EQUAL
        if name in wanted and not _same(wanted[name], resolved[name])
    ]
    if other:
        raise WrongSetting("; ".join(other))


def _same(wanted: Any, taken: Any) -> bool:
    """Of a mapping, as far as it was asked for."""
    if isinstance(wanted, Mapping) and isinstance(taken, Mapping):
        return all(name in taken and _same(each, taken[name]) for name, each in wanted.items())
    return bool(wanted == taken) or str(wanted) == str(taken)


def comparable(wanted: Mapping[str, Any], resolved: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked, without those options that vLLM's configuration does not tell of."""
    told = resolved["options_taken"]
    options = {name: each for name, each in wanted["options_taken"].items() if name in told}
    return {**wanted, "options_taken": options}


def weight_facts(settings: Settings, workers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Where the weights come from and, where they were drawn, from what distribution."""
    kind = settings.model.weights
    drawn = workers[0]["weights"]
    if kind != "dummy" or drawn is None:
        return {"kind": kind}
    return {
        "kind": kind,
        "distribution": "normal",
        "mean": 0.0,
        **{name: drawn[name] for name in ("std", "mean_of_largest", "std_of_largest")},
        **{name: drawn[name] for name in ("norms", "biases")},
        "seed": 0,
    }


def weight_bytes(workers: Sequence[Mapping[str, Any]]) -> int | None:
    """Bytes of the model's weights on all workers, where they could be counted."""
    counted: list[int | None] = [
        worker.get("weight_bytes") or (worker["weights"] or {}).get("weight_bytes")
        for worker in workers
    ]
    known = [each for each in counted if each is not None]
    return sum(known) if len(known) == len(counted) else None


def notes(spec: EngineSpec, devices: Sequence[str], on_gpu: bool) -> dict[str, str]:
    """Settings that mean nothing here, and why."""
    found = {}
    if spec.graphs and not on_gpu:
        found["graphs"] = "off: CUDA graphs need a GPU"
    if devices and not on_gpu:
        found["devices"] = "leased and not used: engine.env hides them"
    return found


def model_name(model: ModelSpec) -> str | None:
    """What the record calls a model."""
    return model.shape if from_shape(model) else model.id
