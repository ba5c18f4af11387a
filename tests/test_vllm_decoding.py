"""How a study asks for decoding, and how vLLM is asked for it."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.decoding import (
    SEEDS,
    Beam,
    Greedy,
    Temperature,
    TopP,
    beam_width,
    decoding,
    request_seed,
)
from sweeper.engines import Request
from sweeper.engines.vllm_sampling import refuse_decoding, sampling
from sweeper.errors import Infeasible, StudyError
from sweeper.spec import EngineSpec, Settings, WorkloadSpec


def workload(seed: int = 0, **said: object) -> WorkloadSpec:
    return WorkloadSpec(decoding=said, seed=seed)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({"kind": "greedy"}, Greedy()),
        ({"kind": "beam", "width": 4}, Beam(width=4)),
        ({"kind": "temperature"}, Temperature(temperature=1.0)),
        ({"kind": "temperature", "temperature": 0.7}, Temperature(temperature=0.7)),
        (
            {"kind": "top_p", "top_p": 0.9, "seed_requests": True},
            TopP(top_p=0.9, temperature=1.0, seed_requests=True),
        ),
    ],
)
def test_each_kind_is_read(said, meant):
    assert decoding(workload(**said)) == meant


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({"kind": "nucleus"}, "nucleus"),
        ({"kind": "beam"}, "width"),
        ({"kind": "temperature", "temperature": 0}, "temperature"),
        ({"kind": "top_p"}, "top_p"),
        ({"kind": "top_p", "top_p": 1.5}, "top_p"),
    ],
)
def test_what_no_kind_has_is_named(said, fault):
    with pytest.raises(StudyError, match=fault):
        decoding(workload(**said))


REQUEST = Request(7, [1, 2], 9)


def test_vllm_is_asked_for_chance_and_for_every_token():
    greedy = sampling(workload(kind="greedy"), REQUEST)
    assert greedy == {
        "temperature": 0.0,
        "min_tokens": 9,
        "max_tokens": 9,
        "ignore_eos": True,
        "detokenize": False,
    }
    nucleus = sampling(workload(kind="top_p", top_p=0.9, temperature=0.5), REQUEST)
    assert nucleus == {**greedy, "temperature": 0.5, "top_p": 0.9}
    warm = sampling(workload(3, kind="temperature", seed_requests=True), REQUEST)
    assert warm == {**greedy, "temperature": 1.0, "seed": 3 * 1_000_003 + 7}


def test_a_beam_is_asked_for_one_token_and_its_candidates():
    found = sampling(workload(kind="beam", width=3), REQUEST)
    assert (found["min_tokens"], found["max_tokens"], found["logprobs"]) == (1, 1, 6)
    assert (found["temperature"], found["ignore_eos"]) == (0.0, True)
    assert beam_width(workload(kind="beam", width=3)) == 3
    assert beam_width(workload(kind="greedy")) == 1


def test_vllm_refuses_what_there_is_nothing_to_do_for():
    settings = Settings(workload=workload(kind="beam", width=2))
    refuse_decoding(settings)
    ngram = EngineSpec(speculative={"kind": "ngram", "tokens": 2})
    with pytest.raises(Infeasible, match="nothing to speculate on"):
        refuse_decoding(replace(settings, engine=ngram))
    with pytest.raises(Infeasible, match="nucleus"):
        refuse_decoding(replace(settings, workload=workload(kind="nucleus")))
    refuse_decoding(replace(settings, workload=workload(kind="temperature")))


@given(st.integers(0, 2**32 - 1), st.integers(0, 10**6), st.integers(0, 10**6))
def test_requests_of_a_launch_have_seeds_of_their_own(seed, one, other):
    seeds = [request_seed(workload(seed, kind="greedy"), index) for index in (one, other)]
    assert all(0 <= each < SEEDS for each in seeds)
    assert (seeds[0] == seeds[1]) is (one == other)
