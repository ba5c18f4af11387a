"""The `engine.options` of an endpoint: which server, and how to talk to it (pure).

A study says `engine: {kind: endpoint, options: {command: "vllm serve {model} --port {port}"}}`, or
`options: {url: "http://10.0.0.7:30000"}`.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from sweeper.errors import StudyError
from sweeper.schema import Faults, lookup, read, show
from sweeper.spec import Settings

PLACE = "engine.options"
PORT_WORD = "{port}"
MODEL_WORD = "{model}"
WIDTH_WORD = "{tensor_parallel}"
OF_THE_SERVER = (
    "engine.mode",
    "engine.dtype",
    "engine.pipeline_parallel",
    "engine.data_parallel",
    "engine.graphs",
    "engine.compile",
    "engine.quantization",
    "engine.kv_cache_dtype",
    "engine.speculative",
    "engine.chunked_prefill",
    "engine.prefix_caching",
    "engine.attention",
    "engine.max_batched_tokens",
)
"""Settings that nobody hands to a server: its command says them, in its own words."""
RESERVED = frozenset(
    {"model", "prompt", "max_tokens", "min_tokens", "ignore_eos", "n", "stream", "stream_options"}
)
"""Fields of a request that the workload decides; `body` may not."""
_KEY = re.compile(r"api[-_]?key|auth[-_]?token", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class EndpointOptions:
    """What a study says of a server.

    Either `command`, which is started (without a shell; `{port}`, `{model}` and `{tensor_parallel}`
    are filled in) and ended with the launch, or `url`, where one runs already. `model` is the name
    it serves, the only one it tells of if not given. `devices` are the GPUs (UUIDs) of this host
    that a running server uses, so that their energy is its. `vocabulary` is the number of token
    ids, where the model's shape is not known. `api_key_env` names the variable of the environment
    that holds the key. `ready_s` is how long the start may take, `silence_s` how long a stream may
    stand still. `body` are further fields of every request.
    """

    command: str | None = None
    url: str | None = None
    model: str | None = None
    devices: Sequence[str] = ()
    vocabulary: int | None = field(default=None, metadata={"min": 2})
    api_key_env: str | None = None
    ready_s: float = field(default=1200.0, metadata={"above": 0})
    silence_s: float = field(default=120.0, metadata={"above": 0})
    body: Mapping[str, Any] = field(default_factory=dict)

    def words(self, settings: Settings, port: int) -> list[str]:
        """The command with its places filled in, a word each."""
        filled = {
            PORT_WORD: str(port),
            MODEL_WORD: str(settings.model.id or settings.model.shape),
            WIDTH_WORD: str(settings.engine.tensor_parallel),
        }
        words = shlex.split(self.command or "")
        for name, value in filled.items():
            words = [word.replace(name, value) for word in words]
        return words


def read_options(settings: Settings) -> EndpointOptions:
    """The options as given, checked, together with the settings that a server cannot be told.

    Raises:
        StudyError: everything that is wrong, at once.
    """
    faults = Faults()
    given = dict(settings.engine.options)
    devices = given.pop("devices", [])
    known = [each.name for each in fields(EndpointOptions)]
    options = read(EndpointOptions, given, PLACE, faults)
    if not (isinstance(devices, list | tuple) and all(isinstance(each, str) for each in devices)):
        faults.add(f"{PLACE}.devices", f"{show(devices)} given, wanted: a list of GPU UUIDs")
    if options is not None and not faults.found:
        _check_server(options, bool(devices), faults)
        for name in sorted(RESERVED & options.body.keys()):
            faults.add(f"{PLACE}.body.{name}", "is decided by the workload: leave it out")
    for key in OF_THE_SERVER:
        value, default = lookup(settings, key), lookup(Settings(), key)
        if value != default:
            way = f"say it in {PLACE}.command" if given.get("command") else "leave it out"
            faults.add(key, f"{show(value)} cannot be handed to an endpoint: {way}")
    if faults.found or options is None:
        told = [f"{where}: {message}" for where, message in faults.found]
        raise StudyError(told or f"{PLACE}: known are {', '.join(known)}")
    values = {name: getattr(options, name) for name in known}
    return EndpointOptions(**values | {"devices": tuple(devices)})


def runs_already(settings: Settings) -> bool:
    """Whether the engine is a server that nobody starts for a launch."""
    return settings.engine.kind == "endpoint" and settings.engine.options.get("url") is not None


def running_devices(settings: Settings) -> tuple[str, ...]:
    """The GPUs of this host that such a server runs on, as far as the study says."""
    return tuple(settings.engine.options.get("devices", ()))


def _check_server(options: EndpointOptions, named: bool, faults: Faults) -> None:
    if (options.command is None) == (options.url is None):
        faults.add(PLACE, "wanted: either command, which is started, or url, where a server runs")
        return
    if options.command is not None:
        _check_command(options.command, faults)
        if named:
            faults.add(f"{PLACE}.devices", "a command gets the GPUs of its lease: leave it out")
    if options.url is not None:
        parts = urlsplit(options.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            faults.add(f"{PLACE}.url", f"{show(options.url)} given, wanted: http://HOST:PORT")
        elif "@" in parts.netloc or parts.query:
            way = f"name the variable of the environment that holds a key in {PLACE}.api_key_env"
            faults.add(f"{PLACE}.url", f"holds more than an address, and is written down: {way}")


def _check_command(command: str, faults: Faults) -> None:
    place = f"{PLACE}.command"
    try:
        words = shlex.split(command)
    except ValueError as error:
        faults.add(place, f"cannot be parted into words: {error}")
        return
    if not any(PORT_WORD in word for word in words):
        faults.add(place, f"says nowhere {PORT_WORD}, which stands for a free port")
    if any(_KEY.search(word) for word in words):
        way = "set it in the environment of the command (VLLM_API_KEY), not in the study"
        faults.add(place, f"names a key, which would be written down: {way}")
