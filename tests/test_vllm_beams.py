"""Beam search over requests of one token each: pure, no vLLM, held against all texts there are."""

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.engines import Event, Request
from sweeper.engines.vllm_beams import Searching
from sweeper.engines.vllm_events import Ask, Output

PROMPT = (9, 9)
VOCABULARY = 4


def candidates(model, token_ids, count) -> dict[int, float]:
    """The likeliest next tokens, by the last one alone."""
    row = model[token_ids[-1] % len(model)]
    ordered = sorted(range(VOCABULARY), key=lambda token: -row[token])
    return {token: row[token] for token in ordered[:count]}


def answered(model, ask: Ask, width: int) -> Output:
    logprobs = candidates(model, ask.token_ids, 2 * width)
    return Output(ask.name, 1, True, "length", logprobs)


def searched(model, width: int, length: int) -> tuple[list[Event], list[Ask]]:
    """All events, and the requests of the last round."""
    searching = Searching(width)
    asks, events = searching.begin(Request(3, PROMPT, length)), []
    last = asks
    for round_ in range(length):
        last = asks
        outputs = [answered(model, ask, width) for ask in asks]
        events += searching.events(outputs, float(round_))
        asks = searching.follow()
    assert asks == [] == searching.names
    assert len(searching) == 0
    return events, last


MODELS = st.lists(
    st.lists(
        st.integers(-800, -1).map(lambda hundredths: hundredths / 100),
        min_size=VOCABULARY,
        max_size=VOCABULARY,
        unique=True,
    ),
    min_size=1,
    max_size=VOCABULARY,
)


@given(MODELS, st.integers(1, 4), st.integers(1, 5))
def test_each_round_is_a_token_and_the_last_one_ends(model, width, length):
    events, last = searched(model, width, length)
    assert [event.kind for event in events] == [
        "first_token",
        *["tokens"] * (length - 1),
        "finished",
    ]
    assert {event.tokens for event in events if event.kind == "tokens"} <= {1}
    assert len(last) <= width
    assert {len(ask.token_ids) for ask in last} == {len(PROMPT) + length - 1}


@given(MODELS, st.integers(1, 4))
def test_enough_beams_find_the_likeliest_texts(model, length):
    """As wide as there are texts, nothing is lost: held against all of them."""
    width = VOCABULARY ** (length - 1)

    def logprob(text) -> float:
        before = (PROMPT[-1], *text)
        return math.fsum(model[a % len(model)][b] for a, b in zip(before, text, strict=False))

    _, last = searched(model, width, length)
    found = [tuple(ask.token_ids[len(PROMPT) :]) for ask in last]
    texts = sorted(product(range(VOCABULARY), repeat=length - 1), key=lambda text: -logprob(text))
    assert sorted(map(logprob, found)) == pytest.approx(sorted(map(logprob, texts[:width])))


def test_requests_go_on_by_themselves_and_one_that_fails_takes_its_beams_along():
    model = [[-1.0, -2.0, -3.0, -4.0]]
    searching = Searching(2)
    one, other = (searching.begin(Request(n, PROMPT, 3))[0] for n in (0, 1))
    assert [e.request for e in searching.events([answered(model, one, 2)], 1.0)] == [0]
    beams = searching.follow()
    assert [ask.token_ids[-1] for ask in beams] == [0, 1]
    # Half a round is none.
    assert list(searching.events([answered(model, beams[0], 2)], 2.0)) == []
    told = list(searching.events([answered(model, beams[1], 2), answered(model, other, 2)], 3.0))
    assert [(e.kind, e.request, e.tokens, e.running) for e in told] == [
        ("tokens", None, 1, 1),
        ("first_token", 1, 0, 0),
    ]
    asks = searching.follow()
    assert len(asks) == 4
    assert len({ask.name for ask in [one, other, *beams, *asks]}) == 8
    of_one = [ask for ask in asks if ask.request.index == 0]
    failed = list(searching.events([Output(of_one[0].name, 0, True, "abort")], 4.0))
    assert [(e.kind, e.request, e.detail) for e in failed] == [("failed", 0, "ended by abort")]
    assert list(searching.events([answered(model, of_one[1], 2)], 5.0)) == []
    assert len(searching) == 1
    searching.clear()
    assert (len(searching), searching.names, searching.follow()) == (0, [], [])
