"""Whether a node can launch a configuration: its engine is installed, its model can be had.

Asked on the node itself before a GPU is held; nothing is downloaded.
"""

import json
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from sweeper.engines import EXTRAS, engine_traits
from sweeper.engines.hub import cache_folder, offline
from sweeper.errors import SweeperError
from sweeper.spec import EngineKind, ModelSpec, Settings

CONFIG = "config.json"
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WEIGHTS = ("*.safetensors", "*.bin")
TIMEOUT_S = 10.0
"""How long the hub may take to answer."""
WITHOUT = "to measure without its weights, set model.weights=dummy and model.shape"


def faults(asked: Sequence[Settings]) -> list[str]:
    """What stands against launching any of these settings on this node, each reason once."""
    distinct = {
        repr((engine.kind, each.model, engine.env, engine.options, engine.speculative)): each
        for each in asked
        for engine in (each.engine,)
    }
    said = [_fault(settings) for settings in distinct.values()]
    return list(dict.fromkeys(reason for reason in said if reason is not None))


def _fault(settings: Settings) -> str | None:
    try:
        return engine_traits(settings.engine.kind).preflight(settings)
    except SweeperError as error:
        return str(error)


def absent(libraries: Sequence[str]) -> list[str]:
    """Those that are not installed here; none is imported."""
    return [name for name in libraries if find_spec(name) is None]


def library_fault(kind: EngineKind, libraries: Sequence[str]) -> str | None:
    """Which of an engine's libraries are not installed here, and what to install."""
    missing = absent(libraries)
    if not missing:
        return None
    return (
        f"engine.kind: {kind} needs {' and '.join(missing)}, not installed here: "
        f"pip install '{EXTRAS[kind]}'"
    )


def model_fault(model: ModelSpec, environment: Mapping[str, str]) -> str | None:
    """Why a model cannot be had here, and what to do; `None` if nothing speaks against it.

    `environment` is what the engine will see of Hugging Face's variables.
    """
    if model.id is None or (model.shape is not None and model.weights != "auto"):
        return None
    folder = Path(model.id)
    if folder.is_dir():
        return _folder_fault(model, folder)
    if folder.exists():
        return f"model.id: {model.id} is a file: name the folder that has its {CONFIG}"
    if model.id.startswith(("/", ".", "~")) or model.id.count("/") > 1:
        absolute = " (~ is not expanded)" if model.id.startswith("~") else ""
        return (
            f"model.id: there is no folder {model.id}{absolute}: correct it, or put the model "
            f"there; {WITHOUT}"
        )
    return _hub_fault(model, environment)


def hub_environment(settings: Settings) -> dict[str, str]:
    """The environment variables that an engine of these settings starts with."""
    return {**os.environ, **settings.engine.env}


def _folder_fault(model: ModelSpec, folder: Path) -> str | None:
    config = folder / CONFIG
    if not config.is_file():
        return f"model.id: the folder {folder} has no {CONFIG}: it is not a model's"
    try:
        readable = isinstance(json.loads(config.read_bytes()), dict)
    except (OSError, ValueError) as error:
        return f"model.id: {config} cannot be read: {error}"
    if not readable:
        return f"model.id: {config} is not a model's configuration"
    missing = _missing_weights(folder) if model.weights == "auto" else None
    return missing and f"model.id: the folder {folder} {missing}; {WITHOUT}"


def _missing_weights(folder: Path) -> str | None:
    for name in INDICES:
        if (folder / name).is_file():
            try:
                shards = set(json.loads((folder / name).read_bytes())["weight_map"].values())
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                return f"has a damaged {name}: copy it again"
            missing = sorted(shard for shard in shards if not (folder / str(shard)).is_file())
            if missing:
                return (
                    f"lacks {len(missing)} of {len(shards)} files of weights, such as {missing[0]}"
                )
            return None
    if not any(next(folder.glob(pattern), None) for pattern in WEIGHTS):
        return f"has no weights ({', '.join(WEIGHTS)})"
    return None


def _hub_fault(model: ModelSpec, environment: Mapping[str, str]) -> str | None:
    from huggingface_hub.errors import HFValidationError

    try:
        cached = _cached(model, environment)
    except HFValidationError as error:
        said = str(error).partition("\n")[0].rstrip(".")
        return f"model.id: {model.id!r} is neither a folder here nor a model of the hub: {said}"
    if cached is not None and (model.weights != "auto" or _missing_weights(cached) is None):
        return None
    state = "is not in the cache" if cached is None else f"is not whole in the cache, {cached}"
    if offline(environment):
        return (
            f"model.id: {model.id} is no folder here and {state}, and HF_HUB_OFFLINE forbids to "
            f"ask the hub: unset it, download the model first (hf download {model.id}), or name a "
            f"local folder; {WITHOUT}"
        )
    return _refusal(model, state, environment)


def _cached(model: ModelSpec, environment: Mapping[str, str]) -> Path | None:
    """The model's folder in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    assert model.id is not None
    found = try_to_load_from_cache(
        model.id, CONFIG, cache_dir=cache_folder(environment), revision=model.revision
    )
    return Path(found).parent if isinstance(found, str) else None


def _refusal(model: ModelSpec, state: str, environment: Mapping[str, str]) -> str | None:
    """Why the hub would not give the model; the configuration is behind its gate as well."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    assert model.id is not None
    endpoint = environment.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        url = hf_hub_url(model.id, CONFIG, revision=model.revision, endpoint=endpoint)
        get_hf_file_metadata(url, timeout=TIMEOUT_S, endpoint=endpoint)
    except Exception as error:  # Also what the HTTP client below raises without a network.
        return _explained(error, model, state, endpoint)
    return None


def _explained(error: Exception, model: ModelSpec, state: str, endpoint: str) -> str:
    from huggingface_hub import errors

    page = f"{endpoint}/{model.id}"
    known: Mapping[type[Exception], str] = {
        errors.GatedRepoError: (
            f"model.id: {model.id} is gated: accept its licence on {page}, and set HF_TOKEN to a "
            f"token of that account; {WITHOUT}"
        ),
        errors.RevisionNotFoundError: (
            f"model.revision: {model.id} has no revision {model.revision}: see {page}/commits"
        ),
        errors.RepositoryNotFoundError: (
            f"model.id: {model.id} is neither a folder here nor a model that the hub shows you: "
            f"correct it, or set HF_TOKEN if {page} is private"
        ),
        errors.EntryNotFoundError: (
            f"model.id: {model.id} has no {CONFIG} on the hub: it is not in transformers' format"
        ),
    }
    for kind, text in known.items():
        if isinstance(error, kind):
            return text
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return f"model.id: {model.id} {state}, and {endpoint} answers with HTTP status {status}"
    said = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f"model.id: {model.id} is no folder here and {state}, and {endpoint} cannot be reached "
        f"({said}): name a local folder, or download the model where there is a network; {WITHOUT}"
    )
