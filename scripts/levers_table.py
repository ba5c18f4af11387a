"""The levers of a study: how each is asked for, and what of a record shows that it took effect.

A proof is a path into a record and what stands there if the engine did as it was asked. Engines
that have no proof must refuse the lever: `scripts/levers.py` asks them.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

RESOLVED = "environment.resolved_engine"
Engine = Literal["transformers", "vllm", "endpoint"]


@dataclass(frozen=True)
class Above:
    """More than `bound`."""

    bound: float

    def __str__(self) -> str:
        return f"> {self.bound:g}"


@dataclass(frozen=True)
class Proof:
    """`path` into a record, and what stands there.

    `beside` is what this engine wants set too, or instead.
    """

    path: str
    expected: Any
    beside: Mapping[str, Any] = field(default_factory=dict)

    def holds(self, seen: Any) -> bool:
        """Whether what was seen is what was expected."""
        if isinstance(self.expected, Above):
            number = isinstance(seen, int | float) and not isinstance(seen, bool)
            return number and seen > self.expected.bound
        return type(seen) is type(self.expected) and bool(seen == self.expected)


@dataclass(frozen=True, kw_only=True)
class Lever:
    """Settings of a study (`asks`, dotted), and by engine what proves them."""

    name: str
    asks: Mapping[str, Any]
    proofs: Mapping[Engine, Proof]


BASE: Mapping[str, Any] = {
    "name": "lever",
    "model.shape": "tiny",
    "model.weights": "dummy",
    "workload.input_tokens": 16,
    "workload.output_tokens": 12,
    "workload.batch_size": 4,
    "workload.batching": "static",
    "workload.requests": 8,
    "measure.warmup.min_batches": 1,
    "measure.warmup.max_batches": 2,
    "measure.min_window_s": 0.2,
    "measure.repeats": 1,
}
"""What every lever is tried on: a tiny model with drawn weights, a window as short as it can be."""
_PLAIN = {"engine.dtype": "float32", "engine.compile": False, "engine.graphs": False}
_SERVER = (
    f"{sys.executable} "
    "-m vllm.entrypoints.openai.api_server --model {model} --served-model-name tiny "
    "--host 127.0.0.1 --port {port} --dtype float32 --tensor-parallel-size {tensor_parallel} "
    "--max-model-len 64 --max-num-seqs 8 --load-format dummy --skip-tokenizer-init "
    "--no-enable-prefix-caching --generation-config vllm --kv-cache-memory-bytes 67108864 "
    """--compilation-config '{"mode": "NONE", "cudagraph_mode": "NONE"}'"""
)
BY_ENGINE: Mapping[Engine, Mapping[str, Any]] = {
    "transformers": _PLAIN,
    "vllm": _PLAIN,
    # vLLM's server, of a model whose configuration lies in the folder that the command fills in.
    "endpoint": {
        "engine.options": {"command": _SERVER},
        # vLLM's own binding wants a NUMA node for each of two workers.
        "engine.env": {"VLLM_CPU_OMP_THREADS_BIND": "nobind"},
    },
}
"""What an engine is tried with beside that."""


def _both(path: str, expected: Any) -> dict[Engine, Proof]:
    proof = Proof(f"{RESOLVED}.{path}", expected)
    return {"transformers": proof, "vllm": proof}


def _vllm(path: str, expected: Any, **beside: Any) -> dict[Engine, Proof]:
    dotted = {key.replace("__", "."): value for key, value in beside.items()}
    return {"vllm": Proof(path, expected, dotted)}


_DRAFT = {"kind": "draft", "model": "tiny", "tokens": 2}
_ALONE = {"workload.batch_size": 1}  # transformers speculates for one request at a time
_ACCEPTED = "metrics.draft_tokens_accepted"

LEVERS: tuple[Lever, ...] = (
    Lever(
        name="engine.dtype: bfloat16",
        asks={"engine.dtype": "bfloat16"},
        proofs={
            **_both("dtype", "bfloat16"),
            # Another value than the default, which is no word to a server.
            "endpoint": Proof(f"{RESOLVED}.dtype", "float16", {"engine.dtype": "float16"}),
        },
    ),
    Lever(
        name="engine.compile: true",
        asks={"engine.compile": True},
        proofs={
            **_both("compile", True),
            "endpoint": Proof(f"{RESOLVED}.compile", False, {"engine.compile": False}),
        },
    ),
    Lever(
        name="engine.graphs: true",
        asks={"engine.graphs": True, "engine.compile": True},
        proofs={
            **_both("graphs", True),
            "endpoint": Proof(f"{RESOLVED}.graphs", False, {"engine.graphs": False}),
        },
    ),
    Lever(
        name="engine.attention",
        asks={"engine.attention": "eager"},
        proofs={
            "transformers": Proof(f"{RESOLVED}.attention", "eager"),
            "vllm": Proof(f"{RESOLVED}.attention", "CPU_ATTN", {"engine.attention": "CPU_ATTN"}),
        },
    ),
    Lever(
        name="engine.quantization: fp8",
        asks={"engine.quantization": "fp8"},
        proofs=_vllm(f"{RESOLVED}.quantization", "fp8", model__weights="dummy_engine"),
    ),
    Lever(
        name="engine.quantization: int8_weight_only",
        asks={"engine.quantization": "int8_weight_only"},
        proofs={
            "transformers": Proof(f"{RESOLVED}.quantization", "int8_weight_only"),
            "vllm": Proof(f"{RESOLVED}.quantization", "int8_weight_only"),
        },
    ),
    Lever(
        name="engine.kv_cache_dtype: fp8",
        asks={"engine.kv_cache_dtype": "fp8"},
        proofs=_vllm(f"{RESOLVED}.kv_cache_dtype", "fp8"),
    ),
    Lever(
        name="engine.speculative: draft",
        asks={"engine.speculative": _DRAFT},
        proofs={
            "vllm": Proof(_ACCEPTED, Above(0)),
            "transformers": Proof(_ACCEPTED, Above(0), _ALONE),
        },
    ),
    Lever(
        name="engine.speculative: ngram",
        asks={"engine.speculative": {"kind": "ngram", "tokens": 2}},
        proofs={
            "vllm": Proof(f"{RESOLVED}.speculative.method", "ngram"),
            "transformers": Proof(
                "metrics.draft_tokens_proposed",
                Above(0),
                {
                    **_ALONE,
                    "engine.speculative": {"kind": "ngram", "tokens": 2, "prompt_lookup_min": 1},
                },
            ),
        },
    ),
    Lever(
        name="engine.speculative: stated",
        asks={
            "engine.speculative": {
                "kind": "stated",
                "model": "tiny",
                "acceptance": 0.7,
                "tokens": 2,
            }
        },
        proofs={"vllm": Proof(_ACCEPTED, Above(0))},
    ),
    Lever(
        name="engine.chunked_prefill: true",
        asks={"engine.chunked_prefill": True},
        proofs=_vllm(f"{RESOLVED}.chunked_prefill", True),
    ),
    Lever(
        name="engine.chunked_prefill: false",
        asks={"engine.chunked_prefill": False},
        proofs=_vllm(f"{RESOLVED}.chunked_prefill", False),
    ),
    Lever(
        name="engine.max_batched_tokens",
        asks={"engine.max_batched_tokens": 96},
        proofs=_vllm(f"{RESOLVED}.max_batched_tokens", 96),
    ),
    Lever(
        name="engine.prefix_caching: true",
        asks={"engine.prefix_caching": True},
        proofs=_vllm(f"{RESOLVED}.prefix_caching", True),
    ),
    Lever(
        name="engine.mode: online",
        asks={"engine.mode": "online"},
        proofs=_vllm(f"{RESOLVED}.mode", "online"),
    ),
    Lever(
        name="engine.tensor_parallel: 2",
        asks={"engine.tensor_parallel": 2},
        proofs={
            **_vllm(f"{RESOLVED}.tensor_parallel", 2),
            "endpoint": Proof(f"{RESOLVED}.tensor_parallel", 2),
        },
    ),
    Lever(
        name="engine.pipeline_parallel: 2",
        asks={"engine.pipeline_parallel": 2},
        proofs=_vllm(f"{RESOLVED}.pipeline_parallel", 2),
    ),
    Lever(
        name="engine.data_parallel: 2",
        asks={"engine.data_parallel": 2},
        proofs=_vllm(f"{RESOLVED}.data_parallel", 2),
    ),
    Lever(
        name="engine.options",
        asks={"engine.options": {"seed": 7}},
        proofs={
            "vllm": Proof(f"{RESOLVED}.seed", 7),
            "transformers": Proof(
                f"{RESOLVED}.options_taken", {"top_k": 5}, {"engine.options": {"top_k": 5}}
            ),
            "endpoint": Proof(
                f"{RESOLVED}.options.body.seed",
                7,
                {"engine.options": {"command": _SERVER, "body": {"seed": 7}}},
            ),
        },
    ),
    Lever(
        name="workload.batching: continuous",
        asks={"workload.batching": "continuous"},
        proofs={
            engine: Proof("convention", "steady") for engine in ("transformers", "vllm", "endpoint")
        },
    ),
    *(
        Lever(
            name=f"workload.decoding: {kind}",
            asks={"workload.decoding": {"kind": kind, **more}},
            proofs={
                "transformers": Proof(
                    f"metrics.{'beam_search' if kind == 'beam' else 'sampled'}_requests", Above(0)
                ),
                # Four requests of two beams each take part in a step.
                "vllm": Proof("metrics.running_requests_max", 8.0)
                if kind == "beam"
                else Proof(f"{RESOLVED}.decoding.kind", kind),
            },
        )
        for kind, more in (
            ("beam", {"width": 2}),
            ("temperature", {"temperature": 0.7}),
            ("top_p", {"top_p": 0.9}),
        )
    ),
    Lever(
        name="model.weights: dummy_zeros",
        asks={"model.weights": "dummy_zeros"},
        proofs={
            **_both("weights.kind", "dummy_zeros"),
            "endpoint": Proof(f"{RESOLVED}.weights.kind", "dummy_zeros"),
        },
    ),
    Lever(
        name="model.weights: dummy_engine",
        asks={"model.weights": "dummy_engine"},
        proofs={
            **_vllm(f"{RESOLVED}.weights.kind", "dummy_engine"),
            "endpoint": Proof(f"{RESOLVED}.weights.kind", "dummy_engine"),
        },
    ),
    Lever(
        name="gpu.power_limit_w",
        asks={"gpu.power_limit_w": 250.0},
        proofs={},
    ),
    Lever(
        name="gpu.clock_mhz",
        asks={"gpu.clock_mhz": 1200},
        proofs={},
    ),
)
