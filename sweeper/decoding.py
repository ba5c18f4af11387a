"""Decoding strategies as a study asks for them: how tokens are chosen (pure).

Lengths are forced under each of them: no end of sequence ends a request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeper.errors import StudyError
from sweeper.schema import Faults, read
from sweeper.spec import WorkloadSpec


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """The most probable token."""


@dataclass(frozen=True, kw_only=True)
class Beam:
    """Beam search: the `width` most probable texts go on, and the best of them is the result.

    Which tokens it has is known when it has ended: nothing streams.
    """

    width: int = field(metadata={"min": 1})


@dataclass(frozen=True, kw_only=True)
class Temperature:
    """A token is drawn from all, from logits divided by `temperature`."""

    temperature: float = field(metadata={"above": 0})


@dataclass(frozen=True, kw_only=True)
class TopP:
    """A token is drawn from the fewest that together have probability `p`.

    Nucleus sampling (Holtzman et al., arXiv 1904.09751), after the logits are divided by
    `temperature`.
    """

    p: float = field(metadata={"above": 0, "max": 1})
    temperature: float = field(default=1.0, metadata={"above": 0})


Decoding = Greedy | Beam | Temperature | TopP
KINDS: Mapping[str, type[Decoding]] = {
    "greedy": Greedy,
    "beam": Beam,
    "temperature": Temperature,
    "top_p": TopP,
}
"""By the `kind` of `workload.decoding`."""


def decoding(workload: WorkloadSpec) -> Decoding:
    """What `workload.decoding` says.

    Raises:
        StudyError: it says what no kind has.
    """
    given = workload.decoding
    cls = KINDS.get(str(given.get("kind")))
    if cls is None:
        raise StudyError(f"workload.decoding.kind: {given.get('kind')!r}; {', '.join(KINDS)}")
    faults = Faults()
    others = {key: value for key, value in given.items() if key != "kind"}
    found = read(cls, others, "workload.decoding", faults)
    if found is None or faults.found:
        raise StudyError(f"{where}: {message}" for where, message in faults.found)
    return found


def beams(asked: Decoding) -> int:
    """Texts that go on at a time for each request."""
    return asked.width if isinstance(asked, Beam) else 1


def draws(asked: Decoding) -> bool:
    """Whether tokens are drawn by chance."""
    return isinstance(asked, Temperature | TopP)
