"""Prefill parted from decoding, from windows of both and windows of prefill alone (pure).

With E joules per request over windows of whole requests, P over windows of the same prompts with
one token each, and n output tokens a request,

    prefill = P per request        decode = (E - P) / (n - 1) per token after the first

The two kinds of windows are taken one after the other in every pass, on the same devices at the
same batch size. The difference carries the scatter of both: its variance is the sum of theirs.
What it cannot tell: in a continuous batch prefill and decoding share passes, and P is measured
with nothing beside it.
"""

import math
import statistics
from collections.abc import Sequence

from sweeper.results.record import Window

PHASE_METRICS = {
    "energy_prefill_per_request_j": "joules of a request's prompt and first token, from windows "
    "of prefill alone",
    "energy_prefill_per_input_token_j": "joules of prefill per token of the prompt",
    "energy_decode_per_output_token_j": "joules per generated token after the first: a request's "
    "less its prefill's",
}
Numbers = dict[str, float]


def phase_metrics(windows: Sequence[Window]) -> tuple[Numbers, Numbers]:
    """The split of one launch's windows of a point, and its standard deviations over windows.

    What they cannot tell is absent; so is a deviation where a kind of windows has fewer than two
    with energy.
    """
    whole = [each for each in windows if each.phase == "all" and _usable(each)]
    prompts = [each for each in windows if each.phase == "prefill" and _usable(each)]
    found: Numbers = {}
    spread: Numbers = {}
    if not prompts:
        return found, spread
    prefill_j, prefill_sd = _per_request_j(prompts)
    requests = sum(window.requests for window in prompts)
    prompt = sum(window.input_tokens for window in prompts) / requests
    _note("energy_prefill_per_request_j", prefill_j, prefill_sd, 1.0, found, spread)
    _note("energy_prefill_per_input_token_j", prefill_j, prefill_sd, prompt, found, spread)
    if whole:
        request_j, request_sd = _per_request_j(whole)
        requests = sum(window.requests for window in whole)
        answer = sum(window.output_tokens for window in whole) / requests - 1
        sd = None
        if request_sd is not None and prefill_sd is not None:
            sd = math.hypot(request_sd, prefill_sd)
        name = "energy_decode_per_output_token_j"
        _note(name, request_j - prefill_j, sd, answer, found, spread)
    return found, spread


def _note(
    name: str, joules: float, sd: float | None, below: float, found: Numbers, spread: Numbers
) -> None:
    if below <= 0 or joules <= 0:
        return
    found[name] = joules / below
    if sd is not None:
        spread[name] = sd / below


def _usable(window: Window) -> bool:
    return window.energy_j is not None and window.requests > 0


def _per_request_j(windows: Sequence[Window]) -> tuple[float, float | None]:
    """Joules per request as a ratio of sums, and their standard deviation over windows."""
    each = [(w.energy_j or 0.0) / w.requests for w in windows]
    total_j = math.fsum(w.energy_j or 0.0 for w in windows)
    mean_j = total_j / sum(w.requests for w in windows)
    return mean_j, statistics.stdev(each) if len(each) >= 2 else None
