"""What every setting resolved to: read from the model, the draft and torch, not from the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from sweeper.engines import weights
from sweeper.engines.transformers_settings import notes, uses_graphs
from sweeper.engines.transformers_speculation import draft_of, resolved_assistance
from sweeper.spec import ModelSpec, Settings
from sweeper.speculation import speculation


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model on its device, with its draft where there is one."""

    model: Any
    draft: Any
    device: Any
    devices: Sequence[str]
    quantization: Mapping[str, Any] | None


def resolved(settings: Settings, loaded: Loaded) -> dict[str, Any]:
    """The record's `resolved_engine` (plain data)."""
    spec, asked = settings.engine, settings.model
    config, dtype = loaded.model.config, str(loaded.model.dtype).removeprefix("torch.")
    return {
        "engine": "transformers",
        "engine_version": transformers.__version__,
        "torch_version": torch.__version__,
        "model": _name(asked),
        "model_type": config.model_type,
        "revision": getattr(config, "_commit_hash", None) or asked.revision,
        "weights": weights.weight_facts(loaded.model, asked),
        "weight_bytes": weights.weight_bytes(loaded.model),
        "vocabulary": config.get_text_config().vocab_size,
        "max_positions": weights.positions(config),
        "device": str(loaded.device),
        "devices": list(loaded.devices),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "mode": "offline",
        "batching": settings.workload.batching,
        "dtype": dtype,
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "data_parallel": 1,
        "compile": spec.compile,
        "graphs": uses_graphs(spec, loaded.device.type),
        "quantization": loaded.quantization and spec.quantization,
        "quantized": loaded.quantization,
        "kv_cache": "static" if spec.compile else "dynamic",
        "kv_cache_dtype": dtype,
        "speculative": _speculative(settings, loaded.draft),
        **_draft(settings, loaded.draft),
        "chunked_prefill": False,
        "prefix_caching": False,
        "attention": config._attn_implementation,
        "max_batched_tokens": spec.max_batched_tokens,
        "options": dict(spec.options),
        "notes": notes(spec, loaded.device.type),
    }


def _name(model: ModelSpec) -> str | None:
    return model.shape if model.shape and model.weights != "auto" else model.id


def _speculative(settings: Settings, draft: Any) -> dict[str, Any] | None:
    options = None if draft is None else draft.generation_config
    return resolved_assistance(speculation(settings.engine), options)


def _draft(settings: Settings, draft: Any) -> dict[str, Any]:
    spec = draft_of(settings)
    if draft is None or spec is None:
        return {"draft": None}
    return {
        "draft": _name(spec),
        "draft_weights": weights.weight_facts(draft, spec),
        "draft_weight_bytes": weights.weight_bytes(draft),
        "draft_attention": draft.config._attn_implementation,
    }
