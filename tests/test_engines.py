"""Every engine keeps the contract."""

from collections.abc import Callable, Iterator

import pytest

from sweeper.clocks import clock_for
from sweeper.engines import ENGINES, Engine, Request, engine_class
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec
from tests.contract_engine import (
    CONTRACT,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Subject,
    batch,
    it_closes_twice_loaded_or_not,
)

ENGINE_SPECS = {
    "vllm": EngineSpec(kind="vllm", compile=False, graphs=False),
    "vllm, online": EngineSpec(kind="vllm", mode="online", compile=False, graphs=False),
    "transformers": EngineSpec(kind="transformers", compile=False, graphs=False),
    "transformers, beam search": EngineSpec(kind="transformers", compile=False, graphs=False),
    "transformers, top-p": EngineSpec(kind="transformers", compile=False, graphs=False),
    "transformers, with a draft": EngineSpec(
        kind="transformers",
        compile=False,
        graphs=False,
        speculative={"kind": "draft", "model": "tiny", "tokens": 3},
    ),
    "simulated": EngineSpec(kind="simulated", options={"oom_above_batch": 6}),
    "simulated, with a draft": EngineSpec(
        kind="simulated",
        options={"oom_above_batch": 6},
        speculative={"kind": "stated", "acceptance": 0.6, "tokens": 3, "model": "tiny"},
    ),
}
DECODINGS: dict[str, dict[str, object]] = {
    "transformers, beam search": {"kind": "beam", "width": 3},
    "transformers, top-p": {"kind": "top_p", "top_p": 0.9, "temperature": 0.8},
}
STATIC_ONLY = {"transformers, with a draft", "transformers, beam search"}
MOST_REQUESTS = {"transformers, with a draft": 1}
VLLM = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]
"""Of its imports."""
LONG_PROMPT = [1] * 8000
ABSURD = {
    "vllm": [Request(0, LONG_PROMPT, OUTPUT_TOKENS)],
    # Even of the tiny model, their keys and values are 1.6 TB.
    "transformers": [Request(place, LONG_PROMPT, OUTPUT_TOKENS) for place in range(100_000)],
    "simulated": batch(7),
}
SIZES = Sizes(max_model_len=INPUT_TOKENS + OUTPUT_TOKENS, max_batch_size=8, batch_sizes=(1, 8))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("vllm", marks=VLLM),
        pytest.param("vllm, online", marks=VLLM),
        pytest.param("transformers", marks=pytest.mark.engine),
        pytest.param("transformers, beam search", marks=pytest.mark.engine),
        pytest.param("transformers, top-p", marks=pytest.mark.engine),
        pytest.param("transformers, with a draft", marks=pytest.mark.engine),
        "simulated",
        "simulated, with a draft",
    ],
)
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    settings = Settings(
        model=ModelSpec(shape="tiny", weights="dummy"),
        engine=ENGINE_SPECS[request.param],
        workload=WorkloadSpec(
            batching="static",
            input_tokens=INPUT_TOKENS,
            output_tokens=OUTPUT_TOKENS,
            batch_size=8,
            decoding=DECODINGS.get(request.param, {"kind": "greedy"}),
        ),
        meter="simulated",
    )

    def make() -> Engine:
        return engine_class(settings.engine.kind)(settings, SIZES, (), clock_for(settings))

    engine = make()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        resolved = engine.load()
        yield Subject(
            engine=engine,
            resolved=resolved,
            settings=settings,
            make=make,
            absurd=ABSURD[settings.engine.kind],
            serves=request.param not in STATIC_ONLY,
            most_requests=MOST_REQUESTS.get(request.param, 4),
        )
    engine.close()


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_an_engine_keeps_its_contract(subject: Subject, clause: Callable[[Subject], None]) -> None:
    clause(subject)


@pytest.mark.slow
def test_an_engine_that_is_launched_again_closes_as_often_as_wanted(subject: Subject) -> None:
    it_closes_twice_loaded_or_not(subject)


def test_every_engine_is_held_to_the_contract() -> None:
    here = {spec.kind for spec in ENGINE_SPECS.values()}
    assert here == set(ABSURD) == set(ENGINES) - {"endpoint"}, "see test_endpoint_vllm.py"
