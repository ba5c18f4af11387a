"""Many streamed requests at once, from a thread of their own that tells of them as they come."""

import asyncio
import contextlib
import json
import queue
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import aiohttp

from sweeper.engines import Clock, Event, Request
from sweeper.engines.endpoint_stream import SAID, Reply
from sweeper.errors import EngineError, Infeasible

KEEP_ALIVE_S = 2.0
"""How long a connection may rest before its next request: a server closes them after 5 s (uvicorn),
and a request sent at that very moment would be lost."""
CONNECT_S = 10.0
ASK_S = 10.0
"""How long a server may take to answer what is no completion."""
PATIENCE_S = 30.0
"""How long requests may take to be cancelled."""
REFUSED = frozenset({400, 413, 422})
"""What a server answers to a request that it will never take."""
NOT_FOR_US = frozenset({401, 403, 404})

Body = Callable[[Request], Mapping[str, Any]]
Say = Callable[[list[Event]], None]
Said = list[Event] | Exception | None
Answered = TypeVar("Answered")


class Refused(Infeasible):
    """The server takes no request of this kind."""


class Client:
    """A connection to one server: an event loop in a thread, started by the first call.

    `url` is where its paths begin; `key` goes into a header and nowhere else.
    """

    def __init__(self, url: str, key: str | None, silence_s: float, clock: Clock) -> None:
        self._url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"
        self._silence_s = silence_s
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._session: aiohttp.ClientSession | None = None

    def ask(self, path: str) -> tuple[int, Any]:
        """The status and the JSON (`None` where it is none) of what a server tells of itself.

        Raises:
            OSError: nobody answers.
        """
        return self._wait(self._ask(path))

    def once(self, request: Request, body: Body) -> tuple[list[Event], int | None]:
        """The events of one request, and how many tokens its prompt had where that is told.

        Raises as `together` does.
        """
        heard: list[Event] = []
        reply = self._wait(self._one(request, _packed(body(request)), heard.extend))
        return heard, reply.prompt_tokens

    def together(self, requests: Sequence[Request], body: Body) -> Generator[Event, None, None]:
        """The events of requests that are all sent at once.

        Raises:
            Infeasible: the server refuses one.
            EngineError: it does not know us, or not what we ask for.
        """
        return self._events(lambda say: self._together(requests, body, say))

    def in_turn(
        self, source: Iterator[Request], in_flight: int, body: Body
    ) -> Generator[Event, None, None]:
        """The events of a closed loop: whenever a request ends, the source's next is sent.

        Raises as `together` does.
        """
        return self._events(lambda say: self._in_turn(source, in_flight, body, say))

    def close(self) -> None:
        """End all connections and the thread; may be called twice."""
        loop, self._loop = self._loop, None
        if loop is None or self._thread is None:
            return
        session, self._session = self._session, None
        if session is not None:
            asyncio.run_coroutine_threadsafe(session.close(), loop).result(PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join(PATIENCE_S)
        loop.close()

    def _wait(self, what: Coroutine[Any, Any, Answered]) -> Answered:
        return asyncio.run_coroutine_threadsafe(what, self._running()).result()

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
            self._thread.start()
        return self._loop

    async def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=CONNECT_S, sock_read=self._silence_s
                ),
                headers=self._headers,
                # A proxy between us and the server would be measured with it.
                trust_env=False,
            )
        return self._session

    async def _ask(self, path: str) -> tuple[int, Any]:
        session = await self._connected()
        timeout = aiohttp.ClientTimeout(total=ASK_S)
        try:
            async with session.get(self._url + path, timeout=timeout) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise OSError(f"{self._url}: {_named(error)}") from error
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, None

    def _events(
        self, work: Callable[["_Mouth"], Coroutine[Any, Any, None]]
    ) -> Generator[Event, None, None]:
        """What `work` says, until it is done; whoever stops listening cancels it."""
        loop = self._running()
        said: queue.SimpleQueue[Said] = queue.SimpleQueue()
        future = asyncio.run_coroutine_threadsafe(_told(work, _Mouth(loop, said)), loop)
        ended = False
        try:
            while (told := said.get()) is not None:
                if isinstance(told, Exception):
                    raise told
                yield from told
            ended = True
        finally:
            if not ended:
                future.cancel()
                with contextlib.suppress(queue.Empty):
                    while said.get(timeout=PATIENCE_S) is not None:
                        pass

    async def _together(self, requests: Sequence[Request], body: Body, say: Say) -> None:
        packed = [(request, _packed(body(request))) for request in requests]
        sent_s = self._clock.now()
        say([Event("admitted", sent_s, request.index) for request in requests])
        async with asyncio.TaskGroup() as group:
            for request, data in packed:
                group.create_task(self._one(request, data, say))

    async def _in_turn(
        self, source: Iterator[Request], in_flight: int, body: Body, say: Say
    ) -> None:
        async def one_after_another() -> None:
            while (request := next(source, None)) is not None:
                data = _packed(body(request))
                say([Event("admitted", self._clock.now(), request.index)])
                await self._one(request, data, say)

        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(one_after_another())

    async def _one(self, request: Request, data: bytes, say: Say) -> Reply:
        session, now = await self._connected(), self._clock.now
        reply = Reply(request)
        try:
            async with session.post(f"{self._url}/v1/completions", data=data) as answer:
                if answer.status != 200:
                    said = _refusal(answer.status, await answer.text())
                    say(reply.fail(said, now()))
                    return reply
                async for piece in answer.content.iter_any():
                    if events := reply.take(piece, now()):
                        say(events)
        except (aiohttp.ClientError, TimeoutError) as error:
            say(reply.fail(_named(error), now()))
        else:
            say(reply.close(now()))
        return reply


class _Mouth:
    """Hands over what is said in one turn of the loop together, so that a listener wakes once."""

    def __init__(self, loop: asyncio.AbstractEventLoop, said: "queue.SimpleQueue[Said]") -> None:
        self._loop = loop
        self._said = said
        self._kept: list[Event] = []

    def __call__(self, events: list[Event]) -> None:
        if events and not self._kept:
            self._loop.call_soon(self.flush)
        self._kept += events

    def flush(self) -> None:
        if self._kept:
            kept, self._kept = self._kept, []
            self._said.put(kept)

    def end(self, error: Exception | None = None) -> None:
        self.flush()
        if error is not None:
            self._said.put(error)
        self._said.put(None)


async def _told(work: Callable[[_Mouth], Coroutine[Any, Any, None]], say: _Mouth) -> None:
    failure: Exception | None = None
    try:
        await work(say)
    except* Exception as errors:
        failure = _first(errors)
    finally:
        say.end(failure)


def _first(errors: BaseExceptionGroup[BaseException]) -> Exception:
    one: BaseException = errors
    while isinstance(one, BaseExceptionGroup):
        one = one.exceptions[0]
    return one if isinstance(one, Exception) else EngineError(repr(one))


def _packed(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _refusal(status: int, text: str) -> str:
    """What to say of a status that is an error of the server's own.

    Raises:
        Refused: it will never take such a request.
        EngineError: it does not let us in, or has no such path or model.
    """
    said = f"the server answers {status}: {text.strip()[:SAID]}"
    if status in REFUSED:
        raise Refused(said)
    if status in NOT_FOR_US:
        raise EngineError(said)
    return said


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".strip(": ")
