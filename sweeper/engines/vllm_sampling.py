"""How vLLM is asked to choose tokens, and how many of them (pure).

Names are those of `vllm.SamplingParams`.
"""

from typing import Any

from sweeper.decoding import Beam, Temperature, TopP, decoding, request_seed
from sweeper.engines import Request
from sweeper.errors import Infeasible, StudyError
from sweeper.spec import Settings, WorkloadSpec

BEAM = (
    "workload.decoding beam: vLLM's beam search is a loop of its front end over requests of one "
    "token, each of which starts from its prompt again, and it tells of no token before the last; "
    "so nothing of it can be timed. greedy, temperature and top_p can"
)


def sampling(workload: WorkloadSpec, request: Request) -> dict[str, Any]:
    """The arguments of one request: its length is forced, and nothing is turned into text."""
    return {
        **_chance(workload, request),
        "min_tokens": request.output_tokens,
        "max_tokens": request.output_tokens,
        "ignore_eos": True,
        "detokenize": False,
    }


def refuse_decoding(settings: Settings) -> None:
    """Raises `Infeasible` for a decoding that vLLM does not do in steps that can be timed."""
    try:
        asked = decoding(settings.workload)
    except StudyError as error:
        raise Infeasible(str(error)) from error
    if isinstance(asked, Beam):
        raise Infeasible(BEAM)


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
