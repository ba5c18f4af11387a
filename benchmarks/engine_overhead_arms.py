"""The arms of `engine_overhead`: the same work through sweeper, and as one would do it without.

Everything computes a tiny model of random weights on processors. On both sides of a comparison the
prompts, the lengths, the sampling (greedy) and the batch are the same. vLLM computes on the first
processor alone, so that there is another for whoever drives it, as there is beside a GPU. What is
timed through sweeper is what goes on in a window of a trial: the engine's events, taken into a
timeline.
"""

import asyncio
import contextlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from sweeper.clocks import RealClock
from sweeper.engines import Event, Request, engine_class
from sweeper.engines.vllm_command import architecture_file
from sweeper.spec import EngineKind, EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec
from sweeper.trial.latency import Timeline, samples

ROOT = Path(__file__).resolve().parent.parent
INPUT, OUTPUT = 32, 64
VOCABULARY = 4096
DTYPE = "float32"
NUMBERS = count()


@dataclass(frozen=True, kw_only=True)
class Load:
    """How much an arm does: static batches of `batch`, or `requests` with `in_flight` at a time."""

    batch: int
    batches: int
    in_flight: int
    requests: int


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What one arm gave once; times of requests where they were seen."""

    tokens_per_s: float
    ttft_s: Sequence[float] = ()
    tpot_s: Sequence[float] = ()


Arm = Callable[[], Taken]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Work done through sweeper, and the same without."""

    ours: Arm
    theirs: Arm


def prompts(size: int) -> list[list[int]]:
    """Different in every arm, of the same length."""
    return [
        [(7919 * number + 104729 * place) % VOCABULARY for place in range(INPUT)]
        for number, _ in zip(NUMBERS, range(size), strict=False)
    ]


def requests(size: int) -> list[Request]:
    """As an engine takes them."""
    return [Request(place, ids, OUTPUT) for place, ids in enumerate(prompts(size))]


def bound() -> dict[str, str]:
    """Variables with which vLLM computes on one processor."""
    return {"VLLM_CPU_OMP_THREADS_BIND": str(min(os.sched_getaffinity(0)))}


def _settings(kind: EngineKind, batch: int, **more: Any) -> tuple[Settings, Sizes]:
    settings = Settings(
        model=more.pop("model", ModelSpec(shape="tiny", weights="dummy")),
        engine=EngineSpec(kind=kind, **more),
        workload=WorkloadSpec(
            batching="static", input_tokens=INPUT, output_tokens=OUTPUT, batch_size=batch
        ),
    )
    sizes = Sizes(max_model_len=INPUT + OUTPUT, max_batch_size=batch, batch_sizes=(batch,))
    return settings, sizes


def _through(streams: Iterable[Iterable[Event]]) -> tuple[float, list[Timeline]]:
    """Tokens a second of several batches, one after the other, and what each amounts to."""
    timelines, tokens, began_s = [], 0, time.monotonic()
    for stream in streams:
        timeline = Timeline()
        for event in stream:
            timeline.add(event)
            tokens += event.tokens + (event.kind == "first_token")
        timelines.append(timeline)
    return tokens / (time.monotonic() - began_s), timelines


@contextmanager
def offline(load: Load, folder: Path) -> Iterator[Pair]:
    """vLLM: static batches, against what `vllm bench throughput` times.

    That is `LLM.generate` over all prompts; here it samples greedily, as sweeper does. Each side
    has an engine of its own, with the same arguments, which rests while the other works.
    """
    settings, sizes = _settings(
        "vllm", load.batch, dtype=DTYPE, compile=False, graphs=False, env=bound()
    )
    with closing(engine_class("vllm")(settings, sizes, (), RealClock())) as engine:
        engine.load()
        llm, params = _bare_vllm(engine, folder)

        def ours() -> Taken:
            batches = [requests(load.batch) for _ in range(load.batches)]
            rate, _ = _through(engine.generate(batch, settings) for batch in batches)
            return Taken(tokens_per_s=rate)

        def theirs() -> Taken:
            batches = [
                [{"prompt_token_ids": ids} for ids in prompts(load.batch)]
                for _ in range(load.batches)
            ]
            began_s, tokens = time.monotonic(), 0
            for batch in batches:
                for output in llm.generate(batch, params, use_tqdm=False):
                    tokens += len(output.outputs[0].token_ids)
            return Taken(tokens_per_s=tokens / (time.monotonic() - began_s))

        try:
            yield Pair(ours=ours, theirs=theirs)
        finally:
            llm.llm_engine.engine_core.shutdown()


def _bare_vllm(engine: Any, folder: Path) -> tuple[Any, Any]:
    """A second engine with the arguments of the first, without anything of sweeper in it."""
    from vllm import LLM, SamplingParams

    took = engine._driver.config
    path = folder / "bare"
    path.mkdir()
    (path / "config.json").write_text(architecture_file("tiny", "LlamaForCausalLM"))
    os.environ.update(bound())
    llm = LLM(
        model=str(path),
        dtype=DTYPE,
        load_format="dummy",
        skip_tokenizer_init=True,
        enable_prefix_caching=False,
        disable_log_stats=False,
        max_model_len=took.model_config.max_model_len,
        max_num_seqs=took.scheduler_config.max_num_seqs,
        max_num_batched_tokens=took.scheduler_config.max_num_batched_tokens,
        distributed_executor_backend=took.parallel_config.distributed_executor_backend,
        kv_cache_memory_bytes=took.cache_config.kv_cache_memory_bytes,
        compilation_config={"mode": "NONE", "cudagraph_mode": "NONE"},
    )
    params = SamplingParams(
        temperature=0.0, min_tokens=OUTPUT, max_tokens=OUTPUT, ignore_eos=True, detokenize=False
    )
    return llm, params


@contextmanager
def served(load: Load, folder: Path) -> Iterator[Pair]:
    """An endpoint, against the client of `vllm bench serve` on the same server.

    Both keep so many requests in flight (`--max-concurrency`). Its client runs in this process, as
    sweeper's does: a process for each turn would take ten times as long to start as to measure.
    """
    sys.path.append(str(ROOT))
    from tests.completion_server import settings_of

    settings = settings_of(
        folder / "served", length=INPUT + OUTPUT, most=load.in_flight, env=bound()
    )
    _, sizes = _settings("endpoint", load.in_flight)
    with closing(engine_class("endpoint")(settings, sizes, (), RealClock())) as engine:
        engine.load()
        url: str = engine._client._url  # type: ignore[attr-defined]

        def ours() -> Taken:
            asked = requests(load.requests)
            events = engine.serve(iter(asked), load.in_flight, settings)
            rate, [timeline] = _through([events])
            lengths = {request.index: request.output_tokens for request in asked}
            found = samples(timeline, lengths, float("-inf"), float("inf"), streams=True)
            if len(found.latency_s) != load.requests:
                raise AssertionError("requests failed")
            return Taken(tokens_per_s=rate, ttft_s=found.ttft_s, tpot_s=found.tpot_s)

        def theirs() -> Taken:
            found = asyncio.run(_bench_serve(url, prompts(load.requests), load.in_flight))
            if found["completed"] != load.requests:
                raise AssertionError(f"requests failed: {found['errors'][:1]}")
            times = zip(found["ttfts"], found["latencies"], strict=True)
            return Taken(
                tokens_per_s=found["output_throughput"],
                ttft_s=found["ttfts"],
                tpot_s=[(latency - ttft) / (OUTPUT - 1) for ttft, latency in times],
            )

        yield Pair(ours=ours, theirs=theirs)


async def _bench_serve(url: str, asked: Sequence[list[int]], in_flight: int) -> dict[str, Any]:
    from vllm.benchmarks.datasets import SampleRequest
    from vllm.benchmarks.serve import TaskType, benchmark

    with contextlib.redirect_stdout(io.StringIO()):
        found: dict[str, Any] = await benchmark(
            task_type=TaskType.GENERATION,
            endpoint_type="openai",
            api_url=f"{url}/v1/completions",
            base_url=url,
            model_id="tiny",
            model_name="tiny",
            tokenizer=None,
            input_requests=[
                SampleRequest(prompt=ids, prompt_len=INPUT, expected_output_len=OUTPUT)
                for ids in asked
            ],
            logprobs=None,
            request_rate=float("inf"),
            burstiness=1.0,
            disable_tqdm=True,
            num_warmups=0,
            profile=False,
            selected_percentile_metrics=[],
            selected_percentiles=[50.0],
            ignore_eos=True,
            goodput_config_dict={},
            max_concurrency=in_flight,
            lora_modules=None,
            extra_headers=None,
            extra_body={"temperature": 0.0, "min_tokens": OUTPUT},
            ready_check_timeout_sec=0,
        )
    return found


@contextmanager
def static(load: Load, folder: Path) -> Iterator[Pair]:
    """transformers: static batches, against a bare loop over `generate` of the same model."""
    import torch
    from transformers import GenerationConfig

    settings, sizes = _settings(
        "transformers", load.batch, dtype=DTYPE, compile=False, graphs=False
    )
    with closing(engine_class("transformers")(settings, sizes, (), RealClock())) as engine:
        engine.load()
        model: Any = engine.model  # type: ignore[attr-defined]
        options = GenerationConfig(
            max_new_tokens=OUTPUT, do_sample=False, use_cache=True, pad_token_id=0
        )

        def ours() -> Taken:
            batches = [requests(load.batch) for _ in range(load.batches)]
            rate, _ = _through(engine.generate(batch, settings) for batch in batches)
            return Taken(tokens_per_s=rate)

        def theirs() -> Taken:
            batches = [prompts(load.batch) for _ in range(load.batches)]
            began_s, tokens = time.monotonic(), 0
            for batch in batches:
                ids = torch.tensor(batch)
                mask = torch.ones_like(ids)
                output = model.generate(ids, attention_mask=mask, generation_config=options)
                tokens += output[:, INPUT:].numel()
            return Taken(tokens_per_s=tokens / (time.monotonic() - began_s))

        yield Pair(ours=ours, theirs=theirs)
