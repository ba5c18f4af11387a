"""A small server of completions that does what its script says, in a thread of the test.

As a program, `fake_server.py PORT`, it answers everything until it is killed.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass(kw_only=True)
class Script:
    """How requests are answered.

    `chunks` are (seconds to wait, tokens) of each chunk; `usage` is `always`, `end` or `never`;
    `cut_after` chunks the connection is closed. `statuses` are given to requests in turn, 200
    afterwards. `takes_ids`: whether a prompt may be token ids. `extra` tokens count with a text.
    """

    chunks: Sequence[tuple[float, int]] | None = None
    usage: str = "always"
    cut_after: int | None = None
    statuses: list[int] = field(default_factory=list)
    takes_ids: bool = True
    extra: int = 0
    reason: str = "length"
    max_model_len: int | None = 64
    key: str | None = None


class FakeServer:
    """Serves from `start` to `stop`; keeps what it was asked."""

    def __init__(self, script: Script, port: int = 0) -> None:
        self.script = script
        self._port = port
        self.bodies: list[dict[str, Any]] = []
        self.cancelled = 0
        self.running = 0
        self.most_running = 0
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> "FakeServer":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._runner is not None
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _models(self, request: web.Request) -> web.Response:
        card = {"id": "fake", "owned_by": "tests", "max_model_len": self.script.max_model_len}
        return web.json_response({"object": "list", "data": [card]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        script = self.script
        if script.key and request.headers.get("Authorization") != f"Bearer {script.key}":
            return web.json_response({"error": "who are you?"}, status=401)
        if not script.takes_ids and not isinstance(body["prompt"], str):
            return web.json_response({"error": "prompt must be a string"}, status=422)
        self.bodies.append(body)
        status = script.statuses.pop(0) if script.statuses else 200
        if status != 200:
            return web.Response(status=status, text=f"no luck ({status})")
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            return await self._stream(request, body)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def _stream(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        script, prompt = self.script, body["prompt"]
        length = len(prompt.split()) + script.extra if isinstance(prompt, str) else len(prompt)
        chunks = script.chunks or [(0.0, 1)] * body["max_tokens"]
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        given = 0
        for place, (wait_s, tokens) in enumerate(chunks):
            if place == script.cut_after:
                assert request.transport is not None
                request.transport.close()
                return answer
            await asyncio.sleep(wait_s)
            given += tokens
            last = place == len(chunks) - 1
            choice = {"index": 0, "text": "a " * tokens, "finish_reason": None}
            if last:
                choice["finish_reason"] = script.reason
            await self._say(answer, body, {"choices": [choice]}, given, length, always=True)
        if script.usage != "never":
            await self._say(answer, body, {"choices": []}, given, length, always=False)
        await answer.write(b"data: [DONE]\n\n")
        return answer

    async def _say(
        self,
        answer: web.StreamResponse,
        body: dict[str, Any],
        chunk: dict[str, Any],
        given: int,
        length: int,
        *,
        always: bool,
    ) -> None:
        asked = body["stream_options"].get("continuous_usage_stats")
        if not always or (self.script.usage == "always" and asked):
            chunk["usage"] = {"prompt_tokens": length, "completion_tokens": given}
        await answer.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")


if __name__ == "__main__":
    with FakeServer(Script(), int(sys.argv[1])):
        threading.Event().wait()
