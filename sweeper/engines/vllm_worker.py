"""What runs inside vLLM's workers: weights drawn as stated, and what a worker knows of itself.

vLLM imports this module in every worker before a model is loaded, as it is named as their
extension; so the load format is known there. The extension's methods are called by name.
"""

import resource
import zlib
from typing import Any

import torch
from vllm.model_executor.layers.linear import ReplicatedLinear
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.base_loader import BaseModelLoader

from sweeper.engines.vllm_settings import DRAWN
from sweeper.engines.weights import DUMMY_SEED, FALLBACK_STD, SAMPLE


@register_model_loader(DRAWN)
class DrawnWeights(BaseModelLoader):  # type: ignore[misc]
    """Loads no file: weights are normal, norms one, biases zero, or all of them zero."""

    def download_model(self, model_config: Any) -> None:
        """There is nothing to download."""

    def load_weights(self, model: Any, model_config: Any) -> None:
        """Draw before vLLM packs weights for its kernels."""
        from vllm.distributed import get_tensor_model_parallel_rank

        zeros = bool(self.load_config.model_loader_extra_config["zeros"])
        std = getattr(model_config.hf_text_config, "initializer_range", None) or FALLBACK_STD
        model.drawn_weights = draw(
            model, std=std, zeros=zeros, rank=get_tensor_model_parallel_rank()
        )


@torch.no_grad()  # type: ignore[untyped-decorator]
def draw(model: Any, *, std: float, zeros: bool, rank: int) -> dict[str, Any]:
    """Give a model its weights, and say what they are, read back from them.

    Every parameter is drawn from a seed of its name, and of the rank where ranks hold different
    parts of it; a tied one is one parameter and drawn once.
    """
    replicated = {
        id(weight)
        for module in model.modules()
        if isinstance(module, ReplicatedLinear)
        for weight in module.parameters(recurse=False)
    }
    for name, weight in model.named_parameters():
        if not weight.is_floating_point():
            raise ValueError(f"{name} is {weight.dtype}: only unquantized weights can be drawn")
        if zeros or _is_bias(name):
            weight.zero_()
        elif weight.ndim == 1:
            weight.fill_(1.0)
        else:
            part = 0 if id(weight) in replicated else rank
            generator = torch.Generator(device=weight.device)
            generator.manual_seed(zlib.crc32(f"{DUMMY_SEED}/{part}/{name}".encode()))
            weight.normal_(0.0, std, generator=generator)
    return {"zeros": zeros, "std": std, **_facts(model)}


class Extension:
    """Methods that vLLM's workers get; `self` is the worker."""

    def sweeper_facts(self) -> dict[str, Any]:
        """Its device and weights, and what is chosen only here: attention, runner, graphs."""
        worker: Any = self
        model = worker.get_model()
        compiled = worker.vllm_config.compilation_config
        backends = {
            layer.attn_backend.get_name()
            for layer in compiled.static_forward_context.values()
            if hasattr(layer, "attn_backend")
        }
        on_gpu = worker.device.type == "cuda"
        facts: dict[str, Any] = {
            "device": str(worker.device),
            "uuid": None,
            "threads": torch.get_num_threads(),
            "attention": ", ".join(sorted(backends)) or None,
            "runner": type(worker.model_runner).__module__,
            "compile_mode": compiled.mode.name,
            "graph_mode": compiled.cudagraph_mode.name,
            "graph_sizes": sorted(compiled.cudagraph_capture_sizes or ()),
            "weights": getattr(model, "drawn_weights", None),
            "kv_cache_storage": _storage(getattr(worker.model_runner, "kv_caches", ())),
            "kv_cache_bytes": _bytes(getattr(worker.model_runner, "kv_caches", ())),
        }
        if on_gpu:
            uuid = torch.cuda.get_device_properties(worker.device).uuid
            facts["uuid"] = f"GPU-{uuid}"
            facts["weight_bytes"] = _bytes(model.parameters())
        return facts

    def sweeper_peak_bytes(self) -> int:
        """Most memory it has held: of its GPU, or of the process where there is none."""
        worker: Any = self
        if worker.device.type == "cuda":
            return int(torch.cuda.max_memory_reserved(worker.device))
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _facts(model: Any) -> dict[str, Any]:
    named = list(model.named_parameters())
    matrices = [weight for name, weight in named if weight.ndim > 1 and not _is_bias(name)]
    norms = [weight for name, weight in named if weight.ndim == 1 and not _is_bias(name)]
    biases = [weight for name, weight in named if _is_bias(name)]
    sample = max(matrices, key=torch.numel).flatten()[:SAMPLE].float()
    return {
        "weight_bytes": _bytes(weight for _, weight in named),
        "mean_of_largest": round(sample.mean().item(), 6),
        "std_of_largest": round(sample.std().item(), 6),
        "norms": _only_value(norms),
        "biases": _only_value(biases),
    }


def _only_value(weights: list[Any]) -> float | None:
    """The one value that all of them have everywhere; `None` where there are several or none."""
    values = {value for weight in weights for value in (weight.min().item(), weight.max().item())}
    return values.pop() if len(values) == 1 else None


def _bytes(tensors: Any) -> int:
    return sum(
        tensor.numel() * tensor.element_size()
        for tensor in tensors
        if isinstance(tensor, torch.Tensor)
    )


def _storage(tensors: Any) -> str | None:
    """In what type keys and values lie: bytes where they are quantized."""
    kinds = {str(each.dtype) for each in tensors if isinstance(each, torch.Tensor)}
    return ", ".join(sorted(kinds)).replace("torch.", "") or None


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2].endswith("bias")
