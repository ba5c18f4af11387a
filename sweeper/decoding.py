"""Decoding strategies as a study asks for them: how tokens are chosen (pure).

Lengths are forced under each of them: no end of sequence ends a request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from sweeper.schema import read_kind
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
    """A token by chance, with probabilities of logits over `temperature`.

    `seed_requests` gives every request a seed of its own (`request_seed`), so that its text is the
    same in whatever batch. It is off: an engine may then draw row by row, and leave its fastest
    kernels (vLLM's first runner does both), which is not what serving costs.
    """

    temperature: float = field(default=1.0, metadata={"above": 0, "max": 2})
    seed_requests: bool = False


@dataclass(frozen=True, kw_only=True)
class TopP:
    """As `Temperature`, among the likeliest tokens that have `top_p` of the probability.

    Nucleus sampling (Holtzman et al., arXiv 1904.09751).
    """

    top_p: float = field(metadata={"above": 0, "max": 1})
    temperature: float = field(default=1.0, metadata={"above": 0, "max": 2})
    seed_requests: bool = False


Decoding = Greedy | Beam | Temperature | TopP
DECODINGS: Mapping[str, type[Decoding]] = {
    "greedy": Greedy,
    "beam": Beam,
    "temperature": Temperature,
    "top_p": TopP,
}
"""By the `kind` of `workload.decoding`."""
SEEDS = 2**31
"""Seeds are below this: every engine takes them."""


def decoding(workload: WorkloadSpec) -> Decoding:
    """What `workload.decoding` says.

    Raises:
        StudyError: it says what no kind has.
    """
    return read_kind(DECODINGS, workload.decoding, "workload.decoding")


def beam_width(workload: WorkloadSpec) -> int:
    """How many beams a request has: one where there is no beam search."""
    return beams(decoding(workload))


def request_seed(workload: WorkloadSpec, index: int) -> int:
    """A seed of one request: of its workload's seed and its index within the launch."""
    return (workload.seed * 1_000_003 + index) % SEEDS


def beams(asked: Decoding) -> int:
    """Texts that go on at a time for each request."""
    return asked.width if isinstance(asked, Beam) else 1


def draws(asked: Decoding) -> bool:
    """Whether tokens are drawn by chance."""
    return isinstance(asked, Temperature | TopP)
