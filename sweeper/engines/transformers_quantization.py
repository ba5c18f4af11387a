"""Quantized weights by torchao, the library that transformers quantizes with on any device."""

import importlib
import importlib.util
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from sweeper.errors import Infeasible, WrongSetting

LIBRARY = "torchao"
QUANTIZATIONS: Mapping[str, str] = {
    "int8_weight_only": "Int8WeightOnlyConfig",
    "int8_dynamic": "Int8DynamicActivationInt8WeightConfig",
}
"""Values of `engine.quantization`, and the configurations of torchao that they are.

Weights of linear layers are int8, a scale for each row; `int8_dynamic` also rounds what they are
multiplied with, by its range at the time. The output layer stays as it is, as in transformers.
"""


def quantization_fault(name: str | None) -> str | None:
    """Why weights cannot be quantized so here; `None` if nothing speaks against it."""
    if name is None:
        return None
    if name not in QUANTIZATIONS:
        known = ", ".join(QUANTIZATIONS)
        return f"engine.quantization {name} is not available with transformers yet, only {known}"
    if importlib.util.find_spec(LIBRARY) is None:
        return f"engine.quantization {name} needs {LIBRARY}, which is not installed: pip install it"
    return None


def quantize(model: Any, name: str) -> Mapping[str, Any]:
    """Quantize a model where it is; what was done.

    Raises:
        Infeasible: torchao has no such quantization on this device, or of these shapes.
        WrongSetting: some linear layer has kept its weights.
    """
    import torch

    library = importlib.import_module(f"{LIBRARY}.quantization")
    head = model.get_output_embeddings()

    def linear(module: Any) -> bool:
        return isinstance(module, torch.nn.Linear) and module is not head

    try:
        library.quantize_(
            model, getattr(library, QUANTIZATIONS[name])(), lambda module, _: linear(module)
        )
    except (AssertionError, ImportError, NotImplementedError, ValueError) as error:
        raise Infeasible(f"engine.quantization {name}: {LIBRARY} refuses: {error}") from error
    layers = [module for module in model.modules() if linear(module)]
    done = sum(is_quantized(module.weight) for module in layers)
    if done != len(layers) or not done:
        raise WrongSetting(
            f"engine.quantization {name}: {LIBRARY} quantized {done} of {len(layers)} linear layers"
        )
    return {
        "library": LIBRARY,
        "version": version(LIBRARY),
        "configuration": QUANTIZATIONS[name],
        "layers": done,
        "tensor": type(layers[0].weight).__name__,
    }


def is_quantized(weight: Any) -> bool:
    """Whether a weight is a tensor made of others, such as integers and scales."""
    return hasattr(weight, "__tensor_flatten__")


def stored_bytes(weight: Any) -> int:
    """Bytes that a weight takes: of a quantized one, of the tensors that it is made of."""
    if is_quantized(weight):
        names, _ = weight.__tensor_flatten__()
        return sum(stored_bytes(getattr(weight, name)) for name in names)
    return int(weight.numel() * weight.element_size())
