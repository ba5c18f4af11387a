"""An engine of arithmetic: it generates no tokens, but takes the time and power they would.

For rehearsals and tests. What a launch varies in (its speed, its power, each window's noise) is
drawn from its seed, so the same launch measures the same.
"""

import math
import random
import subprocess
from collections import Counter
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from sweeper.decoding import beam_width
from sweeper.engines import Clock, Event, Request, Served
from sweeper.engines.simulated_batching import continuous, static
from sweeper.engines.simulated_decoding import Decoding, Speculative, TokenByToken
from sweeper.engines.simulated_failures import fail_on_request
from sweeper.engines.simulated_options import (
    UNKNOWN_SETTINGS,
    UNTIMED_METERS,
    SimulatedOptions,
    read_options,
    stood_for,
)
from sweeper.engines.simulated_physics import Physics
from sweeper.engines.simulated_power import Boards, slowness
from sweeper.errors import EngineError, Infeasible, StudyError
from sweeper.feasibility import impossible
from sweeper.gpu_data import Gpu, gpu
from sweeper.roofline import batched_tokens, memory
from sweeper.shapes import Shape, shape_of_model
from sweeper.spec import Settings, Sizes
from sweeper.speculation import Ngram, acceptance, draft_model, draft_shape, speculation

LAUNCH_SD = 0.012
"""Relative standard deviation between launches, of time and of power."""
LOAD_SD = 0.06
NOISE_PERIOD_S = 20.0
"""A serving engine draws its noise anew this often, a static one for each batch."""
STEP_NOISES = 1024
HELPER = "sleep 86400 & child=$!; trap 'kill $child' TERM; wait $child"
"""A process with one of its own, as an engine's workers have; both end when it is terminated."""


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    """What a loaded engine computes with; the factors are this launch's own."""

    options: SimulatedOptions
    shape: Shape
    gpu: Gpu
    physics: Physics
    draft: Physics | None
    time_factor: float
    power_factor: float
    step_noises: Sequence[float]


class SimulatedEngine:
    """See `simulated_options.SimulatedOptions` for what it can be told.

    A device named like `H200/any-name` says its GPU type; without devices it makes its own.
    """

    streams = True
    continuous = True
    needs_gpu = False
    libraries = ()

    @classmethod
    def isolated(cls, settings: Settings) -> bool:
        return read_options(settings).isolated

    @classmethod
    def preflight(cls, settings: Settings) -> str | None:
        """Whether the options make sense and the shape is known."""
        try:
            read_options(settings)
            shape_of_model(settings.model)
            draft_shape(settings)
        except StudyError as error:
            return str(error)
        return None

    def __init__(
        self, settings: Settings, sizes: Sizes, devices: Sequence[str], clock: Clock
    ) -> None:
        count = settings.engine.gpus
        self.devices = tuple(devices) or tuple(f"simulated-{place}" for place in range(count))
        self._settings = settings
        self._sizes = sizes
        self._clock = clock
        self._boards: Boards | None = None
        self._loaded: _Loaded | None = None
        self._helpers: list[subprocess.Popen[bytes]] = []
        self._random = random.Random()
        self._noise = (1.0, 1.0)
        self._noise_ends_s = 0.0
        self._steps = 0
        self._counts: Counter[str] = Counter()
        self._batches: Counter[int] = Counter()
        self._peak_bytes = 0.0

    def load(self) -> Mapping[str, Any]:
        """See `Engine.load`.

        Raises:
            StudyError: the options, the shape or the GPU type do not exist.
        """
        options = read_options(self._settings)
        shape = shape_of_model(self._settings.model)
        gpu_type = self._gpu_type(options)
        engine = self._settings.engine
        if len(self.devices) != engine.gpus:
            raise EngineError(f"{len(self.devices)} devices given, {engine.gpus} needed")
        self._start_helpers(options.helpers)
        fail_on_request(options, "load", None)
        if options.oom_at_load:
            raise Infeasible("out of memory while loading, as engine.options.oom_at_load asks")
        self._refuse(shape, gpu_type)
        self._random = random.Random(f"{options.seed}/{shape.name}/{engine!r}")
        modelled = stood_for(self._settings).engine
        limit_w = self._settings.gpu.power_limit_w
        of = partial(Physics, modelled, gpu=gpu_type, limit_w=limit_w)
        physics, drafting = of(shape), draft_shape(self._settings)
        draft = of(drafting, scheduled=False) if drafting else None
        loaded = _Loaded(
            options=options,
            shape=shape,
            gpu=gpu_type,
            physics=physics,
            draft=draft,
            time_factor=self._factor(LAUNCH_SD) * max(slowness(name) for name in self.devices),
            power_factor=self._factor(LAUNCH_SD),
            step_noises=[self._factor(options.noise) for _ in range(STEP_NOISES)],
        )
        load_s = options.load_s
        if load_s is None:
            load_s = physics.load_s() + (draft.read_s() if draft else 0.0)
            load_s *= self._factor(LOAD_SD)
        boards = self._meter()
        boards.draw(physics.load_w)
        self._clock.sleep(load_s)
        boards.draw(physics.context_idle_w)
        self._loaded = loaded
        return self._resolved(loaded)

    def generate(
        self, requests: Sequence[Request], settings: Settings
    ) -> Generator[Event, None, None]:
        lengths = [len(each.prompt_token_ids) + each.output_tokens for each in requests]
        loaded = self._begin(settings, len(requests), max(lengths, default=0))
        self._draw_noise(loaded)
        self._noise_ends_s = math.inf
        try:
            yield from self._batch(loaded, requests, settings)
            self._batches[settings.workload.batch_size] += 1
        finally:
            self._meter().draw(loaded.physics.context_idle_w)

    def serve(
        self, source: Iterator[Request], in_flight: int, settings: Settings
    ) -> Generator[Event, None, None]:
        workload = settings.workload
        loaded = self._begin(settings, in_flight, workload.input_tokens + workload.output_tokens)
        self._noise_ends_s = 0.0
        events = self._stream(loaded, source, in_flight, settings)
        finished = 0
        try:
            for event in events:
                yield event
                if event.kind == "finished":
                    finished += 1
                    if finished % in_flight == 0:
                        self._batches[workload.batch_size] += 1
                        self._fail_while_running(loaded, settings)
        finally:
            self._meter().draw(loaded.physics.context_idle_w)

    def progress(self) -> int:
        return self._steps

    def counts(self) -> Mapping[str, float]:
        counted = {
            "steps": float(self._steps),
            "tokens_computed": float(self._counts["tokens"]),
            "peak_memory_bytes": self._peak_bytes,
        }
        if self._settings.engine.speculative is not None:
            for name in ("draft_tokens_proposed", "draft_tokens_accepted"):
                counted[name] = float(self._counts[name])
        return counted

    def launch_command(self) -> str:
        model = self._settings.model.id or self._settings.model.shape
        gpus = f"{len(self.devices)} GPU{'s' * (len(self.devices) != 1)}"
        return f"# a simulation of {model} on {gpus}: nothing to launch"

    def energy_j(self) -> Mapping[str, float]:
        """Joules of each device so far, on the launch's clock, idle time included."""
        return self._meter().energy_j()

    def host_j(self) -> Mapping[str, float]:
        """Joules of the node's processors (`cpu`) and memory (`dram`), as `energy_j`."""
        return self._meter().host_j()

    def idle_j(self, device: str) -> float:
        """Joules of a GPU of the node that stands idle, as `energy_j`."""
        return self._meter().idle_j(device)

    def temperature_c(self) -> dict[str, float]:
        """Of each device now, in degrees Celsius."""
        return self._meter().temperature_c()

    def power_trace(self) -> list[tuple[float, str, float]]:
        """Ten samples (t_s, device, watts) a second and device, at most half an hour back."""
        return self._meter().trace()

    def served(self, port: int) -> Served | None:
        """It has no server."""
        return None

    def close(self) -> None:
        if self._loaded is not None:
            self._meter().draw(self._loaded.physics.idle_w)
        self._loaded = None
        for helper in self._helpers:
            helper.terminate()
        for helper in self._helpers:
            helper.wait()
        self._helpers.clear()

    def _begin(self, settings: Settings, batch: int, length: int) -> _Loaded:
        loaded = self._loaded
        if loaded is None:
            raise EngineError("the engine is not loaded")
        if not 0 < batch <= self._sizes.max_batch_size:
            raise EngineError(f"batch of {batch}, loaded for 1 to {self._sizes.max_batch_size}")
        if length > self._sizes.max_model_len:
            raise EngineError(f"{length} tokens, loaded for {self._sizes.max_model_len}")
        limit = loaded.options.oom_above_batch
        if limit is not None and batch > limit:
            raise Infeasible(f"out of memory above batch {limit}, as engine.options asks")
        asked = replace(settings.workload, batch_size=batch, input_tokens=length, output_tokens=0)
        modelled = replace(stood_for(settings), workload=asked)
        needed = memory(modelled, loaded.shape, loaded.gpu, self._sizes)
        if not needed.fits:
            raise Infeasible(needed.reason)
        self._peak_bytes = max(self._peak_bytes, needed.needed_bytes)
        self._fail_while_running(loaded, settings)
        return loaded

    def _batch(
        self, loaded: _Loaded, requests: Sequence[Request], settings: Settings
    ) -> Generator[Event, None, None]:
        """One pass over all prompts, unless a stated budget bounds passes."""
        if self._settings.engine.max_batched_tokens is not None:
            return self._stream(loaded, iter(requests), len(requests), settings)
        together = self._decoding(loaded, settings)
        return static(requests, self._step, self._clock.now(), together)

    def _stream(
        self, loaded: _Loaded, source: Iterator[Request], in_flight: int, settings: Settings
    ) -> Generator[Event, None, None]:
        engine = self._settings.engine
        return continuous(
            source,
            in_flight,
            batched_tokens(engine, self._sizes),
            self._step,
            self._clock.now,
            self._decoding(loaded, settings),
            chunked=engine.chunked_prefill is not False,
        )

    def _decoding(self, loaded: _Loaded, settings: Settings) -> Decoding:
        asked = speculation(self._settings.engine)
        chance = None if asked is None else acceptance(asked)
        if asked is None or chance is None:
            return TokenByToken(beam_width(settings.workload))
        seed = loaded.options.seed
        return Speculative(asked.tokens, chance, seed, self._draft_pass, self._counts)

    def _step(self, requests: int, tokens: int, attended: float, cached: float) -> float:
        loaded = self._working()
        self._spend(loaded, *loaded.physics.step(requests, tokens, attended, cached))
        self._steps += 1
        self._counts["tokens"] += tokens
        return self._clock.now()

    def _draft_pass(self, tokens: int, attended: float, cached: float) -> None:
        loaded = self._working()
        if loaded.draft is not None:
            self._spend(loaded, *loaded.draft.step(0, tokens, attended, cached))

    def _working(self) -> _Loaded:
        if self._loaded is None:
            raise EngineError("the engine was closed while it worked")
        return self._loaded

    def _spend(self, loaded: _Loaded, seconds: float, watts: float) -> None:
        """Let a pass go by at its power, with the launch's factors and its noise."""
        boards, clock = self._meter(), self._clock
        if clock.now() >= self._noise_ends_s:
            self._draw_noise(loaded)
            self._noise_ends_s = clock.now() + NOISE_PERIOD_S
        slow, hungry = self._noise
        boards.draw(watts * loaded.power_factor * hungry)
        jitter = loaded.step_noises[self._steps % STEP_NOISES]
        clock.sleep(seconds * loaded.time_factor * slow * jitter * boards.slowdown())

    def _meter(self) -> Boards:
        if self._boards is None:
            options = read_options(self._settings)
            gpu_type = self._gpu_type(options)
            shape = shape_of_model(self._settings.model)
            idle_w = Physics(self._settings.engine, shape, gpu_type).idle_w
            cap_w = min(self._settings.gpu.power_limit_w or gpu_type.tdp_w, gpu_type.tdp_w)
            self._boards = Boards(self.devices, self._clock, idle_w, gpu_type.tdp_w, cap_w)
        return self._boards

    def _gpu_type(self, options: SimulatedOptions) -> Gpu:
        named, said, _ = self.devices[0].partition("/")
        return gpu(named if said else options.gpu)

    def _refuse(self, shape: Shape, gpu_type: Gpu) -> None:
        """Raise `Infeasible` where no launch of these sizes can exist."""
        settings = self._settings
        for key, neutral in UNKNOWN_SETTINGS.items():
            part, name = key.split(".")
            value = getattr(getattr(settings, part), name)
            if value not in neutral:
                raise Infeasible(f"{key}: the simulated engine knows nothing of {value!r}")
        if settings.gpu.clock_mhz is not None and settings.meter in UNTIMED_METERS:
            raise Infeasible("gpu.clock_mhz: the simulated engine knows nothing of clocks")
        if isinstance(speculation(settings.engine), Ngram):
            raise Infeasible(
                "engine.speculative: what ngram finds in a text the simulated engine cannot know"
            )
        reason = impossible(settings, shape, self._sizes)
        if reason is not None:
            raise Infeasible(reason)
        one = replace(settings.workload, batch_size=1, input_tokens=1, output_tokens=0)
        modelled = replace(stood_for(settings), workload=one)
        least = memory(modelled, shape, gpu_type, self._sizes)
        if not least.fits:
            raise Infeasible(least.reason)

    def _resolved(self, loaded: _Loaded) -> Mapping[str, Any]:
        engine, draft = self._settings.engine, draft_model(self._settings)
        return {
            "engine": "simulated",
            "gpu": loaded.gpu.name,
            "devices": list(self.devices),
            "shape": loaded.shape.name,
            "vocabulary": loaded.shape.vocab,
            "dtype": engine.dtype,
            "tensor_parallel": engine.tensor_parallel,
            "pipeline_parallel": engine.pipeline_parallel,
            "data_parallel": engine.data_parallel,
            "graphs": engine.graphs,
            "compile": engine.compile,
            "max_batched_tokens": batched_tokens(engine, self._sizes),
            "chunked_prefill": engine.chunked_prefill is not False,
            "power_limit_w": self._settings.gpu.power_limit_w,
            "speculative": engine.speculative and dict(engine.speculative),
            "draft": draft and (draft.shape or draft.id),
            "max_model_len": self._sizes.max_model_len,
            "max_batch_size": self._sizes.max_batch_size,
            "time_factor": loaded.time_factor,
            "power_factor": loaded.power_factor,
            "options": asdict(loaded.options),
        }

    def _draw_noise(self, loaded: _Loaded) -> None:
        noise = loaded.options.noise
        self._noise = (self._factor(noise), self._factor(noise))

    def _factor(self, sd: float) -> float:
        return math.exp(self._random.gauss(0.0, sd))

    def _start_helpers(self, count: int) -> None:
        for _ in range(count):
            self._helpers.append(subprocess.Popen(["/bin/sh", "-c", HELPER]))

    def _fail_while_running(self, loaded: _Loaded, settings: Settings) -> None:
        size = settings.workload.batch_size
        ran = self._batches[size]
        if ran >= settings.measure.warmup.min_batches:
            fail_on_request(loaded.options, "window", size)
        elif ran == 0:
            fail_on_request(loaded.options, "warmup", size)
