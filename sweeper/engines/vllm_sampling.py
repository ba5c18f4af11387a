"""How vLLM is asked to choose tokens, and how many of them (pure).

Names are those of `vllm.SamplingParams`.
"""

from typing import Any

from sweeper.decoding import Beam, Temperature, TopP, decoding, request_seed
from sweeper.engines import Request
from sweeper.errors import Infeasible, StudyError
from sweeper.spec import Settings, WorkloadSpec

BEAM_SPECULATES = (
    "workload.decoding beam: vLLM asks for one token of each beam at a time, so there is nothing "
    "to speculate on: leave engine.speculative out"
)


def sampling(workload: WorkloadSpec, request: Request) -> dict[str, Any]:
    """The arguments of one request: its length is forced, and nothing is turned into text.

    Of a beam they ask for one token and twice as many candidates as there are beams, as vLLM's
    own search does.
    """
    width = beams(workload)
    length = 1 if width else request.output_tokens
    return {
        **_chance(workload, request),
        **({"logprobs": 2 * width} if width else {}),
        "min_tokens": length,
        "max_tokens": length,
        "ignore_eos": True,
        "detokenize": False,
    }


def refuse_decoding(settings: Settings) -> None:
    """Raises `Infeasible` for a decoding that does not exist, or not beside speculation."""
    try:
        asked = decoding(settings.workload)
    except StudyError as error:
        raise Infeasible(str(error)) from error
    if isinstance(asked, Beam) and settings.engine.speculative is not None:
        raise Infeasible(BEAM_SPECULATES)


def beams(workload: WorkloadSpec) -> int | None:
    """How many beams search for one answer; `None` where none do."""
    asked = decoding(workload)
    return asked.width if isinstance(asked, Beam) else None


def _chance(workload: WorkloadSpec, request: Request) -> dict[str, Any]:
    asked = decoding(workload)
    if not isinstance(asked, Temperature | TopP):
        return {"temperature": 0.0}
    found: dict[str, Any] = {"temperature": asked.temperature}
    if isinstance(asked, TopP):
        found["top_p"] = asked.top_p
    if asked.seed_requests:
        found["seed"] = request_seed(workload, request.index)
    return found
