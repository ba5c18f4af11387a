"""Decoding strategies: what a study may say, what `generate` is asked, what was seen of it."""

from dataclasses import replace

import pytest

from sweeper.decoding import Beam, Greedy, Temperature, TopP, beams, decoding, draws
from sweeper.engines import Request
from sweeper.engines.simulated_batching import static
from sweeper.engines.simulated_decoding import TokenByToken
from sweeper.engines.transformers_decoding import (
    DecodingTally,
    Seen,
    batch_seed,
    decoding_options,
)
from sweeper.errors import StudyError, WrongSetting
from sweeper.gpu_data import gpu
from sweeper.roofline import estimate, memory, prefill
from sweeper.shapes import shape
from sweeper.spec import EngineSpec, Settings, Sizes, WorkloadSpec
from sweeper.study import load
from tests.oracle import journal_of
from tests.test_verify import study
from tests.verified import Kept, assert_verified

BEAM = {"kind": "beam", "width": 4}


def settings(**of: object) -> Settings:
    return Settings(engine=EngineSpec(kind="transformers"), workload=WorkloadSpec(**of))


@pytest.mark.parametrize(
    ("given", "asked", "options"),
    [
        ({"kind": "greedy"}, Greedy(), {"do_sample": False}),
        (BEAM, Beam(width=4), {"do_sample": False, "num_beams": 4}),
        (
            {"kind": "temperature", "temperature": 0.5},
            Temperature(temperature=0.5),
            {"do_sample": True, "temperature": 0.5, "top_k": 0},
        ),
        (
            {"kind": "top_p", "top_p": 0.9},
            TopP(top_p=0.9),
            {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "top_k": 0},
        ),
    ],
)
def test_a_strategy_is_what_generate_is_asked_for(given, asked, options):
    found = decoding(WorkloadSpec(decoding=given))
    assert found == asked
    assert decoding_options(found) == options
    assert draws(found) is options["do_sample"]
    assert beams(found) == options.get("num_beams", 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "greedy, beam, temperature, top_p"),
        ({"kind": "best"}, "best"),
        ({"kind": "beam"}, "workload.decoding.width: missing"),
        ({"kind": "temperature", "temperature": 0}, "workload.decoding.temperature"),
        ({"kind": "top_p", "top_p": 1.5}, "workload.decoding.top_p"),
        ({"kind": "top_p", "top_p": 0.5, "k": 3}, "workload.decoding.k"),
    ],
)
def test_what_no_strategy_has_is_said_by_the_study_too(tmp_path, given, said):
    with pytest.raises(StudyError, match=said):
        decoding(WorkloadSpec(decoding=given))
    text = f"model: {{shape: tiny, weights: dummy}}\nworkload: {{decoding: {given!r}}}\n"
    (tmp_path / "s.yaml").write_text(text.replace("'", '"'))
    with pytest.raises(StudyError, match=said):
        load(tmp_path / "s.yaml")


def test_batches_are_seeded_apart_and_again():
    def seed(seed: int, index: int) -> int:
        return batch_seed(settings(seed=seed), Request(index, [1], 1))

    seeds = {seed(s, index) for s in (0, 1, 2**32 - 1) for index in (0, 1, 2**31 - 1)}
    assert len(seeds) == 9
    assert max(seeds) < 2**63


@pytest.mark.parametrize(
    ("asked", "rows", "drew", "said"),
    [
        (Beam(width=4), 3, False, "12 sequences .* decoded 3"),
        (Greedy(), 12, False, "3 sequences .* decoded 12"),
        (Temperature(temperature=1.0), 3, False, "Temperature was asked, .* no token by chance"),
        (Greedy(), 3, True, "Greedy was asked, .* drew tokens by chance"),
    ],
)
def test_another_way_of_decoding_than_asked_is_told(asked, rows, drew, said):
    tally = DecodingTally()
    with pytest.raises(WrongSetting, match=said):
        tally.add(asked, Seen(requests=3, rows=rows, drew=drew))
    assert tally.counts() == {}


def test_requests_are_counted_by_how_they_were_decoded():
    tally = DecodingTally()
    tally.add(Greedy(), Seen(requests=2, rows=2, drew=False))
    tally.add(TopP(top_p=0.5), Seen(requests=3, rows=3, drew=True))
    assert tally.counts() == {"greedy_requests": 2.0, "sampled_requests": 3.0}
    tally.add(Beam(width=4), Seen(requests=5, rows=20, drew=False))
    assert tally.counts()["beam_search_requests"] == 5.0
    assert tally.counts()["beams"] == 20.0


def test_beams_cost_what_so_many_requests_would():
    """Every beam caches and attends for itself; transformers also reads each its prompt."""
    sizes = Sizes(max_model_len=576, max_batch_size=8, batch_sizes=(8,))
    llama, h200 = shape("llama-3.1-8b"), gpu("H200")
    one = settings(batch_size=8)
    four, as_many = settings(batch_size=8, decoding=BEAM), settings(batch_size=32)
    assert memory(four, llama, h200, sizes) == memory(as_many, llama, h200, sizes)
    assert prefill(four, llama, h200) == prefill(as_many, llama, h200)
    served = EngineSpec(kind="vllm")
    one, four, as_many = (replace(each, engine=served) for each in (one, four, as_many))
    assert prefill(four, llama, h200) == prefill(one, llama, h200)
    kept = [memory(each, llama, h200, sizes).kv_cache_bytes for each in (one, four, as_many)]
    assert kept[1] == kept[2] == 4 * kept[0]
    steps = [estimate(each, llama, h200).decode_step_s for each in (one, four, as_many)]
    assert steps[0] < steps[1] == steps[2]
    passes: list[tuple[int, int, float, float]] = []

    def step(*done: float) -> float:
        passes.append(done)  # type: ignore[arg-type]
        return float(len(passes))

    requests = [Request(index, [1] * 10, 3) for index in range(2)]
    events = list(static(requests, step, 0.0, TokenByToken(4)))
    assert passes[1:] == [(2, 8, 80.0, 80.0), (2, 8, 88.0, 88.0)]
    assert sum(event.tokens for event in events) == 4


def test_of_a_beam_search_only_latencies_are_known(tmp_path):
    made = study()
    workload = replace(made.settings.workload, decoding=BEAM)
    made = replace(made, settings=replace(made.settings, workload=workload))
    folder = Kept(made, tmp_path).measure()
    assert_verified(folder)
    records = [line["metrics"] for line in journal_of(folder) if line["kind"] == "record"]
    assert len(records) == 2
    for metrics in records:
        timed = {name.split("_")[0] for name in metrics}
        assert "latency" in timed
        assert not timed & {"ttft", "tpot", "itl"}
        assert metrics["output_tokens_per_s"] > 0
