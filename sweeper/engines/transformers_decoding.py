"""How `generate` is asked for a decoding strategy, and what it was seen to do (pure)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sweeper.decoding import Beam, Decoding, Temperature, TopP, beams, decoding, draws
from sweeper.engines import Request
from sweeper.errors import Infeasible, StudyError, WrongSetting
from sweeper.spec import Settings


def strategy(settings: Settings) -> Decoding:
    """What `workload.decoding` asks for.

    Raises:
        Infeasible: no strategy has such keys.
    """
    try:
        return decoding(settings.workload)
    except StudyError as error:
        raise Infeasible(str(error)) from error


def decoding_options(asked: Decoding) -> dict[str, Any]:
    """Options of `generate`; `top_k`, which it would set to 50 by itself, is off."""
    if isinstance(asked, Beam):
        return {"do_sample": False, "num_beams": asked.width}
    if isinstance(asked, Temperature):
        return {"do_sample": True, "temperature": asked.temperature, "top_k": 0}
    if isinstance(asked, TopP):
        return {
            "do_sample": True,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "top_k": 0,
        }
    return {"do_sample": False}


def batch_seed(settings: Settings, first: Request) -> int:
    """Seeds what is drawn in a batch: the same batch says the same again, another says another."""
    return settings.workload.seed * 2**31 + first.index


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a batch of `requests` was seen to do.

    `rows` are the sequences that its steps computed together, `drew` says whether the generator
    of random numbers was used.
    """

    requests: int
    rows: int
    drew: bool


class Steps:
    """A logits processor that changes nothing: it counts steps and the rows of the last one.

    A beam search hands no tokens to a streamer, but it asks its processors at every step.
    """

    def __init__(self) -> None:
        self.steps = 0
        """Steps of all batches so far; another thread may read it."""
        self.rows = 0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Called by `generate` with what was written so far and what may follow."""
        self.steps += 1
        self.rows = len(scores)
        return scores


class DecodingTally:
    """Requests that were decoded in each way since load."""

    def __init__(self) -> None:
        self._requests: Counter[str] = Counter()
        self._beams = 0

    def add(self, asked: Decoding, seen: Seen) -> None:
        """Count a batch.

        Raises:
            WrongSetting: it was decoded in another way than was asked.
        """
        wanted = beams(asked) * seen.requests
        if seen.rows != wanted:
            raise WrongSetting(
                f"workload.decoding: {wanted} sequences were to be decoded together, "
                f"transformers decoded {seen.rows}"
            )
        if seen.drew != draws(asked):
            did = "drew tokens by chance" if seen.drew else "drew no token by chance"
            raise WrongSetting(
                f"workload.decoding: {type(asked).__name__} was asked, transformers {did}"
            )
        if isinstance(asked, Beam):
            self._requests["beam_search_requests"] += seen.requests
            self._beams += seen.rows
        else:
            name = "sampled_requests" if seen.drew else "greedy_requests"
            self._requests[name] += seen.requests

    def counts(self) -> Mapping[str, float]:
        """Requests of every way there was; those of beam search also with the beams they had."""
        found = {name: float(count) for name, count in self._requests.items()}
        return {**found, "beams": float(self._beams)} if self._beams else found
