"""Shapes of models: what decides their memory and speed, without their weights.

A shape is read from a transformers configuration: one of the JSON files beside this module, or
the `config.json` of a local model folder.
"""

import json
import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sweeper.errors import StudyError
from sweeper.spec import ModelSpec

FOLDER = Path(__file__).parent
DTYPE_BYTES: Mapping[str, int] = {"bfloat16": 2, "float16": 2, "float32": 4, "fp8": 1}


@dataclass(frozen=True, kw_only=True)
class Family:
    """Where the small parameters of an architecture are; its matrices are those of a llama.

    `norms` counts normalisation vectors a layer, `query_key_norm` says over what queries and keys
    are normalised, `expert_key` names the configuration's count of experts.
    """

    norms: int = 2
    final_norm: bool = True
    query_key_norm: str | None = None
    query_key_value_bias: bool = False
    expert_key: str | None = None


FAMILIES: Mapping[str, Family] = {
    "llama": Family(),
    "mistral": Family(),
    "mixtral": Family(expert_key="num_local_experts"),
    "olmo": Family(norms=0, final_norm=False),
    "olmo2": Family(query_key_norm="full"),
    "olmoe": Family(query_key_norm="full", expert_key="num_experts"),
    "qwen2": Family(query_key_value_bias=True),
    "qwen3": Family(query_key_norm="head"),
}
"""Architectures by the `model_type` of a transformers configuration."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A decoder with gated feed-forward layers.

    `experts` is 1 for a dense model. `small_parameters` are norms, biases and routers of all
    layers, which every token uses.
    """

    name: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    experts: int
    active_experts: int
    max_positions: int
    small_parameters: int

    @property
    def embedding_parameters(self) -> int:
        """One table of vectors, input or output."""
        return self.vocab * self.hidden

    @property
    def expert_parameters(self) -> int:
        """The feed-forward matrices of one expert in one layer."""
        return 3 * self.hidden * self.ffn

    @property
    def attention_parameters(self) -> int:
        """The four projections of one layer."""
        return 2 * self.hidden * self.head_dim * (self.heads + self.kv_heads)

    @property
    def parameters(self) -> int:
        """All of the model."""
        return self._shared_parameters + self.layers * self.experts * self.expert_parameters

    @property
    def active_parameters(self) -> int:
        """What one token uses, embeddings included."""
        experts = self.layers * self.active_experts * self.expert_parameters
        return self._shared_parameters + experts

    @property
    def multiplied_parameters(self) -> int:
        """What one token is multiplied with: active, less an input table that is only looked up."""
        return self.active_parameters - self._looked_up

    def parameters_read(self, tokens: float) -> float:
        """Expected parameters that a forward pass over `tokens` reads.

        A token reaches `active_experts` of `experts`; routed uniformly, `tokens` of them miss one
        with probability (1 - active / experts) ** tokens.
        """
        missed = math.pow(1.0 - self.active_experts / self.experts, tokens)
        experts = self.layers * self.experts * (1.0 - missed) * self.expert_parameters
        return self._shared_parameters - self._looked_up + experts

    def kv_bytes_per_token(self, dtype: str) -> int:
        """Keys and values of one token in all layers; `dtype` is a key of `DTYPE_BYTES`."""
        return 2 * self.layers * self.kv_heads * self.head_dim * DTYPE_BYTES[dtype]

    @property
    def _looked_up(self) -> int:
        return 0 if self.tied else self.embedding_parameters

    @property
    def _shared_parameters(self) -> int:
        tables = self.embedding_parameters * (1 if self.tied else 2)
        return tables + self.small_parameters + self.layers * self.attention_parameters


def known() -> tuple[str, ...]:
    """Names of the shapes that come with this package."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def models(name: str) -> tuple[str, ...]:
    """Hub ids of models that have a shape of this package.

    Raises:
        StudyError: no shape has that name.
    """
    return tuple(_file(name)["models"])


def architecture(name: str) -> dict[str, Any]:
    """What `transformers.AutoConfig.for_model(**architecture)` builds a shape's model from.

    Raises:
        StudyError: no shape has that name.
    """
    return deepcopy(_file(name)["architecture"])


def shape(name: str) -> Shape:
    """The shape of that name.

    Raises:
        StudyError: no shape has that name.
    """
    return _read(name, _file(name)["architecture"])


def shape_of(config: Path) -> Shape:
    """The shape of a local model, from its `config.json`.

    Raises:
        StudyError: the file cannot be read, or is of an architecture not among `FAMILIES`.
    """
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StudyError(f"model.id: cannot read {config}: {error}") from error
    if not isinstance(values, dict):
        raise StudyError(f"model.id: {config} is not a model's configuration")
    return _read(config.parent.name, values)


def shape_of_model(model: ModelSpec) -> Shape:
    """The shape of a study's model: the one it names, a local folder's, or its hub id's.

    Raises:
        StudyError: none of them is known.
    """
    if model.shape is not None:
        return shape(model.shape)
    if model.id is None:
        raise StudyError(f"model: name an id or a shape; shapes: {', '.join(known())}")
    config = Path(model.id) / "config.json"
    if config.is_file():
        return shape_of(config)
    for name in known():
        if model.id in models(name):
            return shape(name)
    raise StudyError(
        f"model.id: the shape of {model.id} is not known without its configuration; "
        f"set model.shape to one of {', '.join(known())}, or model.id to a local folder"
    )


@cache
def _file(name: str) -> Mapping[str, Any]:
    if name not in known():
        raise StudyError(f"model.shape: no shape {name!r}; known: {', '.join(known())}")
    found: Mapping[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def _read(name: str, values: Mapping[str, Any]) -> Shape:
    model_type = values.get("model_type")
    family = FAMILIES.get(str(model_type))
    if family is None:
        raise StudyError(
            f"model: {name} has model_type {model_type!r}; known: {', '.join(sorted(FAMILIES))}"
        )
    try:
        return _shape(name, family, values)
    except KeyError as missing:
        raise StudyError(f"model: the configuration of {name} has no {missing}") from missing


def _shape(name: str, family: Family, values: Mapping[str, Any]) -> Shape:
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    kv_heads = values.get("num_key_value_heads") or heads
    head_dim = values.get("head_dim") or hidden // heads
    experts = values[family.expert_key] if family.expert_key else 1
    return Shape(
        name=name,
        layers=values["num_hidden_layers"],
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=values["intermediate_size"],
        vocab=values["vocab_size"],
        tied=bool(values.get("tie_word_embeddings", False)),
        experts=experts,
        active_experts=values["num_experts_per_tok"] if family.expert_key else 1,
        max_positions=values["max_position_embeddings"],
        small_parameters=_small_parameters(family, values, kv_heads, head_dim, experts),
    )


def _small_parameters(
    family: Family, values: Mapping[str, Any], kv_heads: int, head_dim: int, experts: int
) -> int:
    hidden, heads = values["hidden_size"], values["num_attention_heads"]
    queries, keys = heads * head_dim, kv_heads * head_dim
    layer = family.norms * hidden
    layer += {None: 0, "head": 2 * head_dim, "full": queries + keys}[family.query_key_norm]
    if values.get("attention_bias"):
        layer += queries + 2 * keys + hidden
    elif family.query_key_value_bias:
        layer += queries + 2 * keys
    if values.get("mlp_bias"):
        layer += 2 * values["intermediate_size"] + hidden
    if family.expert_key:
        layer += hidden * experts
    return int(values["num_hidden_layers"] * layer + hidden * family.final_norm)
