"""A user's scorer, run once per configuration, before its engine is loaded for measuring.

The scorer is a shell command, `quality.command`. It finds in its environment

    SWEEPER_ENDPOINT         where an OpenAI-compatible server of this configuration answers,
                             http://127.0.0.1:PORT/v1; empty where the engine has no server
    SWEEPER_LAUNCH_COMMAND   what a person types to launch it (of transformers a script)
    SWEEPER_CONFIG           every setting under its dotted key, as JSON

and prints its score on the last line of standard output: a number, or JSON with a `score`. What it
prints to standard error is in the engine log. The server is the record's own launch command with a
port of its own, on the GPUs of the lease. Both have ended before the launch's devices are looked at
for the first time, so that no window and no idle power has anything of them; their joules are in no
number, their seconds are the lease's. `transformers` and `simulated` have no server: a scorer of
those loads the model itself, or needs none.
"""

import json
import math
import os
import shlex
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.engines import Engine
from sweeper.engines.endpoint_server import Server, free_port
from sweeper.errors import EngineError
from sweeper.schema import flat
from sweeper.spec import QualitySpec, Settings

METRIC = "quality_score"
READY_S = 1800.0
"""How long a server may take to answer: it may read weights for that long."""
BREATH_S = 2.0
TAIL = 400


@dataclass(frozen=True, kw_only=True)
class Score:
    """What the scorer said; without a `value` there is a `reason`."""

    value: float | None
    reason: str | None
    seconds: float

    def facts(self, spec: QualitySpec) -> dict[str, Any]:
        """As plain data, for the record."""
        return {
            "command": spec.command,
            "score": self.value,
            "reason": self.reason,
            "seconds": self.seconds,
        }


def score(
    spec: QualitySpec, settings: Settings, engine: Engine, alive: Callable[[], None]
) -> Score:
    """Serve the configuration, if its engine can be served, and run the scorer.

    `alive` is called every few seconds, as whoever watches would take silence for a hang. Nothing
    is raised for what the scorer or the server does: then there is no score, and a reason.
    """
    began_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sweeper-quality-") as name:
        try:
            value = _scored(spec, settings, engine, Path(name), alive)
            reason = None
        except EngineError as error:
            value, reason = None, str(error)
    return Score(value=value, reason=reason, seconds=time.monotonic() - began_s)


def parse(output: str) -> float:
    """The number on the last line that is not empty: itself, or the `score` of a JSON object.

    Raises:
        EngineError: there is none.
    """
    lines = output.strip().splitlines()
    last = lines[-1].strip() if lines else ""
    try:
        told = json.loads(last)
    except ValueError:
        told = None
    number = told.get("score") if isinstance(told, Mapping) else told
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise EngineError(
            f"scorer_output: its last line is {last[:TAIL]!r}, wanted: a number, or "
            'JSON such as {"score": 0.71}'
        )
    return float(number)


def _scored(
    spec: QualitySpec, settings: Settings, engine: Engine, folder: Path, alive: Callable[[], None]
) -> float:
    variables = {
        "SWEEPER_LAUNCH_COMMAND": engine.launch_command(),
        "SWEEPER_CONFIG": json.dumps(flat(settings)),
        "SWEEPER_ENDPOINT": "",
    }
    served = engine.served(free_port())
    if served is None:
        return _run(spec, variables, folder, alive)
    variables["SWEEPER_ENDPOINT"] = served.url
    if served.command is None:
        return _run(spec, variables, folder, alive)
    # A launch command names programs as they are called in this environment, active or not.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    words = _shell(f"cd {shlex.quote(str(folder))}\n{served.command}")
    server = Server(words, {"PATH": path})
    server.start()
    try:
        _await(server, f"{served.url}/models", alive)
        return _run(spec, variables, folder, alive)
    finally:
        server.end()


def _shell(text: str) -> list[str]:
    return ["bash", "-ec", text]


def _await(server: Server, url: str, alive: Callable[[], None]) -> None:
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s:
        alive()
        server.look()
        if server.status is not None:
            raise EngineError(
                f"server_ended: with status {server.status} before it answered; see the engine log"
            )
        try:
            with urllib.request.urlopen(url, timeout=BREATH_S):
                return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(BREATH_S / 4)
    raise EngineError(f"server_silent: no answer in {READY_S:.0f} s")


def _run(
    spec: QualitySpec, variables: Mapping[str, str], folder: Path, alive: Callable[[], None]
) -> float:
    output = folder / "scorer.out"
    scorer = Server(_shell(f"exec >{shlex.quote(str(output))}\n{spec.command}"), variables)
    deadline_s = time.monotonic() + spec.timeout_s
    scorer.start()
    try:
        while scorer.status is None:
            alive()
            scorer.look()
            if time.monotonic() > deadline_s:
                raise EngineError(f"scorer_timeout: it ran longer than {spec.timeout_s:g} s")
            time.sleep(BREATH_S / 20)
        if scorer.status != 0:
            raise EngineError(
                f"scorer_failed: it ended with status {scorer.status}; see the engine log"
            )
    finally:
        scorer.end()
    return parse(output.read_text(errors="replace"))
