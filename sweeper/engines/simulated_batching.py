"""In which order a simulated engine works on its requests: static batches, continuous batching.

Steps cost one event each, however many requests run; a request costs something only when it
starts or ends (and at every step where a draft proposes, see `simulated_decoding.Speculative`).
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence

from sweeper.engines import Event, Request
from sweeper.engines.simulated_decoding import Decoding

Step = Callable[[int, int, float, float], float]
"""Does one forward pass: requests in it, new tokens, what these look back on summed over them,
cached tokens read. Returns when it ended."""


def static(
    requests: Sequence[Request], step: Step, now_s: float, decoding: Decoding
) -> Generator[Event, None, None]:
    """All prompts in one pass, then a step at a time for those requests that still want tokens."""
    prompts = [len(request.prompt_token_ids) for request in requests]
    for request in requests:
        yield Event("admitted", now_s, request.index)
    attended = sum(length * length / 2 for length in prompts)
    decoding.propose(sum(prompts), attended)
    now_s = step(len(requests), sum(prompts), attended, 0.0)
    for request in requests:
        yield Event("first_token", now_s, request.index)
    for request in requests:
        decoding.add(request)
    while True:
        for index in decoding.ended():
            yield Event("finished", now_s, index)
        running = len(decoding)
        if not running:
            return
        decoding.propose(0, 0.0)
        now_s = step(running, running * decoding.width, decoding.attended, decoding.context)
        yield Event("tokens", now_s, tokens=decoding.advance(), running=running)


def continuous(
    source: Iterator[Request],
    in_flight: int,
    budget: int,
    step: Step,
    now: Callable[[], float],
    decoding: Decoding,
    *,
    chunked: bool = True,
) -> Generator[Event, None, None]:
    """Keep `in_flight` requests running; a step decodes for all and prefills within `budget`.

    Decoding comes first, what is left of the budget goes to prompts in the order they came: in
    parts where they are `chunked`, else whole, so that one waits until all of it fits, and then
    holds up the step it is in. Ends when the source has and the last request is done.
    """
    budget = max(budget, in_flight * decoding.width + 1)
    waiting: deque[Request] = deque()
    prefilled = 0  # of the first that waits
    more = True
    while True:
        admitted_s = now()
        while more and len(decoding) + len(waiting) < in_flight:
            request = next(source, None)
            if request is None:
                more = False
                break
            waiting.append(request)
            yield Event("admitted", admitted_s, request.index)
        running = len(decoding)
        if not running and not waiting:
            return
        left = room = budget - running * decoding.width
        attended = 0.0
        started: list[Request] = []
        while waiting and left:
            length = len(waiting[0].prompt_token_ids)
            chunk = min(length - prefilled, left)
            if not chunked and chunk < length and (running or started):
                break
            attended += chunk * (prefilled + chunk / 2)
            left -= chunk
            prefilled += chunk
            if prefilled < length:
                break
            started.append(waiting.popleft())
            prefilled = 0
        decoding.propose(room - left, attended)
        now_s = step(
            running + len(started),
            budget - left,
            attended + decoding.attended,
            decoding.context,
        )
        tokens = decoding.advance()
        if running:
            yield Event("tokens", now_s, tokens=tokens, running=running)
        for request in started:
            decoding.add(request)
            yield Event("first_token", now_s, request.index)
        for index in decoding.ended():
            yield Event("finished", now_s, index)
