"""Hugging Face transformers: `generate` over static batches, as people use it."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from sweeper.decoding import Beam, Decoding, beams, draws
from sweeper.engines import Clock, Event, Request, Served, host_memory, weights
from sweeper.engines.device_memory import PeakMemory
from sweeper.engines.static_batch import TokenTimes, batch_events, batch_positions, left_padded
from sweeper.engines.transformers_compile import CompiledSteps, allow, compile_config
from sweeper.engines.transformers_continuous import Continuous
from sweeper.engines.transformers_decoding import (
    DecodingTally,
    Seen,
    Steps,
    batch_seed,
    decoding_options,
    strategy,
)
from sweeper.engines.transformers_device import claim, free_caches, threads, within_memory
from sweeper.engines.transformers_quantization import quantize
from sweeper.engines.transformers_resolved import Loaded, resolved
from sweeper.engines.transformers_script import script
from sweeper.engines.transformers_settings import (
    PAGE_TOKENS,
    batching_options,
    blocks,
    generation_options,
    refuse_other_than_asked,
    refuse_static_only,
    refuse_unavailable,
    refuse_uncompiled,
    uses_graphs,
)
from sweeper.engines.transformers_speculation import (
    Drafts,
    assistance,
    assisted_options,
    draft_of,
    draft_options,
    refuse_several,
)
from sweeper.engines.transformers_traits import TransformersTraits
from sweeper.errors import EngineError, Infeasible, WrongSetting
from sweeper.spec import ModelSpec, Settings, Sizes
from sweeper.speculation import Draft


class TransformersEngine(TransformersTraits):
    """Static batches and continuous ones on one GPU, or on the CPU where `devices` is empty.

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
        self._batched: Continuous | None = None
        self._batched_as: Decoding | None = None
        self._served_steps = 0
        self._draft: Any = None
        self._drafts = Drafts()
        self._compiled = CompiledSteps()
        self._generated_tokens = 0
        self._batches: Mapping[str, Any] | None = None
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
        self.model = self._built(model)
        quantized = None
        if (how := spec.quantization) is not None:
            quantized = within_memory(lambda: quantize(self.model, how))
            free_caches()
        asked, draft = assistance(spec), draft_of(self._settings)
        if draft is not None and isinstance(asked, Draft):
            self._draft = self._built(draft)
            self._draft.generation_config = GenerationConfig(**draft_options(asked))
            self._refuse_strange_draft()
        if asked is not None:
            make = self.model._get_candidate_generator
            self.model._get_candidate_generator = self._drafts.counting(make)
        if spec.compile:
            allow(len(self._sizes.batch_sizes))
            self._compiled.watch(self.model)
        self._peak.forget()
        self._peak.keep()
        loaded = Loaded(
            model=self.model,
            draft=self._draft,
            device=self._device,
            devices=self._devices,
            quantization=quantized,
        )
        found = resolved(self._settings, loaded)
        refuse_other_than_asked(spec, found)
        if self._settings.workload.batching == "continuous":
            self._batching(self._settings)
        return {**found, "continuous": self._batches}

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
        width = beams(strategy(settings))
        refuse_several(assistance(self._settings.engine), len(requests), beams=width)
        refuse_uncompiled(self._settings.engine, strategy(settings))
        self._refuse_impossible(requests, width)
        self._end_batching()
        self._times.begin()
        self.last_tokens = None
        try:
            self.last_tokens = within_memory(lambda: self._run(requests, settings))
        except Infeasible:
            self._peak.forget()
            raise
        self._peak.keep()
        self._generated_tokens += sum(request.output_tokens for request in requests)
        yield from batch_events(requests, submitted_s, self._times.times_s)

    def serve(
        self, source: Iterator[Request], in_flight: int, settings: Settings
    ) -> Generator[Event, None, None]:
        """A closed loop through transformers' own continuous batching.

        Its cache is made for the launch's largest batch, and kept until a static batch comes.

        Raises:
            Infeasible: it needs more memory, positions or requests at a time than there are, or is
                asked for what only static batches have.
            EngineError: anything else.
        """
        if in_flight > self._sizes.max_batch_size:
            most = self._sizes.max_batch_size
            raise Infeasible(f"{in_flight} requests in flight, the launch is made for {most}")
        batching = self._batching(settings)
        before = batching.generated_tokens
        events = batching.serve(map(self._fitting, source), in_flight)
        try:
            with closing(events):
                while (event := within_memory(lambda: next(events, None))) is not None:
                    yield event
            self._peak.keep()
        except EngineError:
            self._end_batching()
            self._peak.forget()
            raise
        finally:
            self._generated_tokens += batching.generated_tokens - before

    def progress(self) -> int:
        """Decoding steps since load; another thread may ask while a batch runs."""
        served = 0 if self._batched is None else self._batched.steps
        return self._times.steps + self._beams.steps + self._served_steps + served

    def counts(self) -> Mapping[str, float]:
        """Peak bytes (of the GPU; without one, of the process) and tokens generated, since load.

        A batch that did not fit counts in neither.
        """
        return {
            "peak_memory_bytes": float(self._peak.most_bytes),
            "generated_tokens": float(self._generated_tokens),
            **self._decoded.counts(),
            **(self._compiled.counts() if self._settings.engine.compile else {}),
            **(self._drafts.counts() if self._settings.engine.speculative is not None else {}),
        }

    def launch_command(self) -> str:
        """A shell command that runs this configuration's largest batch with transformers alone."""
        device = "cuda" if self._devices else "cpu"
        return script(self._settings, self._sizes, device, threads())

    def served(self, port: int) -> Served | None:
        """It has no server."""
        return None

    def close(self) -> None:
        """Free the model and what was compiled for it."""
        self._end_batching()
        was_loaded, self.model, self.last_tokens = self.model is not None, None, None
        self._draft = None
        if was_loaded and self._settings.engine.compile:
            torch._dynamo.reset()
        free_caches()

    def _batching(self, settings: Settings) -> Continuous:
        """The manager that decodes as asked; another one ends."""
        if self.model is None:
            raise EngineError("the engine is not loaded")
        spec, asked = self._settings.engine, strategy(settings)
        refuse_static_only(spec, asked)
        if self._batched is not None and self._batched_as == asked:
            return self._batched
        self._end_batching()
        self._refuse_cache(blocks(self._sizes) * PAGE_TOKENS)
        options = batching_options(
            spec,
            self._sizes,
            graphs=spec.graphs and self._device.type == "cuda",
            seed=settings.workload.seed,
        )
        generation = GenerationConfig(**decoding_options(asked), eos_token_id=-1)
        made = within_memory(lambda: Continuous(self.model, options, generation, self._clock))
        self._batched, self._batched_as = made, asked
        self._batches = within_memory(made.start)
        if made.draws != draws(asked):
            raise WrongSetting(f"workload.decoding: {asked} was asked, transformers does another")
        return made

    def _end_batching(self) -> None:
        if self._batched is not None:
            self._served_steps += self._batched.steps
            self._batched.close()
            self._batched = None
            free_caches()

    def _fitting(self, request: Request) -> Request:
        """Raises `Infeasible` for a request that is longer than the launch was made for."""
        length, longest = batch_positions([request]), self._sizes.max_model_len
        if length > longest:
            raise Infeasible(f"{length} positions asked, the launch is made for {longest}")
        return request

    def _run(self, requests: Sequence[Request], settings: Settings) -> Any:
        spec, asked = self._settings.engine, strategy(settings)
        options = GenerationConfig(
            **generation_options(spec, self._sizes, asked) | assisted_options(assistance(spec)),
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
        if self._draft is not None:
            rest["assistant_model"] = self._draft
        assisted, compiled = self._drafts.requests, self._compiled.steps
        if draws(asked):
            torch.manual_seed(batch_seed(settings, requests[0]))
        before = self._random_state()
        output = self.model.generate(
            prompts, attention_mask=mask, generation_config=options, **rest
        )
        drew = not torch.equal(before, self._random_state())
        if spec.speculative is not None:
            self._drafts.check(assisted, requests[0])
        self._decoded.add(asked, Seen(requests=len(requests), rows=seen_by.rows, drew=drew))
        if spec.compile:
            graphs = uses_graphs(spec, self._device.type)
            self._compiled.check(output.shape[1] - prompts.shape[1] - 1, compiled, graphs=graphs)
        tokens = output[:, prompts.shape[1] :].clone()
        if isinstance(asked, Beam):
            self._times.all_at_once(tokens.shape[1])
        return tokens

    def _built(self, model: ModelSpec) -> Any:
        spec, config = self._settings.engine, weights.read_config(model)
        built = within_memory(
            lambda: weights.build(model, config, spec.dtype, spec.attention, self._device)
        )
        # What a batch's options leave open, `generate` takes from here: a checkpoint's own
        # end-of-sequence token and sampling must not be found.
        built.generation_config = GenerationConfig()
        return built

    def _refuse_strange_draft(self) -> None:
        """Tokens of another vocabulary would be taken for those of the same number."""
        sizes = [each.config.get_text_config().vocab_size for each in (self._draft, self.model)]
        if sizes[0] != sizes[1]:
            raise Infeasible(
                f"engine.speculative: the draft has a vocabulary of {sizes[0]}, the model one of "
                f"{sizes[1]}"
            )

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
            self._refuse_cache(len(requests) * width * asked)

    def _refuse_cache(self, tokens: int) -> None:
        """A KV cache that the host cannot hold."""
        needed, free = tokens * weights.cache_bytes_per_token(self.model), host_memory.free_bytes()
        if self._device.type == "cpu" and needed > free:
            raise Infeasible(f"out of memory: KV cache of {needed} bytes, {free} free")
