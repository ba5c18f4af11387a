"""Names of vLLM that sweeper uses, and how to find them in its sources without importing it."""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

USED: dict[str, dict[str, list[str]]] = {
    "v1/engine/llm_engine.py": {
        "LLMEngine.from_engine_args": ["engine_args", "stat_loggers"],
        "LLMEngine.step": [],
        "LLMEngine.add_request": ["request_id", "prompt", "params"],
        "LLMEngine.abort_request": ["request_ids"],
        "LLMEngine.sleep": ["level"],
        "LLMEngine.wake_up": ["tags"],
        "LLMEngine.collective_rpc": ["method"],
        "LLMEngine.__init__": [],
        "LLMEngine": ["engine_core", "vllm_config"],
    },
    "v1/engine/async_llm.py": {
        "AsyncLLM.from_engine_args": ["engine_args", "stat_loggers"],
        "AsyncLLM.__init__": [],
        "AsyncLLM": ["vllm_config"],
        "AsyncLLM.add_request": ["request_id", "prompt", "params"],
        "AsyncLLM.abort": ["request_id"],
        "AsyncLLM.sleep": ["level"],
        "AsyncLLM.wake_up": ["tags"],
        "AsyncLLM.collective_rpc": ["method"],
        "AsyncLLM.shutdown": ["timeout"],
    },
    "v1/engine/output_processor.py": {
        "RequestOutputCollector.get": [],
        "RequestOutputCollector.get_nowait": [],
    },
    "v1/engine/core_client.py": {
        "MPClient.shutdown": [],
        "MPClient": ["ctx"],
        "SyncMPClient": ["output_queue_thread"],
    },
    "v1/engine/core.py": {"EngineCore.sleep": ["level"], "EngineCore.wake_up": ["tags"]},
    "sampling_params.py": {
        "SamplingParams": [
            "temperature",
            "min_tokens",
            "max_tokens",
            "ignore_eos",
            "detokenize",
            "output_kind",
            "logprobs",
            "seed",
            "top_p",
        ],
        "RequestOutputKind": ["DELTA"],
    },
    "outputs.py": {
        "RequestOutput": ["request_id", "outputs", "finished"],
        "CompletionOutput": [
            "token_ids",
            "finish_reason",
            "logprobs",
            "routed_experts",
        ],
    },
    "config/compilation.py": {
        "CompilationConfig": [
            "mode",
            "cudagraph_mode",
            "cudagraph_capture_sizes",
            "static_forward_context",
        ],
        "CompilationMode": ["NONE", "VLLM_COMPILE"],
        "CUDAGraphMode": ["NONE", "FULL_AND_PIECEWISE", "FULL_DECODE_ONLY"],
    },
    "config/model.py": {
        "ModelConfig": [
            "dtype",
            "max_model_len",
            "revision",
            "quantization",
            "enforce_eager",
            "seed",
        ],
        "ModelConfig.get_vocab_size": [],
        "ModelConfig.get_num_experts": [],
    },
    "config/cache.py": {
        "CacheConfig": [
            "block_size",
            "num_gpu_blocks",
            "enable_prefix_caching",
            "cache_dtype",
            "gpu_memory_utilization",
        ]
    },
    "config/scheduler.py": {
        "SchedulerConfig": [
            "max_num_seqs",
            "max_num_batched_tokens",
            "enable_chunked_prefill",
            "async_scheduling",
        ]
    },
    "config/parallel.py": {
        "ParallelConfig": [
            "tensor_parallel_size",
            "pipeline_parallel_size",
            "data_parallel_size",
            "distributed_executor_backend",
            "worker_extension_cls",
        ]
    },
    "config/load.py": {"LoadConfig": ["load_format", "model_loader_extra_config"]},
    "model_executor/model_loader/__init__.py": {"register_model_loader": ["load_format"]},
    "model_executor/model_loader/base_loader.py": {
        "BaseModelLoader.download_model": ["model_config"],
        "BaseModelLoader.load_weights": ["model", "model_config"],
    },
    "model_executor/layers/linear.py": {"ReplicatedLinear": []},
    "distributed/parallel_state.py": {"get_tensor_model_parallel_rank": []},
    "v1/worker/worker_base.py": {"WorkerBase.get_model": [], "WorkerBase": ["vllm_config"]},
    "v1/metrics/loggers.py": {
        "StatLoggerBase.record": [
            "scheduler_stats",
            "iteration_stats",
            "mm_cache_stats",
            "engine_idx",
        ],
        "StatLoggerBase.log_engine_initialized": [],
        "StatLoggerBase.log": [],
        "StatLoggerBase.record_sleep_state": ["is_awake", "level"],
    },
    "config/speculative.py": {
        "SpeculativeConfig": [
            "method",
            "model",
            "num_speculative_tokens",
            "draft_tensor_parallel_size",
            "prompt_lookup_max",
            "prompt_lookup_min",
            "rejection_sample_method",
            "synthetic_acceptance_rates",
        ]
    },
    "config/vllm.py": {
        "VllmConfig": [
            "cache_config",
            "compilation_config",
            "load_config",
            "model_config",
            "observability_config",
            "parallel_config",
            "scheduler_config",
            "speculative_config",
        ],
        "VllmConfig.use_v2_model_runner": [],
    },
    "v1/metrics/stats.py": {
        "SchedulerStats": [
            "kv_cache_usage",
            "spec_decoding_stats",
            "num_running_reqs",
            "prefix_cache_stats",
            "cudagraph_stats",
        ],
        "BaseCacheStats": ["queries", "hits"],
        "IterationStats": ["num_preempted_reqs", "finished_requests"],
    },
    "compilation/cuda_graph.py": {"CUDAGraphStat": ["runtime_mode", "num_paddings"]},
    "v1/spec_decode/metrics.py": {"SpecDecodingStats": ["num_draft_tokens", "num_accepted_tokens"]},
}
"""By file: classes with the attributes that are used, functions with the parameters."""


def found(
    package: Path, wanted: Mapping[str, Mapping[str, Sequence[str]]]
) -> dict[str, dict[str, list[str]]]:
    """Which of the wanted names a vLLM has."""
    return {
        file: {
            name: [each for each in used if each in _names(package / file).get(name, ())]
            for name, used in entries.items()
            if name in _names(package / file)
        }
        for file, entries in wanted.items()
    }


def _names(file: Path) -> dict[str, set[str]]:
    names: dict[str, set[str]] = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names[node.name] = _parameters(node)
        elif isinstance(node, ast.ClassDef):
            names[node.name] = _attributes(node)
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                    names[f"{node.name}.{inner.name}"] = _parameters(inner)
    return names


def _parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    arguments = function.args
    return {each.arg for each in [*arguments.args, *arguments.kwonlyargs]}


def _attributes(node: ast.ClassDef) -> set[str]:
    """Fields of the class body and what methods set on `self`."""
    names = set()
    for child in ast.walk(node):
        targets: list[Any] = []
        if isinstance(child, ast.Assign):
            targets = child.targets
        elif isinstance(child, ast.AnnAssign):
            targets = [child.target]
        for target in targets:
            if isinstance(target, ast.Name):
                names.add(target.id)
            elif isinstance(target, ast.Attribute) and getattr(target.value, "id", "") == "self":
                names.add(target.attr)
    return names
