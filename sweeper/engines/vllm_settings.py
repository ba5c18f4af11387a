"""What vLLM is asked for: the settings of a study as its engine arguments (pure).

Names are those of `vllm.EngineArgs`, the same in 0.26 and 0.32. Whatever vLLM would choose by GPU
or by entry point (batch limits, compilation, graphs, the executor) is said explicitly, so that an
offline engine and `vllm serve` do the same.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sweeper import shapes
from sweeper.engines.vllm_sampling import refuse_decoding
from sweeper.engines.vllm_speculation import capture_sizes, speculative_config
from sweeper.errors import Infeasible, StudyError
from sweeper.roofline import batched_tokens
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes
from sweeper.speculation import draft_shape, verified_tokens

WORKER = "sweeper.engines.vllm_worker.Extension"
"""What vLLM's workers are extended by; importing it registers `DRAWN`."""
DRAWN = "sweeper_drawn"
"""The load format of weights that are drawn as stated, instead of vLLM's uniform dummies."""
CPU_BLOCK_TOKENS = 128
"""Tokens of a block of the KV cache on processors (vLLM 0.32)."""
UNKNOWN_CPU_CACHE_BYTES = 4 * 2**30
"""KV cache on a processor, of a model whose shape is not known before it is loaded."""
DECIDED = frozenset(
    {
        "compilation_config",
        "cudagraph_capture_sizes",
        "cudagraph_metrics",
        "data_parallel_size",
        "disable_log_stats",
        "distributed_executor_backend",
        "dtype",
        "enable_chunked_prefill",
        "enable_prefix_caching",
        "enforce_eager",
        "kv_cache_dtype",
        "load_format",
        "max_cudagraph_capture_size",
        "max_model_len",
        "max_logprobs",
        "max_num_batched_tokens",
        "max_num_seqs",
        "model",
        "model_loader_extra_config",
        "pipeline_parallel_size",
        "quantization",
        "revision",
        "skip_tokenizer_init",
        "speculative_config",
        "attention_backend",
        "tensor_parallel_size",
        "tokenizer",
        "trust_remote_code",
        "worker_extension_cls",
    }
)
"""Engine arguments that other keys of a study decide; `engine.options` may not."""


GRAPH_MODE = "cudagraph_mode"
"""An option of ours: what of a step is in a CUDA graph, as `vllm.config.CUDAGraphMode` names it."""
ARCHITECTURES: Mapping[str, str] = {
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "mixtral": "MixtralForCausalLM",
    "olmo": "OlmoForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
    "olmoe": "OlmoeForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
"""vLLM's classes of the model types that shapes are of."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What an engine has to run on: GPUs, or the processors `cpus` (numbers of cores)."""

    gpu: bool
    cpus: tuple[int, ...] = ()


def refuse_unavailable(settings: Settings, *, on_gpu: bool) -> None:
    """Raises `Infeasible` naming every setting that vLLM does not have here, and why."""
    spec = settings.engine
    refused = [COPIES] if spec.data_parallel > 1 else []
    if spec.pipeline_parallel > 1 and not (on_gpu or spec.compile):
        refused.append(STAGES_ON_CPUS)
    if spec.quantization is not None and settings.model.weights in {"dummy", "dummy_zeros"}:
        refused.append(DRAWN_QUANTIZED)
    refused += [
        f"engine.options.{name} is decided by other keys of the study"
        for name in sorted(DECIDED & set(spec.options))
    ]
    if settings.model.weights == "auto" and settings.model.id is None:
        refused.append("model.weights=auto needs model.id; a shape alone has no weights: use dummy")
    if refused:
        raise Infeasible("; ".join(refused))
    refuse_decoding(settings)


def from_shape(model: ModelSpec) -> bool:
    """Whether the model is built from a shape of this package, and nothing is read of a hub."""
    return model.shape is not None and model.weights != "auto"


def arguments(
    settings: Settings, sizes: Sizes, place: Place, model: str, draft: str = ""
) -> dict[str, Any]:
    """The engine arguments; `model` and `draft` are folders or names of the hub.

    `compilation_config` is a mapping here and becomes vLLM's own type where it is used, as a
    mapping would lose keys that vLLM does not know.
    """
    spec = settings.engine
    several = spec.tensor_parallel * spec.pipeline_parallel > 1
    chosen: dict[str, Any] = {
        "model": model,
        "dtype": spec.dtype,
        "max_model_len": sizes.max_model_len,
        "max_num_seqs": sizes.sequences,
        "max_num_batched_tokens": batched_tokens(spec, sizes),
        "tensor_parallel_size": spec.tensor_parallel,
        "pipeline_parallel_size": spec.pipeline_parallel,
        # Left alone, vLLM would spread its workers over Ray wherever it finds itself in a trial.
        "distributed_executor_backend": "mp" if several or not place.gpu else "uni",
        "compilation_config": compilation(spec, sizes, place),
        "enable_prefix_caching": spec.prefix_caching,
        "kv_cache_dtype": spec.kv_cache_dtype,
        **_weights(settings.model),
        **_given(
            revision=None if from_shape(settings.model) else settings.model.revision,
            enable_chunked_prefill=spec.chunked_prefill,
            attention_backend=spec.attention,
            quantization=spec.quantization,
            # A beam has twice as many candidates as there are beams; vLLM gives 20 by itself.
            max_logprobs=2 * sizes.beams if sizes.beams > 1 else None,
            speculative_config=speculative_config(settings, draft),
            trust_remote_code=settings.model.trust_remote_code or None,
            kv_cache_memory_bytes=None if place.gpu else cpu_cache_bytes(settings, sizes),
        ),
    }
    return {**chosen, **{name: spec.options[name] for name in spec.options if name != GRAPH_MODE}}


COPIES = (
    "engine.data_parallel: vLLM's copies step each at moments of its own, and an engine's events "
    "tell of steps that all running requests take together; measure one copy: several take as many "
    "times its energy and its traffic"
)
STAGES_ON_CPUS = (
    "engine.pipeline_parallel: vLLM's build for processors fails at the first step of stages that "
    "are not compiled (0.32): leave engine.compile on"
)
DRAWN_QUANTIZED = (
    "engine.quantization: drawn weights (model.weights: dummy, dummy_zeros) are not quantized; "
    "vLLM's own dummies (dummy_engine) and weights of a model are"
)
DRIVEN: Mapping[str, Any] = {
    "skip_tokenizer_init": True,
    "disable_log_stats": False,
    "cudagraph_metrics": True,
    "worker_extension_cls": WORKER,
}
"""Further arguments of an engine that is driven from this process.

Statistics are on as in `vllm serve`; preemptions are told of no other way, nor is whether a step
ran in a graph, which costs an object of four fields a step.
"""


def compilation(spec: EngineSpec, sizes: Sizes, place: Place) -> dict[str, Any]:
    """Compilation and CUDA graphs, each for itself.

    `enforce_eager` would turn both off, and the warm-up of kernels as well. Without compilation
    graphs are of whole decoding steps, as pieces of a step need a compiled model.
    """
    chosen: dict[str, Any] = {"mode": "VLLM_COMPILE" if spec.compile else "NONE"}
    if not spec.graphs or not place.gpu:
        return {**chosen, "cudagraph_mode": "NONE"}
    graphs = spec.options.get(GRAPH_MODE) or (
        "FULL_AND_PIECEWISE" if spec.compile else "FULL_DECODE_ONLY"
    )
    budget = batched_tokens(spec, sizes)
    together = {*sizes.batch_sizes, *(size * sizes.beams for size in sizes.batch_sizes)}
    captured = capture_sizes(spec, together, budget)
    return {**chosen, "cudagraph_mode": graphs, "cudagraph_capture_sizes": captured}


def thread_binding(cpus: Sequence[int], stated: str, ranks: int) -> str:
    """Which worker computes on which processors, as `VLLM_CPU_OMP_THREADS_BIND` says it.

    Wherever there are more processors than workers, one is left free.

    Args:
        cpus: the processors that this process may use.
        stated: the value of `OMP_NUM_THREADS`, which bounds them; may be empty.
        ranks: how many workers there are.

    Raises:
        Infeasible: there are more workers than processors.
    """
    if ranks > len(cpus):
        raise Infeasible(f"{ranks} workers on {len(cpus)} processors: each needs one")
    most = stated.partition(",")[0]
    # One is left to the processes that schedule and listen: with arithmetic on both of two
    # processors vLLM gave a third of the tokens that it gave on one (benchmarks/vllm_binding.py).
    free = max(ranks, len(cpus) - 1)
    each = max(ranks, min(free, int(most)) if most.isdecimal() else free) // ranks
    ordered = sorted(cpus)
    return "|".join(
        ",".join(str(cpu) for cpu in ordered[rank * each : (rank + 1) * each])
        for rank in range(ranks)
    )


def environment(
    settings: Settings, place: Place, stated_threads: str, local: bool
) -> dict[str, str]:
    """Environment variables that vLLM and its workers start with.

    `local` says that nothing is to be downloaded. What `engine.env` says goes before.
    """
    spec = settings.engine
    chosen = {"VLLM_NO_USAGE_STATS": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    if local:
        chosen["HF_HUB_OFFLINE"] = "1"
    if not place.gpu:
        ranks = spec.tensor_parallel * spec.pipeline_parallel
        chosen["VLLM_CPU_OMP_THREADS_BIND"] = thread_binding(place.cpus, stated_threads, ranks)
    return {**chosen, **spec.env}


def cpu_cache_bytes(settings: Settings, sizes: Sizes) -> int:
    """KV cache of each worker on a processor: the largest batch of the longest requests.

    vLLM would take most of the host's memory. Two more blocks a request and 64 altogether are for
    what the scheduler keeps aside. A draft's tokens are in the same blocks as the model's, those
    that it proposes beyond the end as well.
    """
    held = _held(settings)
    if held is None:
        return UNKNOWN_CPU_CACHE_BYTES
    spec = settings.engine
    length = sizes.max_model_len + verified_tokens(spec) - 1
    blocks = sizes.sequences * (math.ceil(length / CPU_BLOCK_TOKENS) + 2) + 64
    per_token = sum(
        shape.kv_bytes_per_token(spec.dtype)
        * (math.ceil(shape.kv_heads / spec.tensor_parallel) / shape.kv_heads)
        for shape in held
    )
    return math.ceil(blocks * CPU_BLOCK_TOKENS * per_token)


def cpu_bytes(settings: Settings, sizes: Sizes) -> int | None:
    """Weights and KV caches of all workers on a processor; `None` where a shape is not known."""
    held = _held(settings)
    if held is None:
        return None
    spec = settings.engine
    weights = sum(shape.parameters for shape in held) * shapes.DTYPE_BYTES[spec.dtype]
    return weights + cpu_cache_bytes(settings, sizes) * spec.tensor_parallel


def _held(settings: Settings) -> list[shapes.Shape] | None:
    """Of the model and its draft; `None` where one is not known."""
    try:
        draft = draft_shape(settings)
        return [shapes.shape_of_model(settings.model), *([draft] if draft else [])]
    except StudyError:
        return None


def _weights(model: ModelSpec) -> Mapping[str, Any]:
    if model.weights in {"dummy", "dummy_zeros"}:
        zeros = model.weights == "dummy_zeros"
        return {"load_format": DRAWN, "model_loader_extra_config": {"zeros": zeros}}
    return {"load_format": "dummy" if model.weights == "dummy_engine" else "auto"}


def _given(**arguments: Any) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if value is not None}
