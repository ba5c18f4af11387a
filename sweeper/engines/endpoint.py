"""Any server of OpenAI's completions: started for the launch, or running somewhere already.

A request's moments are those at which bytes were in this process: what the network takes is in
them, as it is for whoever uses the server.
"""

import os
import shlex
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sweeper import shapes
from sweeper.engines import Clock, Event, Request, Served
from sweeper.engines.endpoint_client import Client, Refused
from sweeper.engines.endpoint_options import OF_THE_SERVER, PLACE, EndpointOptions, read_options
from sweeper.engines.endpoint_server import Server, free_port
from sweeper.engines.endpoint_stream import DIALECTS, Dialect, body
from sweeper.engines.endpoint_traits import EndpointTraits
from sweeper.errors import EngineError, Infeasible, StudyError
from sweeper.spec import Settings, Sizes

USUAL_PORT = 8000
"""In the command that a person types."""
DEATH_S = 2.0
"""Connections break before a dying server's end shows: the first failure waits so long for it."""
MOST_FAILED = 32
"""Requests that fail one after the other, after which there is no server to speak of."""
LOOK_S = 0.5
PROBE = Request(-1, (101, 202, 303, 404, 505, 606, 707, 808), 4)
"""What a server is tried with; its ids are in every vocabulary."""


class EndpointEngine(EndpointTraits):
    """A server behind HTTP, and one connection for each request in flight.

    `engine.options` are those of `EndpointOptions`. Lengths are forced (`ignore_eos`,
    `min_tokens`): a request that comes out otherwise has failed. Of what a server resolved its
    settings to only a little can be seen from outside; what is not known is `None`.
    """

    def __init__(
        self, settings: Settings, sizes: Sizes, devices: Sequence[str], clock: Clock
    ) -> None:
        self._settings = settings
        self._sizes = sizes
        self._devices = tuple(devices)
        self._clock = clock
        self._client: Client | None = None
        self._server: Server | None = None
        self._dialect = Dialect()
        self._model = ""
        self._max_model_len: int | None = None
        self._tokens = 0
        self._failed_in_a_row = 0

    def load(self) -> Mapping[str, Any]:
        """Start the server if it is ours, wait for it, and find out how it is to be spoken to.

        Raises:
            Infeasible: it forces no lengths, or has no room for the longest request.
            EngineError: it does not start, does not answer, or serves no such model.
        """
        options = self._options()
        url = options.url or f"http://127.0.0.1:{self._start(options)}"
        key = os.environ.get(options.api_key_env) if options.api_key_env else None
        if options.api_key_env and not key:
            raise EngineError(f"{PLACE}.api_key_env: {options.api_key_env} is not set")
        self._client = Client(url, key, options.silence_s, self._clock)
        self._wait_until_ready(self._client, options.ready_s)
        if self._server is not None:
            self._server.look()
        card = self._card(self._client, options)
        self._model, self._max_model_len = str(card["id"]), card.get("max_model_len")
        if self._max_model_len is not None and self._sizes.max_model_len > self._max_model_len:
            raise Infeasible(
                f"requests of {self._sizes.max_model_len} tokens, the server takes "
                f"{self._max_model_len}"
            )
        self._dialect = self._spoken(options)
        return {
            "engine": "endpoint",
            "engine_version": self._version(self._client),
            "owned_by": card.get("owned_by"),
            "model": self._model,
            "max_model_len": self._max_model_len,
            "vocabulary": self._vocabulary(options),
            **{key.partition(".")[2]: None for key in OF_THE_SERVER},
            "tensor_parallel": self._settings.engine.tensor_parallel if options.command else None,
            "devices": list(self._devices),
            "batching": "continuous",
            "started_here": options.command is not None,
            "options": dict(self._settings.engine.options),
            **self._dialect.described(),
        }

    def generate(
        self, requests: Sequence[Request], settings: Settings
    ) -> Generator[Event, None, None]:
        """One static batch: all requests are sent at once; the server starts them as they arrive.

        Raises:
            Infeasible: the server refuses one.
            EngineError: it has gone, or answers with nothing but errors.
        """
        client = self._loaded()
        for request in requests:
            self._refuse_long(request)
        return self._watched(client.together(requests, self._body()))

    def serve(
        self, source: Iterator[Request], in_flight: int, settings: Settings
    ) -> Generator[Event, None, None]:
        """A closed loop of `in_flight` connections.

        Raises as `generate` does.
        """
        client = self._loaded()
        return self._watched(client.in_turn(self._fitting(source), in_flight, self._body()))

    def progress(self) -> int:
        """Tokens that have come, since load."""
        return self._tokens

    def counts(self) -> Mapping[str, float]:
        """Tokens since load; of a server that was started here, without GPUs, its peak memory."""
        counted = {"generated_tokens": float(self._tokens)}
        server = None if self._devices else self._server
        if server is not None and (peak := server.peak_bytes()):
            counted["peak_memory_bytes"] = float(peak)
        return counted

    def launch_command(self) -> str:
        """The command with its places filled in; of a running server, where it runs."""
        options = self._options()
        if options.command is None:
            return f"# already running: {options.url}"
        said = [f"{name}={shlex.quote(each)}" for name, each in self._settings.engine.env.items()]
        return " ".join([*said, shlex.join(options.words(self._settings, USUAL_PORT))])

    def served(self, port: int) -> Served | None:
        """The study's own command; of a server that runs already, where it does."""
        options = self._options()
        if options.command is None:
            return Served(f"{str(options.url).rstrip('/')}/v1", None)
        said = [f"{name}={shlex.quote(each)}" for name, each in self._settings.engine.env.items()]
        command = " ".join([*said, shlex.join(options.words(self._settings, port))])
        return Served(f"http://127.0.0.1:{port}/v1", command)

    def close(self) -> None:
        """Hang up, and end the server if it is ours."""
        client, self._client = self._client, None
        server, self._server = self._server, None
        try:
            if client is not None:
                client.close()
        finally:
            if server is not None:
                server.end()

    def _options(self) -> EndpointOptions:
        try:
            return read_options(self._settings)
        except StudyError as error:
            raise EngineError(str(error)) from error

    def _start(self, options: EndpointOptions) -> int:
        port = free_port()
        variables = dict(self._settings.engine.env)
        if self._devices:
            variables.setdefault("CUDA_VISIBLE_DEVICES", ",".join(self._devices))
        self._server = Server(options.words(self._settings, port), variables)
        self._server.start()
        return port

    def _wait_until_ready(self, client: Client, ready_s: float) -> None:
        deadline_s = time.monotonic() + ready_s
        said = "nothing"
        while time.monotonic() < deadline_s:
            self._refuse_ended()
            try:
                status, _ = client.ask("/health")
                if status == 404:
                    status, _ = client.ask("/v1/models")
                if status in (200, 401, 403):
                    return
                said = f"status {status}"
            except OSError as error:
                said = str(error)
            time.sleep(LOOK_S)
        raise EngineError(f"the server is not ready after {ready_s:g} s: {said}")

    def _refuse_ended(self, within_s: float = 0.0) -> None:
        deadline_s = time.monotonic() + within_s
        while self._server is not None:
            if (status := self._server.status) is not None:
                told = f"signal {-status}" if status < 0 else f"status {status}"
                raise EngineError(f"the server has ended with {told}: see the engine log")
            if time.monotonic() >= deadline_s:
                return
            time.sleep(LOOK_S)

    def _card(self, client: Client, options: EndpointOptions) -> Mapping[str, Any]:
        """What the server says of the model that is asked for."""
        status, told = client.ask("/v1/models")
        cards = told.get("data", []) if isinstance(told, dict) else []
        if status != 200 or not cards:
            raise EngineError(f"GET /v1/models: status {status}, no model")
        names = [str(card.get("id")) for card in cards]
        wanted = options.model or (names[0] if len(names) == 1 else self._settings.model.id)
        if wanted not in names:
            way = f"name one of {', '.join(names)} in {PLACE}.model"
            raise EngineError(f"the server has no model {wanted}: {way}")
        card: Mapping[str, Any] = cards[names.index(wanted)]
        return card

    def _version(self, client: Client) -> str | None:
        """As vLLM tells it; others have no such path."""
        status, told = client.ask("/version")
        known = status == 200 and isinstance(told, dict) and isinstance(told.get("version"), str)
        return str(told["version"]) if known else None

    def _vocabulary(self, options: EndpointOptions) -> int:
        if options.vocabulary is not None:
            return options.vocabulary
        try:
            return shapes.shape_of_model(self._settings.model).vocab
        except StudyError as error:
            raise EngineError(f"{PLACE}.vocabulary: say how many token ids ({error})") from error

    def _spoken(self, options: EndpointOptions) -> Dialect:
        """The first dialect in which a short request comes out as asked for."""
        said = "nothing"
        for dialect in DIALECTS:
            tried = dialect
            for _ in range(2):
                try:
                    events, prompt = self._probe(tried, options)
                except Refused as error:
                    said = str(error)
                    break
                if events[-1].kind == "finished":
                    return tried
                said = events[-1].detail
                # A server puts its own tokens before a text: the same number before each.
                extra = (prompt or 0) - len(PROBE.prompt_token_ids)
                if dialect.token_ids or not 0 < extra < len(PROBE.prompt_token_ids):
                    break
                tried = replace(dialect, extra_tokens=extra)
        raise Infeasible(f"the server gives no request as it is asked for; the last try: {said}")

    def _probe(self, dialect: Dialect, options: EndpointOptions) -> tuple[list[Event], int | None]:
        asked = partial(body, model=self._model, dialect=dialect, further=options.body)
        return self._loaded().once(PROBE, asked)

    def _body(self) -> Any:
        return partial(body, model=self._model, dialect=self._dialect, further=self._options().body)

    def _loaded(self) -> Client:
        if self._client is None:
            raise EngineError("the engine is not loaded")
        return self._client

    def _refuse_long(self, request: Request) -> None:
        length = len(request.prompt_token_ids) + request.output_tokens
        if self._max_model_len is not None and length > self._max_model_len:
            raise Infeasible(
                f"{length} positions asked, the server was started for {self._max_model_len}"
            )

    def _fitting(self, source: Iterator[Request]) -> Iterator[Request]:
        for request in source:
            self._refuse_long(request)
            yield request

    def _watched(self, events: Generator[Event, None, None]) -> Generator[Event, None, None]:
        """The events, counted; too many failures in a row are one of the server's."""
        try:
            for event in events:
                self._tokens += event.tokens + (event.kind == "first_token")
                if event.kind == "finished":
                    self._failed_in_a_row = 0
                yield event
                if event.kind == "failed":
                    self._failed_in_a_row += 1
                    self._refuse_ended(DEATH_S if self._failed_in_a_row == 1 else 0.0)
                    if self._failed_in_a_row >= MOST_FAILED:
                        self._failed_in_a_row = 0
                        said = f"{MOST_FAILED} requests failed one after the other, the last:"
                        raise EngineError(f"{said} {event.detail}")
        finally:
            events.close()
