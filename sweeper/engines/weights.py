"""A model for transformers on one device: from the hub, a local folder, or drawn from a shape."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from sweeper import shapes
from sweeper.engines import host_memory
from sweeper.engines.transformers_quantization import stored_bytes
from sweeper.errors import EngineError, Infeasible
from sweeper.spec import ModelSpec

DUMMY_SEED = 0
"""Dummy weights are the same in every launch."""
FALLBACK_STD = 0.02
"""transformers' own, where a configuration names no `initializer_range`."""
SAMPLE = 1 << 20
"""Weights that the stated spread of dummy weights is checked on."""


def read_config(model: ModelSpec) -> Any:
    """The model's transformers configuration; a shape needs no download.

    Raises:
        Infeasible: real weights of a shape, or weights that only vLLM draws.
        EngineError: the model is not there, gated, or out of reach.
    """
    if model.weights == "dummy_engine":
        raise Infeasible("model.weights=dummy_engine is vLLM's own; with transformers use dummy")
    if model.shape is not None and model.weights != "auto":
        return AutoConfig.for_model(**shapes.architecture(model.shape))
    if model.id is None:
        raise Infeasible(
            "model.weights=auto needs model.id; a shape alone has no weights: use dummy"
        )
    try:
        return AutoConfig.from_pretrained(
            model.id, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise EngineError(_out_of_reach(model, error)) from error


def build(model: ModelSpec, config: Any, dtype: str, attention: str | None, device: Any) -> Any:
    """The model in evaluation mode on `device`, in `dtype`.

    It is laid out without memory first, so that what does not fit is refused before any of it is
    allocated, and dummy weights are drawn where they stay.

    Raises:
        Infeasible: the weights do not fit; the message says how many bytes they are.
        EngineError: the weights cannot be had.
    """
    kwargs = {
        "dtype": getattr(torch, dtype),
        "trust_remote_code": model.trust_remote_code,
        **({} if attention is None else {"attn_implementation": attention}),
    }
    try:
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(config, **kwargs)
    except (ImportError, ValueError) as error:
        raise Infeasible(f"transformers refuses the combination: {error}") from error
    needed, free = weight_bytes(built), free_bytes(device)
    if needed > free:
        raise Infeasible(f"out of memory: weights of {needed} bytes, {free} free on {device}")
    if model.weights == "auto":
        built = _pretrained(model, kwargs).to(device)
    else:
        _draw(built, device, zeros=model.weights == "dummy_zeros")
    return built.eval().requires_grad_(False)


def weight_bytes(model: Any) -> int:
    """Bytes of a model's parameters, tied ones once, quantized ones as they are kept."""
    return sum(stored_bytes(weight) for weight in model.parameters())


def weight_facts(model: Any, spec: ModelSpec) -> dict[str, Any]:
    """Where the weights come from and, where they were drawn, from what distribution."""
    if spec.weights == "auto":
        return {"kind": "auto"}
    if spec.weights == "dummy_zeros":
        return {"kind": "dummy_zeros"}
    largest = max(model.parameters(), key=torch.numel)
    sample = largest.flatten()[:SAMPLE].float()
    return {
        "kind": "dummy",
        "distribution": "normal",
        "mean": 0.0,
        "std": getattr(model.config, "initializer_range", None) or FALLBACK_STD,
        "std_of_largest": round(sample.std().item(), 6),
        "norms": 1.0,
        "biases": 0.0,
        "seed": DUMMY_SEED,
    }


def positions(config: Any) -> int | None:
    """How long prompt and output together may be, where the configuration says."""
    found: int | None = getattr(config.get_text_config(), "max_position_embeddings", None)
    return found


def cache_bytes_per_token(model: Any) -> int:
    """Bytes that one token of one request keeps in the KV cache; 0 where there is none to keep."""
    text = model.config.get_text_config()
    queries = int(getattr(text, "num_attention_heads", None) or 0)
    if not queries:
        return 0
    keys = int(getattr(text, "num_key_value_heads", None) or queries)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // queries)
    return int(2 * text.num_hidden_layers * keys * width * model.dtype.itemsize)


def free_bytes(device: Any) -> int:
    """Memory that can be had on a device: for the CPU, of the host or of its control group."""
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free
    return host_memory.free_bytes()


def _pretrained(model: ModelSpec, kwargs: Mapping[str, Any]) -> Any:
    try:
        return AutoModelForCausalLM.from_pretrained(model.id, revision=model.revision, **kwargs)
    except (OSError, ValueError) as error:
        raise EngineError(_out_of_reach(model, error)) from error


def _draw(model: Any, device: Any, *, zeros: bool) -> None:
    """Give a model without memory its weights, by its own initialiser, and its buffers."""
    _allocate(model, device)
    on_gpu = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=on_gpu):
        torch.manual_seed(DUMMY_SEED)
        model.initialize_weights()
    if zeros:
        with torch.no_grad():
            for weight in model.parameters():
                weight.zero_()


def _allocate(model: Any, device: Any) -> None:
    """`to_empty`, but tied weights stay one tensor and are never there twice."""
    moved = {
        weight: torch.nn.Parameter(torch.empty_like(weight, device=device))
        for weight in model.parameters()
    }
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            setattr(module, name, moved[weight])
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, torch.empty_like(buffer, device=device))


def _out_of_reach(model: ModelSpec, error: Exception) -> str:
    return (
        f"model {model.id} (revision {model.revision or 'default'}) cannot be had: "
        f"{str(error).strip().splitlines()[0]}\n"
        f"If it is gated, accept its licence on https://huggingface.co/{model.id} and set "
        "HF_TOKEN; without network, name a local folder as model.id; to measure without its "
        "weights, set model.weights=dummy (with model.shape nothing is downloaded)"
    )
