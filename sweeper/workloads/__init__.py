"""Workloads say which requests there are, seeded: the seam, and where each one lives."""

import importlib
from collections.abc import Iterator, Sequence
from typing import Protocol

from sweeper.engines import Request
from sweeper.spec import WorkloadSpec

WORKLOADS: dict[str, str] = {"fixed": "sweeper.workloads.fixed:FixedWorkload"}
"""Import paths of the workloads that exist."""


class Workload(Protocol):
    """Makes requests; the same spec, vocabulary and seed make the same ones."""

    def __init__(self, spec: WorkloadSpec, vocabulary: int, seed: int) -> None:
        """`vocabulary` is the number of token ids; `seed` comes beside the spec's own."""
        ...

    def batch(self, size: int) -> Sequence[Request]:
        """The next `size` requests, for a static batch."""
        ...

    def stream(self, in_flight: int) -> Iterator[Request]:
        """Requests without end for a closed loop of `in_flight`.

        The first `in_flight` have staggered output lengths, so that prefill and decode mix from
        the start as they do later.
        """
        ...


def workload_class(kind: str) -> type[Workload]:
    """The class of a workload."""
    module, _, name = WORKLOADS[kind].partition(":")
    found: type[Workload] = getattr(importlib.import_module(module), name)
    return found
