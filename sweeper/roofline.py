"""Memory, time and energy of a point, from the model's shape and the GPU's data (pure).

These are estimates that order a plan and say what cannot fit; they are never results. Each GPU's
share of the work is counted, and takes the longer of what its bandwidth and its arithmetic need.
On a machine without a GPU there is no roofline: nothing here has an answer, rather than a zero.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sweeper.decoding import beam_width
from sweeper.gpu_data import Gpu
from sweeper.shapes import DTYPE_BYTES, Shape
from sweeper.spec import TEMPERATURE_S, EngineKind, EngineSpec, Settings, Sizes
from sweeper.speculation import (
    acceptance,
    acceptance_rates,
    draft_shape,
    speculation,
    verified_tokens,
)

BANDWIDTH_EFFICIENCY = 0.8
"""Share of a GPU's bandwidth that kernels reach (ai-dynamo/aiconfigurator system data)."""
COMPUTE_EFFICIENCY = 0.69
"""Share of peak FLOP/s of large matrix products (median of its H200 tables at the power cap)."""
KERNEL_GAP_S = 10e-6
"""Between kernels of one layer, on the GPU. Assumption."""
ALL_REDUCE_S = 10e-6
"""Start of one all-reduce between GPUs of a node; a layer has two. Assumption."""
EAGER_LAYER_S = 520e-6
"""For the processor to launch a layer's kernels without CUDA graphs, beside the GPU.

From arXiv 2504.17674: graphs save 25.47 % on an A100 and 2.97 % on an A6000, taken as the energy
of an 8B model at batch 1: the A100 waits for its processor, the A6000 does not.
"""
TRANSFORMERS_LAYER_S: Mapping[bool, float] = {False: 800e-6, True: 470e-6}
"""The same for transformers, by whether it is compiled.

Compilation saves 29.90 % on an A100 and 1.96 % on an A6000 (same source); the first is assumed.
"""

VLLM_MEMORY_SHARE = 0.92
"""What vLLM takes of a GPU's memory unless told otherwise (vLLM 0.32)."""
CONTEXT_BYTES = 0.6e9
"""CUDA context and libraries on each GPU. Assumption."""
GRAPH_BYTES = 1.0e9
"""CUDA graphs on each GPU. Assumption."""
BATCHED_TOKENS = 8192
"""Tokens of one forward pass of vLLM (its default on most GPUs, version 0.32)."""

LOAD_BYTES_PER_S = 1.5e9
"""Weights from disk to GPUs. Assumption."""
START_S: Mapping[EngineKind, float] = {
    "vllm": 60.0,
    "transformers": 20.0,
    "endpoint": 0.0,
    "simulated": 60.0,
}
"""Process start, compilation, graph capture. Assumptions."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that one GPU of a launch needs, part by part, and how many it has."""

    weights_bytes: float
    kv_cache_bytes: float
    workspace_bytes: float
    available_bytes: float
    gpu: str

    @property
    def needed_bytes(self) -> float:
        """All parts."""
        return self.weights_bytes + self.kv_cache_bytes + self.workspace_bytes

    @property
    def fits(self) -> bool:
        """Whether the parts fit together."""
        return self.needed_bytes <= self.available_bytes

    @property
    def reason(self) -> str:
        """Needed and available, in words."""
        return (
            f"{'fits' if self.fits else 'out of memory'}: each GPU needs "
            f"{self.needed_bytes / 1e9:.1f} GB (weights {self.weights_bytes / 1e9:.1f}, KV cache "
            f"{self.kv_cache_bytes / 1e9:.1f}, workspace {self.workspace_bytes / 1e9:.1f}), "
            f"{self.available_bytes / 1e9:.1f} GB of {self.gpu} are available"
        )


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One forward pass on one GPU: how long, and at how many watts."""

    seconds: float
    watts: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a point is expected to do; energy and power are of all GPUs of the launch.

    `prefill_s` and `latency_s` are of a full batch: its prompts, and from them to its last token.
    """

    prefill_s: float
    decode_step_s: float
    latency_s: float
    output_tokens_per_s: float
    requests_per_s: float
    power_w: float
    energy_per_output_token_j: float
    energy_per_request_j: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one forward pass asks of one GPU of a launch.

    `read_bytes` to and from its memory, `flops`, and `exchanged_bytes` that an all-reduce moves in
    each of the model's `layers`.
    """

    read_bytes: float
    flops: float
    exchanged_bytes: float


def batched_tokens(engine: EngineSpec, sizes: Sizes) -> int:
    """Most tokens of one forward pass; left open, as many as a decoding step or a prompt needs."""
    least = sizes.sequences * verified_tokens(engine)
    if engine.chunked_prefill is False:
        least = max(least, sizes.max_model_len)
    return engine.max_batched_tokens or max(BATCHED_TOKENS, least)


def memory(settings: Settings, shape: Shape, gpu: Gpu, sizes: Sizes) -> Memory:
    """What each GPU must hold at once: weights, the KV cache of the whole batch, workspace.

    A draft has its weights and its cache beside the model's. A quantization other than fp8 is
    counted at the width of its dtype, which is too much. On processors, in float32 and beyond what
    every process takes, transformers took 1.00 of this for llama-3.2-1b and 1.01 for olmo-1b, and
    vLLM 1.5 of it at its peak (`benchmarks/memory_estimate.py`; it is not known what for): no
    margin is added, so that what would just not fit is found out by a launch.
    """
    engine, workload = settings.engine, settings.workload
    length = workload.input_tokens + workload.output_tokens
    kv_tokens = _sequences(settings) * length
    share, passed_tokens = 1.0, _prompts(settings) * workload.input_tokens
    workspace = CONTEXT_BYTES
    if engine.kind != "transformers":
        share = float(engine.options.get("gpu_memory_utilization", VLLM_MEMORY_SHARE))
        kv_tokens = max(kv_tokens, sizes.max_model_len)
        passed_tokens = batched_tokens(engine, sizes)
        workspace += GRAPH_BYTES if engine.graphs else 0.0
    width = DTYPE_BYTES[engine.dtype]
    ffn = shape.ffn * shape.active_experts / engine.tensor_parallel
    workspace += passed_tokens * (6 * shape.hidden + 2 * ffn) * width
    rows = min(sizes.sequences * verified_tokens(engine), passed_tokens)
    workspace += rows * shape.vocab * (4 + width)
    shapes = [each for each in (shape, draft_shape(settings)) if each is not None]
    parameters = sum(each.parameters for each in shapes)
    return Memory(
        weights_bytes=parameters * weight_width(engine) / _sharing(engine),
        kv_cache_bytes=kv_tokens * sum(kv_bytes_per_token(engine, each) for each in shapes),
        workspace_bytes=workspace,
        available_bytes=gpu.memory_bytes * share,
        gpu=f"{gpu.name}'s {gpu.memory_bytes / 1e9:.1f} GB",
    )


def estimate(settings: Settings, shape: Shape, gpu: Gpu) -> Estimate:
    """Time and energy of a point whose batch is prefilled, then decoded to the end.

    Continuous batching does the same work in another order, so the sums stand for it too.
    """
    workload = settings.workload
    batch = _batch(settings)
    prompt = prefill(settings, shape, gpu)
    context = workload.input_tokens + workload.output_tokens / 2
    step = decode_step(settings, shape, gpu, context)
    steps = workload.output_tokens - 1
    latency_s = prompt.seconds + steps * step.seconds
    gpus = settings.engine.gpus
    energy_j = gpus * (prompt.seconds * prompt.watts + steps * step.seconds * step.watts)
    requests = batch * settings.engine.data_parallel
    return Estimate(
        prefill_s=prompt.seconds,
        decode_step_s=step.seconds,
        latency_s=latency_s,
        output_tokens_per_s=requests * workload.output_tokens / latency_s,
        requests_per_s=requests / latency_s,
        power_w=energy_j / latency_s,
        energy_per_output_token_j=energy_j / (requests * workload.output_tokens),
        energy_per_request_j=energy_j / requests,
    )


def prefill(settings: Settings, shape: Shape, gpu: Gpu) -> Pass:
    """The prompts of one batch, in as many forward passes as the engine's token budget asks.

    Prompts that are not chunked leave the rest of a pass empty. A draft reads them too.
    """
    engine = settings.engine
    prompt, batch = settings.workload.input_tokens, _prompts(settings)
    tokens = prompt * batch
    passes = 1
    if engine.kind != "transformers":
        budget = engine.max_batched_tokens or BATCHED_TOKENS
        passes = math.ceil(tokens / budget)
        if engine.chunked_prefill is False:
            passes = math.ceil(batch / max(budget // prompt, 1))

    def all_passes(read_by: Shape) -> Pass:
        one = work(engine, read_by, tokens / passes, tokens / passes * prompt / 2)
        return _repeated(_pass(one, settings, read_by, gpu), passes)

    draft = draft_shape(settings)
    model = all_passes(shape)
    return model if draft is None else _together(all_passes(draft), model)


def decode_step(settings: Settings, shape: Shape, gpu: Gpu, context_tokens: float) -> Pass:
    """One token for every request of the batch, each of which has `context_tokens` behind it.

    A beam search computes one for each of its beams.
    With a draft: the draft's passes and the model's over what it proposes, by the tokens that this
    gives a request on average. What n-grams would be accepted is not known, and left out.
    """
    engine, batch = settings.engine, _sequences(settings)
    cached = batch * context_tokens
    asked, draft = speculation(engine), draft_shape(settings)
    chance = None if asked is None else acceptance(asked)
    if asked is None or draft is None or chance is None:
        return _pass(work(engine, shape, batch, cached, cached), settings, shape, gpu)
    one = _pass(work(engine, draft, batch, cached, cached), settings, draft, gpu)
    width = asked.tokens + 1
    verified = work(engine, shape, batch * width, cached * width, cached)
    step = _together(_repeated(one, asked.tokens), _pass(verified, settings, shape, gpu))
    return _repeated(step, 1 / (1 + sum(acceptance_rates(chance, asked.tokens))))


def work(
    engine: EngineSpec, shape: Shape, tokens: float, attended: float, cached: float = 0.0
) -> Work:
    """A forward pass over `tokens`.

    Args:
        engine: how the model is split over GPUs and stored.
        shape: the model.
        tokens: new tokens, of all requests together.
        attended: over all new tokens, the tokens that each looks back on.
        cached: tokens whose keys and values are read from memory; a prefill has its own at hand.
    """
    read = shape.parameters_read(tokens) * weight_width(engine) / _sharing(engine)
    read += (cached + tokens) * kv_bytes_per_token(engine, shape)
    flops = 2.0 * shape.multiplied_parameters * tokens
    flops += 4.0 * shape.layers * shape.heads * shape.head_dim * attended
    return Work(
        read_bytes=read,
        flops=flops / _sharing(engine),
        exchanged_bytes=tokens * shape.hidden * DTYPE_BYTES[engine.dtype],
    )


def weight_width(engine: EngineSpec) -> float:
    """Bytes of one weight."""
    return DTYPE_BYTES["fp8" if engine.quantization == "fp8" else engine.dtype]


def kv_bytes_per_token(engine: EngineSpec, shape: Shape) -> float:
    """Bytes of one cached token on each GPU; heads are copied where there are too few to share."""
    cached = engine.kv_cache_dtype
    dtype = "fp8" if cached.startswith("fp8") else cached if cached in DTYPE_BYTES else engine.dtype
    shared = min(engine.tensor_parallel, shape.kv_heads) * engine.pipeline_parallel
    return shape.kv_bytes_per_token(dtype) / shared


def exchange_s(work_done: Work, engine: EngineSpec, shape: Shape, gpu: Gpu) -> float:
    """All-reduces of one pass: two a layer, each moving 2 (n - 1) / n of its tensor."""
    width = engine.tensor_parallel
    if width == 1:
        return 0.0
    moved = 2.0 * (width - 1) / width * work_done.exchanged_bytes
    return 2.0 * shape.layers * (ALL_REDUCE_S + moved / gpu.link_bytes_per_s)


def flops_per_s(engine: EngineSpec, gpu: Gpu) -> float:
    """Peak arithmetic at the engine's precision."""
    return gpu.fp32_flops_per_s if engine.dtype == "float32" else gpu.bf16_flops_per_s


def launch_s(engine: EngineSpec, shape: Shape) -> float:
    """For the processor to launch one pass, which runs beside the GPU's own time."""
    if engine.kind == "transformers":
        return shape.layers * TRANSFORMERS_LAYER_S[engine.compile]
    return 0.0 if engine.graphs else shape.layers * EAGER_LAYER_S


def point_seconds(settings: Settings, shape: Shape, gpu: Gpu, min_requests: int = 1) -> float:
    """How long the protocol takes for one point: warm-up, settling, windows.

    All windows together hold at least `min_requests`, which percentiles may need. They are whole
    batches, or whole turns of a closed loop; there the slots fill for as long as a batch takes, on
    every visit, before anything is counted. No visit settles for less than the protocol looks back
    on a GPU's temperature. With `measure.phases` each has a window of prefill alone beside it.
    """
    seconds = _visits_seconds(settings, shape, gpu, min_requests)
    if settings.measure.phases:
        alone = replace(
            settings,
            workload=replace(settings.workload, output_tokens=1),
            measure=replace(settings.measure, window="whole", phases=False),
        )
        seconds += _visits_seconds(alone, shape, gpu, min_requests)
    return seconds


def _visits_seconds(settings: Settings, shape: Shape, gpu: Gpu, min_requests: int) -> float:
    measure, workload = settings.measure, settings.workload
    expected = estimate(settings, shape, gpu)
    batch_s = expected.latency_s
    requests = 0 if workload.requests == "auto" else workload.requests
    steady = settings.convention == "steady"
    needed = max(requests, math.ceil(min_requests / measure.repeats))
    window_s = max(measure.min_window_s, needed / expected.requests_per_s)
    unit_s = batch_s if steady else max(requests / expected.requests_per_s, batch_s)
    window_s = math.ceil(window_s / unit_s) * unit_s
    filling_s = batch_s if steady and workload.batch_size > 1 else 0.0
    warmup_s = max(measure.warmup.min_batches * batch_s, TEMPERATURE_S)
    settling_s = max(batch_s, TEMPERATURE_S)
    around_s = warmup_s + (measure.repeats - 1) * settling_s + measure.repeats * filling_s
    return around_s + measure.repeats * window_s


def point_energy_j(settings: Settings, shape: Shape, gpu: Gpu, min_requests: int = 1) -> float:
    """Joules that measuring one point costs, all GPUs together."""
    seconds = point_seconds(settings, shape, gpu, min_requests)
    return seconds * estimate(settings, shape, gpu).power_w


def load_seconds(settings: Settings, shape: Shape, gpu: Gpu) -> float:
    """How long a launch takes to be ready: its weights at `LOAD_BYTES_PER_S`, and `START_S`."""
    draft = draft_shape(settings)
    parameters = shape.parameters + (0 if draft is None else draft.parameters)
    loaded = parameters * weight_width(settings.engine) * settings.engine.data_parallel
    return START_S[settings.engine.kind] + loaded / LOAD_BYTES_PER_S


def _pass(asked: Work, settings: Settings, shape: Shape, gpu: Gpu) -> Pass:
    engine = settings.engine
    stages = engine.pipeline_parallel
    memory_s = asked.read_bytes / (gpu.bandwidth_bytes_per_s * BANDWIDTH_EFFICIENCY)
    compute_s = asked.flops / (flops_per_s(engine, gpu) * COMPUTE_EFFICIENCY)
    gpu_s = stages * max(memory_s, compute_s)
    gpu_s += shape.layers * KERNEL_GAP_S + exchange_s(asked, engine, shape, gpu)
    seconds = max(gpu_s, launch_s(engine, shape))
    watts = gpu.active_w
    watts += (gpu.j_per_byte * asked.read_bytes + gpu.j_per_flop * asked.flops) / seconds
    return Pass(seconds=seconds, watts=min(watts, gpu.tdp_w))


def _repeated(one: Pass, times: float) -> Pass:
    return Pass(seconds=times * one.seconds, watts=one.watts)


def _together(first: Pass, second: Pass) -> Pass:
    """One after the other."""
    seconds = first.seconds + second.seconds
    energy_j = first.seconds * first.watts + second.seconds * second.watts
    return Pass(seconds=seconds, watts=energy_j / seconds)


def _batch(settings: Settings) -> int:
    """Requests at a time on each copy of the model."""
    return math.ceil(settings.workload.batch_size / settings.engine.data_parallel)


def _sequences(settings: Settings) -> int:
    """Texts that are decoded at a time on each copy of the model."""
    return _batch(settings) * beam_width(settings.workload)


def _prompts(settings: Settings) -> int:
    """Prompts that are read for a batch: transformers reads them once for each beam."""
    of_each_beam = settings.engine.kind == "transformers"
    return _sequences(settings) if of_each_beam else _batch(settings)


def _sharing(engine: EngineSpec) -> int:
    """GPUs that hold one copy of the model between them."""
    return engine.tensor_parallel * engine.pipeline_parallel
