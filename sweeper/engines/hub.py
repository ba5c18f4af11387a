"""What a process's environment says of Hugging Face's hub: where models are kept, who asks."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
CACHES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where models are kept, as huggingface_hub finds it."""
    given = next((environment[name] for name in CACHES if environment.get(name)), None)
    return _path(given) if given else _home(environment) / "hub"


def offline(environment: Mapping[str, str]) -> list[str]:
    """The variables that forbid to ask the hub."""
    return [name for name in OFFLINE if _true(environment.get(name))]


def has_token(environment: Mapping[str, str]) -> bool:
    """Whether there is a token to show to the hub; it is not read."""
    if any(environment.get(name) for name in TOKENS):
        return True
    given = environment.get("HF_TOKEN_PATH")
    return os.path.isfile(_path(given) if given else _home(environment) / "token")  # noqa: PTH113


def hub_facts(environment: Mapping[str, str]) -> dict[str, Any]:
    """The cache, its disk and what the hub will be told, as plain data without secrets."""
    folder = cache_folder(environment)
    try:
        there = next(each for each in (folder, *folder.parents) if each.exists())
        writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
        free_bytes = shutil.disk_usage(there).free
    except OSError:  # A folder on the way is closed to this user.
        writable, free_bytes = False, None
    return {
        "cache": str(folder),
        "writable": writable,
        "free_bytes": free_bytes,
        "token": has_token(environment),
        "offline": offline(environment),
    }


def _home(environment: Mapping[str, str]) -> Path:
    caches = environment.get("XDG_CACHE_HOME") or "~/.cache"
    return _path(environment.get("HF_HOME") or f"{caches}/huggingface")


def _path(text: str) -> Path:
    return Path(os.path.expandvars(text)).expanduser()


def _true(value: str | None) -> bool:
    return (value or "").upper() in {"1", "ON", "YES", "TRUE"}
