"""What a doctor says: what a node is able to do, and what it lacks, with the way out (pure)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Facts = dict[str, Any]
"""Of one node, as `cluster.session.Session.examine` tells them."""
FindingKind = Literal["fault", "missing", "advice"]
"""No study runs there before it is gone; something cannot be measured or run; it works, and costs
time or exactness."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that could be better, and how."""

    kind: FindingKind
    what: str
    way_out: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ability:
    """Whether a node has an engine or a meter; `None` where that is not known."""

    name: str
    works: bool | None
    note: str


def by_gpu(found: Sequence[tuple[int, Sequence[Finding]]]) -> Iterator[Finding]:
    """Findings of single GPUs by index, each once, with the GPUs that it is true of.

    `{gpus}` in a way out stands for their indices, as nvidia-smi takes them.
    """
    places: dict[Finding, list[int]] = {}
    for index, findings in found:
        for finding in findings:
            places.setdefault(finding, []).append(index)
    for finding, indices in places.items():
        every = len(indices) == len(found) > 1
        yield Finding(
            kind=finding.kind,
            what=f"{'every GPU' if every else _named(indices)}: {finding.what}",
            way_out=finding.way_out.replace("{gpus}", ",".join(map(str, indices))),
        )


def _named(indices: Sequence[int]) -> str:
    return f"GPU{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"
