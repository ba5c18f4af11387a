"""Drafts that propose, a model that verifies: what a simulated engine makes of it."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.engines import Request
from sweeper.engines.simulated_batching import continuous, static
from sweeper.engines.simulated_decoding import Speculative
from sweeper.errors import Infeasible
from sweeper.spec import Settings
from sweeper.trial.latency import Timeline, samples
from tests.simulated import asked, check_stream, loaded, requests, total_j

LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 30)), min_size=1, max_size=20)
ACCEPTANCE = st.sampled_from([0.0, 0.3, 0.8, 1.0])
LAUNCHES = 5
STATED = {"kind": "stated", "acceptance": 0.6, "tokens": 4}


class Passes:
    """Passes of both models, of 1 s each for the large one, noted."""

    def __init__(self, tokens: int, acceptance: float, seed: int = 0) -> None:
        self.done: list[tuple[int, int, float, float]] = []
        self.drafts: list[tuple[int, float, float]] = []
        self.counts = Counter[str]()
        self.decoding = Speculative(tokens, acceptance, seed, self.draft, self.counts)

    def __call__(self, requests: int, tokens: int, attended: float, cached: float) -> float:
        self.done.append((requests, tokens, attended, cached))
        return float(len(self.done))

    def draft(self, tokens: int, attended: float, cached: float) -> None:
        self.drafts.append((tokens, attended, cached))

    def now(self) -> float:
        return float(len(self.done))


def of_lengths(lengths: Sequence[tuple[int, int]]) -> list[Request]:
    return [Request(place, [0] * i, o) for place, (i, o) in enumerate(lengths)]


@given(
    lengths=LENGTHS, tokens=st.integers(1, 5), acceptance=ACCEPTANCE, in_flight=st.integers(1, 9)
)
def test_every_request_gets_exactly_its_tokens_in_bursts(
    lengths: list[tuple[int, int]], tokens: int, acceptance: float, in_flight: int
) -> None:
    queue = of_lengths(lengths)
    together, served = Passes(tokens, acceptance), Passes(tokens, acceptance)
    check_stream(list(static(queue, together, 0.0, together.decoding)), queue, 99, tokens + 1)
    stream = continuous(iter(queue), in_flight, 64, served, served.now, served.decoding)
    check_stream(list(stream), queue, in_flight, tokens + 1)
    for passes in (together, served):
        counts = passes.counts
        assert 0 <= counts["draft_tokens_accepted"] <= counts["draft_tokens_proposed"]
        assert (len(passes.decoding), passes.decoding.context) == (0, 0.0)
    # What a request is given depends on itself alone, not on whom it runs beside.
    assert together.counts == served.counts


def test_all_or_none_of_the_proposals_are_accepted_at_the_ends() -> None:
    for acceptance, steps in ((0.0, 20), (1.0, 4)):
        passes = Passes(4, acceptance)
        list(static([Request(0, [0] * 8, 21)], passes, 0.0, passes.decoding))
        assert len(passes.done) == 1 + steps
        assert passes.counts["draft_tokens_proposed"] == 4 * steps
        assert passes.counts["draft_tokens_accepted"] == 4 * steps * acceptance


def test_the_first_i_are_accepted_with_the_ith_power() -> None:
    passes = Passes(4, 0.6)
    events = list(static([Request(0, [0], 40_001)], passes, 0.0, passes.decoding))
    gained = Counter(event.tokens - 1 for event in events if event.kind == "tokens")
    steps = gained.total()
    for place in range(1, 5):
        reached = sum(count for accepted, count in gained.items() if accepted >= place)
        assert reached / steps == pytest.approx(0.6**place, abs=0.012)


def test_a_step_verifies_what_drafts_proposed_and_the_drafts_read_the_prompts() -> None:
    passes = Passes(2, 0.0)
    batch = [Request(0, [0] * 8, 3), Request(1, [0] * 4, 3)]
    list(static(batch, passes, 0.0, passes.decoding))
    # Two requests, three tokens each; behind them 12 tokens, then 14.
    assert passes.done == [
        (2, 12, 40.0, 0.0),
        (2, 6, 3 * 12 + 2 * (1 + 2), 12),
        (2, 6, 3 * 14 + 2 * (1 + 2), 14),
    ]
    assert passes.drafts == [(12, 40.0, 0.0), (2, 12, 12), (2, 14, 14), (2, 14, 14), (2, 16, 16)]


def test_another_seed_accepts_others() -> None:
    def gained(seed: int) -> list[int]:
        passes = Passes(4, 0.6, seed)
        batch = of_lengths([(8, 60)] * 8)
        return [event.tokens for event in static(batch, passes, 0.0, passes.decoding)]

    assert gained(1) == gained(1) != gained(2)


def test_tokens_of_one_burst_have_no_gap_between_them() -> None:
    """Three requests, two proposals each that are all accepted: 1 + 3 + 3 tokens, 1 s apart."""
    passes = Passes(2, 1.0)
    batch = of_lengths([(4, 7)] * 3)
    timeline = Timeline()
    for event in static(batch, passes, 0.0, passes.decoding):
        timeline.add(event)
    lengths = {request.index: request.output_tokens for request in batch}
    seen = samples(timeline, lengths, -1.0, 9.0, streams=True)
    assert seen.ttft_s == (1.0,) * 3
    assert seen.latency_s == (3.0,) * 3
    assert seen.tpot_s == pytest.approx((2.0 / 6,) * 3)
    plain = seen.plain()
    assert plain["itl_s"] == [(0.0, 12), (1.0, 6)]
    assert sum(tokens for _, tokens, _ in timeline.steps) == 18


def speculating(batch: int, said: dict[str, Any] | None, **options: object) -> Settings:
    return asked(batch, shape_name="llama-3.1-8b", engine={"speculative": said}, noise=0, **options)


def joules_per_token(batch: int, said: dict[str, Any] | None) -> float:
    """The mean over launches, which differ from each other by a per cent or two."""
    found = []
    for seed in range(LAUNCHES):
        of = speculating(batch, said, seed=seed)
        engine = loaded(of)
        before = total_j(engine)
        list(engine.generate(requests(batch, 129), of))
        found.append((total_j(engine) - before) / (batch * 129))
    return statistics.fmean(found)


def test_it_pays_in_small_batches_and_costs_in_large_ones() -> None:
    """As published (arXiv 2504.17674, 3.2): it saves up to batch 16 and costs at batch 128."""
    changes = {
        batch: joules_per_token(batch, STATED) / joules_per_token(batch, None) - 1
        for batch in (1, 4, 16, 64, 128)
    }
    assert list(changes.values()) == sorted(changes.values())
    assert changes[1] < -0.15
    assert changes[16] < 0
    assert changes[128] > 0.1
    eager_to_accept = joules_per_token(128, {**STATED, "acceptance": 0.9})
    assert eager_to_accept < joules_per_token(128, STATED)


def test_it_says_what_drafts_and_counts_what_was_accepted() -> None:
    of = speculating(8, STATED)
    engine = loaded(of)
    assert engine._resolved(engine._working())["draft"] == "llama-3.2-1b"
    list(engine.generate(requests(8, 100), of))
    counts = engine.counts()
    assert counts["draft_tokens_proposed"] % 4 == 0
    rate = counts["draft_tokens_accepted"] / counts["draft_tokens_proposed"]
    assert rate == pytest.approx(sum(0.6**i for i in range(1, 5)) / 4, abs=0.04)
    plain = loaded(speculating(8, None))
    assert "draft_tokens_proposed" not in plain.counts()
    named = loaded(speculating(8, {"kind": "draft", "model": "llama-3.1-8b", "tokens": 2}))
    assert named._resolved(named._working())["draft"] == "llama-3.1-8b"


def test_a_draft_takes_memory_and_what_ngrams_find_is_not_known() -> None:
    loaded(speculating(1, None))
    with pytest.raises(Infeasible, match="out of memory"):
        loaded(speculating(1, {**STATED, "model": "llama-3.1-70b"}))
    with pytest.raises(Infeasible, match="vocabulary"):
        loaded(speculating(1, {**STATED, "model": "olmo-1b"}))
    with pytest.raises(Infeasible, match="what ngram finds"):
        loaded(speculating(1, {"kind": "ngram", "tokens": 2}))
