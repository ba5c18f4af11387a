"""Hugging Face transformers: `generate` over static batches, as people use it."""

import gc
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import transformers
from transformers import CompileConfig, GenerationConfig, LogitsProcessorList

from sweeper.decoding import Beam, beams, draws
from sweeper.engines import Clock, Event, Request, host_memory, weights
from sweeper.engines.device_memory import PeakMemory, shortage
from sweeper.engines.static_batch import TokenTimes, batch_events, batch_positions, left_padded
from sweeper.engines.transformers_decoding import (
    DecodingTally,
    Seen,
    Steps,
    batch_seed,
    strategy,
)
from sweeper.engines.transformers_script import script
from sweeper.engines.transformers_settings import (
    generation_options,
    notes,
    refuse_other_than_asked,
    refuse_unavailable,
    uses_graphs,
)
from sweeper.engines.transformers_traits import TransformersTraits
from sweeper.errors import EngineError, Infeasible, SweeperError, WrongSetting
from sweeper.spec import Settings, Sizes

OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""What torch's allocators and libraries say beside `OutOfMemoryError`."""
Made = TypeVar("Made")


class TransformersEngine(TransformersTraits):
    """Static batches on one GPU, or on the CPU where `devices` is empty.

    `engine.options` are further keyword arguments of `generate`. With `engine.compile` the cache
    is static and decoding steps are compiled, as `generate` offers it; on a GPU `engine.graphs`
    then has CUDA graphs replay them.
    """

    def __init__(
        self, settings: Settings, sizes: Sizes, devices: Sequence[str], clock: Clock
    ) -> None:
        self._settings = settings
        self._sizes = sizes
        self._devices = tuple(devices)
        self._clock = clock
        self._times = TokenTimes(clock)
        self._beams = Steps()
        self._decoded = DecodingTally()
        self._device: Any = None
        self.model: Any = None
        """The transformers model, from `load` to `close`."""
        self._graphs_compiled_before = 0
        self._generated_tokens = 0
        self._peak = PeakMemory(self._allocated_bytes, self._forget_allocated)
        self.last_tokens: Any = None
        """Token ids that the last batch generated, a row for each request (a tensor)."""

    def load(self) -> Mapping[str, Any]:
        """Build the model on its device.

        Raises:
            Infeasible: a setting that is not available here, or weights that do not fit.
            WrongSetting: transformers chose another precision or attention than was asked.
            EngineError: the model cannot be had, or the GPUs are not those of the lease.
        """
        spec, model = self._settings.engine, self._settings.model
        refuse_unavailable(self._settings)
        self._device = claim(self._devices)
        torch.set_num_threads(threads())
        config = weights.read_config(model)
        self.model = within_memory(
            lambda: weights.build(model, config, spec.dtype, spec.attention, self._device)
        )
        # What a batch's options leave open, `generate` takes from here: a checkpoint's own
        # end-of-sequence token and sampling must not be found.
        self.model.generation_config = GenerationConfig()
        if spec.compile:
            # Every batch size is compiled on its own; beyond the limit torch would silently
            # go on uncompiled.
            torch._dynamo.config.recompile_limit = 8 + 2 * len(self._sizes.batch_sizes)
            torch._dynamo.config.fail_on_recompile_limit_hit = True
            self._graphs_compiled_before = compiled_graphs()
        self._peak.forget()
        self._peak.keep()
        resolved = self._resolved()
        refuse_other_than_asked(spec, resolved)
        return resolved

    def generate(
        self, requests: Sequence[Request], settings: Settings
    ) -> Generator[Event, None, None]:
        """One static batch; its events come when it is done, `progress` tells meanwhile.

        Raises:
            Infeasible: it needs more memory or positions than there are.
            WrongSetting: compilation or a way of decoding was asked for and did not happen.
            EngineError: anything else.
        """
        submitted_s = self._clock.now()
        self._refuse_impossible(requests, beams(strategy(settings)))
        self._times.begin()
        self.last_tokens = None
        try:
            self.last_tokens = within_memory(lambda: self._run(requests, settings))
        except Infeasible:
            self._peak.forget()
            raise
        self._peak.keep()
        self._check_compiled()
        self._generated_tokens += sum(request.output_tokens for request in requests)
        yield from batch_events(requests, submitted_s, self._times.times_s)

    def serve(
        self, source: Iterator[Request], in_flight: int, settings: Settings
    ) -> Generator[Event, None, None]:
        """Not available: `generate` of transformers batches statically.

        Raises:
            Infeasible: always.
        """
        raise Infeasible("transformers batches statically: workload.batching=static")

    def progress(self) -> int:
        """Decoding steps since load; another thread may ask while a batch runs."""
        return self._times.steps + self._beams.steps

    def counts(self) -> Mapping[str, float]:
        """Peak bytes (of the GPU; without one, of the process) and tokens generated, since load.

        A batch that did not fit counts in neither.
        """
        return {
            "peak_memory_bytes": float(self._peak.most_bytes),
            "generated_tokens": float(self._generated_tokens),
            **self._decoded.counts(),
        }

    def launch_command(self) -> str:
        """A shell command that runs this configuration's largest batch with transformers alone."""
        device = "cuda" if self._devices else "cpu"
        return script(self._settings, self._sizes, device, threads())

    def close(self) -> None:
        """Free the model and what was compiled for it."""
        was_loaded, self.model, self.last_tokens = self.model is not None, None, None
        if was_loaded and self._settings.engine.compile:
            torch._dynamo.reset()
        free_caches()

    def _run(self, requests: Sequence[Request], settings: Settings) -> Any:
        spec, asked = self._settings.engine, strategy(settings)
        options = GenerationConfig(
            **generation_options(spec, self._sizes, asked),
            max_new_tokens=max(request.output_tokens for request in requests),
        )
        if spec.compile:
            options.compile_config = compile_config(uses_graphs(spec, self._device.type))
        rest = options.update(**spec.options)
        prompts, mask = (torch.tensor(rows).to(self._device) for rows in left_padded(requests))
        seen_by = self._beams if isinstance(asked, Beam) else self._times
        if isinstance(asked, Beam):
            # A beam search takes no streamer.
            rest["logits_processor"] = LogitsProcessorList([self._beams])
        else:
            rest["streamer"] = self._times
        if draws(asked):
            torch.manual_seed(batch_seed(settings, requests[0]))
        before = self._random_state()
        output = self.model.generate(
            prompts, attention_mask=mask, generation_config=options, **rest
        )
        drew = not torch.equal(before, self._random_state())
        self._decoded.add(asked, Seen(requests=len(requests), rows=seen_by.rows, drew=drew))
        tokens = output[:, prompts.shape[1] :].clone()
        if isinstance(asked, Beam):
            self._times.all_at_once(tokens.shape[1])
        return tokens

    def _random_state(self) -> Any:
        if self._device.type == "cuda":
            return torch.cuda.get_rng_state(self._device)
        return torch.get_rng_state()

    def _allocated_bytes(self) -> int:
        if self._device.type == "cpu":
            return host_memory.peak_bytes()
        peak: int = torch.cuda.max_memory_allocated(self._device)
        return peak

    def _forget_allocated(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)

    def _refuse_impossible(self, requests: Sequence[Request], width: int) -> None:
        """More positions than the model has, or a KV cache that the host cannot hold.

        A host promises more memory than it has: asking for too much there is not refused, it
        ends in a killed process.
        """
        if self.model is None:
            raise EngineError("the engine is not loaded")
        asked, positions = batch_positions(requests), weights.positions(self.model.config)
        if positions is not None and asked > positions:
            raise Infeasible(f"{asked} positions asked, the model has {positions}")
        if self._device.type == "cpu":
            needed = len(requests) * width * asked * weights.cache_bytes_per_token(self.model)
            free = host_memory.free_bytes()
            if needed > free:
                raise Infeasible(f"out of memory: KV cache of {needed} bytes, {free} free")

    def _check_compiled(self) -> None:
        decoded = len(self._times.times_s) > 1
        if not decoded or not self._settings.engine.compile:
            return
        if compiled_graphs() == self._graphs_compiled_before:
            raise WrongSetting("engine.compile was asked, transformers did not compile this model")

    def _resolved(self) -> dict[str, Any]:
        spec, model, config = self._settings.engine, self._settings.model, self.model.config
        dtype = str(self.model.dtype).removeprefix("torch.")
        return {
            "engine": "transformers",
            "engine_version": transformers.__version__,
            "torch_version": torch.__version__,
            "model": model.shape if model.shape and model.weights != "auto" else model.id,
            "model_type": config.model_type,
            "revision": getattr(config, "_commit_hash", None) or model.revision,
            "weights": weights.weight_facts(self.model, model),
            "weight_bytes": weights.weight_bytes(self.model),
            "vocabulary": config.get_text_config().vocab_size,
            "max_positions": weights.positions(config),
            "device": str(self._device),
            "devices": list(self._devices),
            "threads": torch.get_num_threads(),
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "mode": "offline",
            "batching": "static",
            "dtype": dtype,
            "tensor_parallel": 1,
            "pipeline_parallel": 1,
            "data_parallel": 1,
            "compile": spec.compile,
            "graphs": uses_graphs(spec, self._device.type),
            "quantization": None,
            "kv_cache": "static" if spec.compile else "dynamic",
            "kv_cache_dtype": dtype,
            "speculative": None,
            "chunked_prefill": False,
            "prefix_caching": False,
            "attention": config._attn_implementation,
            "max_batched_tokens": None,
            "options": dict(spec.options),
            "notes": notes(spec, self._device.type),
        }


def claim(devices: Sequence[str]) -> Any:
    """The torch device that is exactly the leased GPU; the CPU where there is none.

    Raises:
        EngineError: torch sees no GPU, or others than those.
    """
    if not devices:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise EngineError(f"leased {', '.join(devices)}, but torch {torch.__version__} sees no GPU")
    seen = [
        f"GPU-{torch.cuda.get_device_properties(index).uuid}"
        for index in range(torch.cuda.device_count())
    ]
    if sorted(seen) != sorted(devices):
        raise EngineError(f"leased {', '.join(devices)}, but torch sees {', '.join(seen)}")
    return torch.device("cuda", 0)


def threads() -> int:
    """Every CPU this process may use, or as many as `OMP_NUM_THREADS` says."""
    stated = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(stated) if stated.isdecimal() else len(os.sched_getaffinity(0))


def compile_config(graphs: bool) -> Any:
    """How decoding steps are compiled: every batch size for itself.

    torch's default would compile the second size it meets with variable shapes, so that a point's
    speed depended on which came before it.
    """
    options = CompileConfig(dynamic=False, mode="reduce-overhead" if graphs else "default")
    options._compile_all_devices = True
    return options


def compiled_graphs() -> int:
    """Graphs that torch has captured for compilation in this process."""
    count: int = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    return count


def within_memory(make: Callable[[], Made]) -> Made:
    """What `make` returns.

    Raises:
        Infeasible: memory ran out; what was taken is free again.
        EngineError: anything else that went wrong.
    """
    try:
        return make()
    except SweeperError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}".strip()
        exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
            sign in text for sign in OUT_OF_MEMORY
        )
        if not exhausted:
            raise EngineError(text) from error
        reason = f"out of memory: {shortage(error)}"
    # Outside the handler, so that the frames of the failed call, and their tensors, are gone.
    free_caches()
    raise Infeasible(reason)


def free_caches() -> None:
    """Return what nobody refers to any more to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
