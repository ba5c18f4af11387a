"""The two ways to drive vLLM: step by step from this process, or with its asynchronous engine.

Both give the outputs of one step of its scheduler at a time, and the moment when they were here.
"""

import asyncio
import queue
import threading
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from sweeper.engines import Clock
from sweeper.engines.vllm_processes import shut_down
from sweeper.engines.vllm_tally import Tally

Step = tuple[Sequence[Any], float]
"""vLLM's `RequestOutput`s of a step, and when they were in this process."""
STOP_S = 10.0
"""How long the thread of an event loop may take to end."""
_Made = TypeVar("_Made")


class Driver(Protocol):
    """What a `VllmEngine` needs of vLLM; whatever goes wrong there is raised as it is."""

    config: Any
    """The `VllmConfig` that it took."""

    def add(self, name: str, token_ids: Sequence[int], parameters: Any) -> None:
        """Hand a request over; it is with vLLM when this returns."""
        ...

    def step(self) -> Step:
        """Wait for the next step that was done."""
        ...

    def abort(self, names: Sequence[str]) -> None:
        """Take requests back."""
        ...

    def rest(self) -> None:
        """Let the scheduler rest, when what runs has been taken back."""
        ...

    def wake(self) -> None:
        """Let it schedule again."""
        ...

    def ask(self, method: str) -> list[Any]:
        """Call a method of every worker."""
        ...

    def shut_down(self) -> None:
        """End vLLM's processes."""
        ...


class Stepped:
    """`LLMEngine`: every step is asked for, and its outputs are there when the call returns."""

    def __init__(self, arguments: Any, tally: Tally, clock: Clock) -> None:
        from vllm.v1.engine.llm_engine import LLMEngine

        self._clock = clock
        self._engine = LLMEngine.from_engine_args(arguments, stat_loggers=[lambda *_: tally])
        self.config: Any = self._engine.vllm_config

    def add(self, name: str, token_ids: Sequence[int], parameters: Any) -> None:
        self._engine.add_request(name, {"prompt_token_ids": list(token_ids)}, parameters)

    def step(self) -> Step:
        outputs = self._engine.step()
        return outputs, self._clock.now()

    def abort(self, names: Sequence[str]) -> None:
        self._engine.abort_request(list(names))

    def rest(self) -> None:
        self._engine.sleep(level=0)

    def wake(self) -> None:
        self._engine.wake_up(tags=["scheduling"])

    def ask(self, method: str) -> list[Any]:
        found: list[Any] = self._engine.collective_rpc(method)
        return found

    def shut_down(self) -> None:
        shut_down(self._engine.engine_core)


class Streamed:
    """`AsyncLLM`, as `vllm serve` has it: every request is a stream that a task listens to.

    Its event loop runs in a thread of its own. Streams of one step are gathered again, as vLLM
    tells its statistics loggers when it has filled all of them.
    """

    def __init__(self, arguments: Any, tally: Tally, clock: Clock) -> None:
        self._clock = clock
        self._told: list[Any] = []
        self._steps: queue.SimpleQueue[Step | Exception] = queue.SimpleQueue()
        self._listeners: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._engine: Any = None
        try:
            self._engine = self._run(self._made(arguments, tally))
        except BaseException:
            self._stop_loop()
            raise
        self.config: Any = self._engine.vllm_config

    def add(self, name: str, token_ids: Sequence[int], parameters: Any) -> None:
        self._run(self._begin(name, list(token_ids), parameters))

    def step(self) -> Step:
        step = self._steps.get()
        if isinstance(step, Exception):
            raise step
        return step

    def abort(self, names: Sequence[str]) -> None:
        self._run(self._engine.abort(list(names)))

    def rest(self) -> None:
        self._run(self._engine.sleep(level=0))
        with suppress(queue.Empty):
            # What was told of requests that were taken back meanwhile.
            while True:
                self._steps.get_nowait()

    def wake(self) -> None:
        self._run(self._engine.wake_up(tags=["scheduling"]))

    def ask(self, method: str) -> list[Any]:
        found: list[Any] = self._run(self._engine.collective_rpc(method))
        return found

    def shut_down(self) -> None:
        try:
            self._run(self._ended())
        finally:
            self._stop_loop()
        context = self._engine.engine_core.ctx
        # vLLM leaves open the context that its asynchronous one shadows. Ending it waits for
        # sockets that are still open, so that is not done in this thread.
        shadowed = getattr(context, "_shadow_obj", context)
        ending = threading.Thread(target=shadowed.destroy, kwargs={"linger": 0}, daemon=True)
        ending.start()
        ending.join(STOP_S)

    async def _made(self, arguments: Any, tally: Tally) -> Any:
        from vllm.v1.engine.async_llm import AsyncLLM

        end = _EndOfStep(self._end_of_step)
        return AsyncLLM.from_engine_args(arguments, stat_loggers=[lambda *_: tally, lambda *_: end])

    async def _begin(self, name: str, token_ids: list[int], parameters: Any) -> None:
        stream = await self._engine.add_request(name, {"prompt_token_ids": token_ids}, parameters)
        listener = asyncio.create_task(self._listen(stream))
        self._listeners.add(listener)
        listener.add_done_callback(self._listeners.discard)

    async def _listen(self, stream: Any) -> None:
        try:
            finished = False
            while not finished:
                output = stream.get_nowait() or await stream.get()
                finished = output.finished
                self._told.append(output)
        except Exception as error:
            self._steps.put(error)

    def _end_of_step(self) -> None:
        """Called in the loop when all streams are filled: listeners come first, then this."""
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._told:
            self._steps.put((self._told, self._clock.now()))
            self._told = []

    async def _ended(self) -> None:
        self._engine.shutdown()
        for listener in self._listeners:
            listener.cancel()
        await asyncio.gather(*self._listeners, return_exceptions=True)

    def _run(self, doing: Coroutine[Any, Any, _Made]) -> _Made:
        return asyncio.run_coroutine_threadsafe(doing, self._loop).result()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(STOP_S)
        if not self._thread.is_alive():
            self._loop.close()


class _EndOfStep:
    """A statistics logger that only tells when a step has been told of."""

    def __init__(self, told: Any) -> None:
        self._told = told

    def record(self, *_: Any, **__: Any) -> None:
        """Called at every step."""
        self._told()

    def log_engine_initialized(self) -> None:
        """Called once."""

    def log(self) -> None:
        """Called now and then."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """Called when the scheduler rests and wakes up."""
