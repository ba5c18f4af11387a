"""transformers' own continuous batching: its manager's thread, and the steps that come out of it.

The manager's loop runs in a thread of its own and routes what every step gave through one object.
Ours stands in its place, so that a step is told of as one, at the moment its tokens were there.
"""

import threading
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching.continuous_api import OutputRouter
from transformers.generation.continuous_batching.requests import RequestStatus

from sweeper.engines import Clock, Event, Request
from sweeper.engines.vllm_events import Output, Running
from sweeper.errors import EngineError

ATTENTIVE_S = 0.5
"""How often a waiting reader looks whether the loop still lives."""
DRAIN_S = 60.0
"""What is cancelled ends with the step under way, within less than this."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of the loop gave, and when."""

    t_s: float
    outputs: tuple[Output, ...]


class Steps(OutputRouter):  # type: ignore[misc]
    """In place of the manager's router: keeps steps, whole and in the order of time."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._told: dict[str, int] = {}
        self._steps: deque[Step] = deque()
        self._changed = threading.Condition()
        self.count = 0
        """Steps that gave tokens."""

    def deliver(self, output: Any) -> None:
        """Called by the loop, where a request failed."""
        self.deliver_batch([output])

    def deliver_batch(self, outputs: list[Any]) -> None:
        """Called by the loop when a step's tokens are in host memory."""
        found = tuple(self._output(each) for each in outputs)
        with self._changed:
            self._steps.append(Step(self._clock.now(), found))
            self.count += 1
            self._changed.notify_all()

    def sending(self) -> tuple[float, list[Step]]:
        """This moment, and the steps that came before it."""
        with self._changed:
            came = list(self._steps)
            self._steps.clear()
            return self._clock.now(), came

    def wait(self) -> list[Step]:
        """The steps that have come, as soon as there is one; none after a while without."""
        with self._changed:
            if not self._steps:
                self._changed.wait(ATTENTIVE_S)
            came = list(self._steps)
            self._steps.clear()
            return came

    def forget(self) -> None:
        """What came, and of which requests, is of no interest any more."""
        with self._changed:
            self._steps.clear()
            self._told.clear()

    def _output(self, given: Any) -> Output:
        """The tokens that are new: a streamed output repeats those before it."""
        before, now = self._told.get(given.request_id, 0), len(given.generated_tokens)
        finished = given.is_finished()
        if finished:
            self._told.pop(given.request_id, None)
        else:
            self._told[given.request_id] = now
        reason = "length" if given.status == RequestStatus.FINISHED else given.error
        return Output(given.request_id, now - before, finished, reason if finished else None)


class Continuous:
    """The manager of a loaded model, from its start to `close`."""

    def __init__(
        self, model: Any, options: Mapping[str, Any], generation: GenerationConfig, clock: Clock
    ) -> None:
        self._manager = model.init_continuous_batching(
            generation_config=generation,
            continuous_batching_config=ContinuousBatchingConfig(**options),
        )
        self._steps = Steps(clock)
        self._manager.output_router = self._steps
        self._running = Running()
        self.attention: str = model.config._attn_implementation

    @property
    def steps(self) -> int:
        """Steps that gave tokens; another thread may ask."""
        return self._steps.count

    @property
    def generated_tokens(self) -> int:
        """Tokens of all requests."""
        return self._running.generated_tokens

    @property
    def draws(self) -> bool:
        """Whether it draws tokens by chance, once it has started."""
        return bool(self._manager.batch_processor.do_sample)

    def start(self) -> Mapping[str, Any]:
        """Make the cache and start the loop; what the manager took."""
        self._manager.warmup()
        self._manager.start()
        taken = self._manager.continuous_batching_config
        cache = self._manager.batch_processor.cache
        return {
            "page_tokens": taken.page_size,
            "blocks": cache.num_blocks,
            "max_batch_tokens": cache.max_batch_tokens,
            "max_requests_per_batch": taken.max_requests_per_batch,
            "block_sharing": cache.use_prefix_sharing,
            "cuda_graphs": any(taken.cuda_graph_booleans),
            "asynchronous": bool(taken.use_async_batching),
            "scheduler": taken.scheduler_type,
            "attention": self.attention,
        }

    def serve(self, source: Iterator[Request], in_flight: int) -> Generator[Event, None, None]:
        """A closed loop: whenever a request ends, the source's next is handed over.

        Raises:
            EngineError: the loop has ended.
        """
        more = True
        try:
            while True:
                while more and len(self._running) < in_flight:
                    request = next(source, None)
                    if request is None:
                        more = False
                        break
                    sent_s, came = self._steps.sending()
                    self._hand_over(request)
                    for step in came:
                        yield from self._running.events(step.outputs, step.t_s)
                    yield Event("admitted", sent_s, request.index)
                if not len(self._running):
                    return
                for step in self._next():
                    yield from self._running.events(step.outputs, step.t_s)
        finally:
            self._cancel()

    def close(self) -> None:
        """End the loop's thread and free its cache."""
        if self._manager.is_running():
            self._manager.stop(block=True, timeout=DRAIN_S, hard_stop=True)
        self._manager.destroy()

    def _hand_over(self, request: Request) -> None:
        name = self._running.begin(request)[0].name
        self._manager.add_request(
            list(request.prompt_token_ids),
            request_id=name,
            max_new_tokens=request.output_tokens,
            streaming=True,
        )

    def _next(self) -> list[Step]:
        while not (came := self._steps.wait()):
            self._lives()
        return came

    def _lives(self) -> None:
        fault = self._manager.background_thread_status.fatal_error
        if fault is not None:
            raise fault
        if not self._manager.is_running():
            raise EngineError("the loop of continuous batching has ended")

    def _cancel(self) -> None:
        """Whoever stops listening leaves requests behind: they end before the next ones begin."""
        names = self._running.names
        self._running.clear()
        for name in names:
            self._manager.cancel_request(name)
        while names and self._manager.is_running() and self._busy():
            self._steps.wait()
        self._steps.forget()

    def _busy(self) -> bool:
        manager = self._manager
        return not manager.input_queue.empty() or manager.batch_processor.has_pending_requests()
