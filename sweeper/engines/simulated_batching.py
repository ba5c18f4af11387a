"""In which order a simulated engine works on its requests: static batches, continuous batching.

Steps cost one event each, however many requests run; a request costs something only when it
starts or ends.
"""

import heapq
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence

from sweeper.engines import Event, Request

Step = Callable[[int, int, float, float], float]
"""Does one forward pass: requests in it, new tokens, what these look back on summed over them,
cached tokens read. Returns when it ended."""


def static(requests: Sequence[Request], step: Step, now_s: float) -> Generator[Event, None, None]:
    """All prompts in one pass, then a token a step for each request that still wants one."""
    prompts = [len(request.prompt_token_ids) for request in requests]
    for request in requests:
        yield Event("admitted", now_s, request.index)
    attended = sum(length * length / 2 for length in prompts)
    now_s = step(len(requests), sum(prompts), attended, 0.0)
    for request in requests:
        yield Event("first_token", now_s, request.index)
    ends = _Ends()
    for request in requests:
        ends.add(request, 0)
    done = 0
    while True:
        for index in ends.due(done):
            yield Event("finished", now_s, index)
        running = len(ends)
        if not running:
            return
        now_s = step(running, running, ends.context, ends.context)
        done += 1
        yield Event("tokens", now_s, tokens=running, running=running)
        ends.context += running


def continuous(
    source: Iterator[Request], in_flight: int, budget: int, step: Step, now: Callable[[], float]
) -> Generator[Event, None, None]:
    """Keep `in_flight` requests running; a step decodes for all and prefills within `budget`.

    Decoding comes first, what is left of the budget goes to prompts in the order they came. Ends
    when the source has and the last request is done.
    """
    budget = max(budget, in_flight + 1)
    waiting: deque[Request] = deque()
    prefilled = 0  # of the first that waits
    ends = _Ends()
    done = 0
    more = True
    while True:
        admitted_s = now()
        while more and len(ends) + len(waiting) < in_flight:
            request = next(source, None)
            if request is None:
                more = False
                break
            waiting.append(request)
            yield Event("admitted", admitted_s, request.index)
        running = len(ends)
        if not running and not waiting:
            return
        left, attended, started = budget - running, ends.context, []
        while waiting and left:
            length = len(waiting[0].prompt_token_ids)
            chunk = min(length - prefilled, left)
            attended += chunk * (prefilled + chunk / 2)
            left -= chunk
            prefilled += chunk
            if prefilled < length:
                break
            started.append(waiting.popleft())
            prefilled = 0
        now_s = step(running + len(started), budget - left, attended, ends.context)
        done += 1
        if running:
            ends.context += running
            yield Event("tokens", now_s, tokens=running, running=running)
        for request in started:
            ends.add(request, done)
            yield Event("first_token", now_s, request.index)
        for index in ends.due(done):
            yield Event("finished", now_s, index)


class _Ends:
    """Requests that decode, by the step of their last token; `context` sums what they cache."""

    def __init__(self) -> None:
        self.context = 0.0
        self._heap: list[tuple[int, int, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, request: Request, done: int) -> None:
        """Its first token came with step `done`."""
        length = len(request.prompt_token_ids)
        further = max(request.output_tokens - 1, 0)
        self.context += length
        heapq.heappush(self._heap, (done + further, request.index, length + further))

    def due(self, done: int) -> Iterator[int]:
        """Those whose last token came with step `done`; they leave."""
        while self._heap and self._heap[0][0] <= done:
            _, index, cached = heapq.heappop(self._heap)
            self.context -= cached
            yield index
