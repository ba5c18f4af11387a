"""What transformers can be asked for, and what of it was done."""

import math
from collections.abc import Mapping
from typing import Any

from sweeper.decoding import Beam, Decoding
from sweeper.engines.transformers_decoding import decoding_options, strategy
from sweeper.engines.transformers_quantization import quantization_fault
from sweeper.engines.transformers_speculation import assistance, draft_of
from sweeper.errors import Infeasible, WrongSetting
from sweeper.spec import EngineSpec, Settings, Sizes

PAGE_TOKENS = 256
"""Tokens of a page of the cache: transformers' own."""
DECIDED = frozenset(
    {
        "assistant_confidence_threshold",
        "assistant_early_exit",
        "assistant_ensemble_weight",
        "assistant_model",
        "assistant_tokenizer",
        "attention_mask",
        "cache_implementation",
        "compile_config",
        "custom_generate",
        "disable_compile",
        "do_sample",
        "eos_token_id",
        "generation_config",
        "input_ids",
        "inputs",
        "logits_processor",
        "max_cache_len",
        "max_length",
        "max_matching_ngram_size",
        "max_new_tokens",
        "max_time",
        "min_length",
        "min_new_tokens",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "num_beams",
        "num_return_sequences",
        "pad_token_id",
        "prompt_lookup_num_tokens",
        "return_dict_in_generate",
        "speculation_type",
        "stop_strings",
        "streamer",
        "temperature",
        "top_p",
        "use_cache",
        "use_mtp",
    }
)
"""Arguments of `generate` that other keys of a study decide; `engine.options` may not."""


def refuse_unavailable(settings: Settings) -> None:
    """Raises `Infeasible` naming every engine setting that transformers does not offer yet."""
    spec = settings.engine
    asked = {
        "engine.mode=online": spec.mode != "offline",
        "engine.tensor_parallel above 1": spec.tensor_parallel > 1,
        "engine.pipeline_parallel above 1": spec.pipeline_parallel > 1,
        "engine.data_parallel above 1": spec.data_parallel > 1,
        "engine.kv_cache_dtype": spec.kv_cache_dtype not in {"auto", spec.dtype},
        "engine.chunked_prefill": spec.chunked_prefill is True,
        "engine.prefix_caching": spec.prefix_caching,
        "engine.max_batched_tokens with workload.batching static": (
            spec.max_batched_tokens is not None and settings.workload.batching == "static"
        ),
    }
    refused = [f"{name} is not available with transformers yet" for name in asked if asked[name]]
    refused += [
        f"engine.options.{name} is decided by other keys of the study"
        for name in sorted(DECIDED & set(spec.options))
    ]
    if fault := quantization_fault(spec.quantization):
        refused.append(fault)
    for check in (strategy, lambda each: assistance(each.engine), draft_of):
        try:
            check(settings)
        except Infeasible as error:
            refused.append(str(error))
    if refused:
        raise Infeasible("; ".join(dict.fromkeys(refused)))


def refuse_uncompiled(spec: EngineSpec, asked: Decoding) -> None:
    """Raises `Infeasible` for what transformers does not compile."""
    if spec.compile and isinstance(asked, Beam):
        raise Infeasible(
            "workload.decoding beam with engine.compile: transformers compiles no step of a beam "
            "search: set engine.compile: false"
        )


def refuse_static_only(spec: EngineSpec, asked: Decoding) -> None:
    """Raises `Infeasible` for what transformers does in static batches alone."""
    only = {
        "workload.decoding beam": isinstance(asked, Beam),
        "engine.speculative": spec.speculative is not None,
        "engine.compile": spec.compile,
        "engine.options": bool(spec.options),
    }
    refused = ", ".join(name for name in only if only[name])
    if refused:
        raise Infeasible(
            f"{refused} with workload.batching continuous: with transformers of static batches "
            "only (workload.batching: static)"
        )


def uses_graphs(spec: EngineSpec, device_type: str) -> bool:
    """Whether CUDA graphs replay decoding steps: only those that are compiled, only on a GPU."""
    return spec.graphs and spec.compile and device_type == "cuda"


def generation_options(spec: EngineSpec, sizes: Sizes, asked: Decoding) -> dict[str, Any]:
    """Options of `generate` for every batch of a launch that is decoded as `asked`.

    A compiled step needs a cache of fixed size: the largest of the launch, as `generate` would
    otherwise let it grow with the points already measured.
    """
    forced = {**decoding_options(asked), "eos_token_id": None, "pad_token_id": 0}
    if not spec.compile:
        return {**forced, "disable_compile": True}
    return {**forced, "cache_implementation": "static", "max_cache_len": sizes.max_model_len}


def refuse_other_than_asked(spec: EngineSpec, resolved: Mapping[str, Any]) -> None:
    """Raises `WrongSetting` where transformers chose for itself."""
    asked = {"dtype": spec.dtype, "attention": spec.attention}
    other = [
        f"engine.{name}={value} was asked, transformers took {resolved[name]}"
        for name, value in asked.items()
        if value is not None and resolved[name] != value
    ]
    if other:
        raise WrongSetting("; ".join(other))


def notes(spec: EngineSpec, device_type: str) -> dict[str, str]:
    """Settings that mean nothing here, and why."""
    if spec.graphs and not uses_graphs(spec, device_type):
        return {"graphs": "off: CUDA graphs need a GPU and engine.compile"}
    return {}


def blocks(sizes: Sizes) -> int:
    """Pages that the launch's largest batch needs at full length, and one to spare for each."""
    return sizes.max_batch_size * (math.ceil(sizes.max_model_len / PAGE_TOKENS) + 1)


def batching_options(spec: EngineSpec, sizes: Sizes, *, graphs: bool, seed: int) -> dict[str, Any]:
    """Arguments of `ContinuousBatchingConfig`: what it would choose by itself is said where it can.

    It would switch to flash attention where that is installed, share blocks of equal prompts, and
    take nine tenths of the memory for its cache.
    """
    return {
        "page_size": PAGE_TOKENS,
        "num_blocks": blocks(sizes),
        "max_batch_tokens": spec.max_batched_tokens,
        "max_requests_per_batch": sizes.max_batch_size,
        "allow_block_sharing": spec.prefix_caching,
        "use_cuda_graph": graphs,
        "auto_switch_to_flash": False,
        "drop_unsupported_processors": False,
        "seed": seed,
    }
