"""transformers' own continuous batching, with a real model on the CPU."""

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Event, Request
from sweeper.errors import EngineError, Infeasible
from sweeper.spec import (
    EngineSpec,
    MeasureSpec,
    ModelSpec,
    Point,
    Settings,
    Sizes,
    WarmupSpec,
    WorkloadSpec,
)
from sweeper.trial.bench import Bench, Context
from sweeper.trial.steady import SteadyWindows
from sweeper.workloads import workload_class
from tests.fakes import FakeMeter
from tests.simulated import check_stream

pytestmark = pytest.mark.engine

INPUT, OUTPUT, IN_FLIGHT = 16, 8, 3
SIZES = Sizes(max_model_len=2 * (INPUT + OUTPUT), max_batch_size=4, batch_sizes=(1, 4))
ENGINE = EngineSpec(
    kind="transformers", dtype="float32", compile=False, graphs=False, max_batched_tokens=64
)
SETTINGS = Settings(
    engine=ENGINE,
    workload=WorkloadSpec(
        batching="continuous", batch_size=IN_FLIGHT, input_tokens=INPUT, output_tokens=OUTPUT
    ),
    measure=MeasureSpec(warmup=WarmupSpec(min_batches=1, max_batches=2), min_window_s=0.2),
)
LENGTHS = (OUTPUT, 1, 3, OUTPUT, 2, 5, OUTPUT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a model that says different things."""
    from transformers import AutoConfig

    from sweeper import shapes

    found = tmp_path_factory.mktemp("restless")
    altered = {"tie_word_embeddings": False, "initializer_range": 0.1}
    AutoConfig.for_model(**{**shapes.architecture("tiny"), **altered}).save_pretrained(found)
    return str(found)


def made(folder: str, **spec: Any) -> Any:
    from sweeper.engines.transformers import TransformersEngine

    settings = replace(
        SETTINGS,
        model=ModelSpec(id=folder, weights="dummy"),
        engine=replace(ENGINE, **spec),
    )
    return TransformersEngine(settings, SIZES, (), RealClock())


@pytest.fixture(scope="module")
def engine(folder: str) -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        engine = made(folder)
        engine.resolved = engine.load()
        yield engine
        engine.close()


def requests(first: int = 0) -> list[Request]:
    return [
        Request(
            first + place, [(31 * place + 7 * at) % 4096 for at in range(INPUT - place)], output
        )
        for place, output in enumerate(LENGTHS)
    ]


def served(engine: Any, batch: list[Request], in_flight: int = IN_FLIGHT) -> list[Event]:
    return list(engine.serve(iter(batch), in_flight, SETTINGS))


def test_what_the_manager_took_is_told(engine: Any) -> None:
    assert (engine.resolved["batching"], engine.resolved["attention"]) == ("continuous", "sdpa")
    assert engine.resolved["max_batched_tokens"] == 64
    taken = engine.resolved["continuous"]
    assert (taken["max_batch_tokens"], taken["max_requests_per_batch"]) == (64, 4)
    assert taken["blocks"] >= 4
    assert not taken["block_sharing"]
    assert not engine._batching(SETTINGS).draws


def test_a_finished_request_makes_room_for_the_next_at_once(engine: Any) -> None:
    batch = requests()
    before = engine.counts()["generated_tokens"]
    events = served(engine, batch)
    check_stream(events, batch, IN_FLIGHT)
    assert engine.counts()["generated_tokens"] - before == sum(LENGTHS)
    steps = [event for event in events if event.kind == "tokens"]
    assert {event.running for event in steps} >= {2, 3}
    kinds = [event.kind for event in events]
    assert kinds.index("finished") < len(kinds) - 1 - kinds[::-1].index("admitted")


def test_it_says_what_a_static_batch_says(engine: Any) -> None:
    """Whatever is in flight beside a request: its text is that of its prompt alone."""
    said: dict[str, list[int]] = {}
    batching = engine._batching(SETTINGS)
    deliver = batching._steps.deliver_batch

    def noted(outputs: list[Any]) -> None:
        said.update((each.request_id, list(each.generated_tokens)) for each in outputs)
        deliver(outputs)

    batching._steps.deliver_batch = noted
    batch = requests()
    served(engine, batch)
    alone = []
    for request in batch:
        list(engine.generate([request], Settings()))
        alone += engine.last_tokens.tolist()
    assert [said[name] for name in sorted(said, key=int)] == alone
    assert len({token for row in alone for token in row}) > OUTPUT


def test_who_stops_listening_leaves_nothing_behind(engine: Any) -> None:
    endless = (replace(requests()[0], index=index) for index in itertools.count())
    with closing(engine.serve(endless, IN_FLIGHT, SETTINGS)) as events:
        for event in events:
            if event.kind == "finished":
                break
    batch = requests(first=1000)
    check_stream(served(engine, batch), batch, IN_FLIGHT)


def test_steady_windows_are_taken_of_it(engine: Any) -> None:
    clock = RealClock()
    meter = FakeMeter(clock, ("cpu",))  # type: ignore[arg-type]
    meter.min_window_s = 0.1
    bench = Bench(
        engine=engine,
        meter=meter,
        clock=clock,
        devices=meter.devices,
        context=Context(name="t", study="s", trial_id="t", attempt=0, environment={}),
        emit=lambda kind, fields: None,
    )
    point = Point(id="p", configuration="c", condition={}, chosen={}, settings=SETTINGS)
    workload = workload_class("fixed")(SETTINGS.workload, 4096, 0)
    window = SteadyWindows(point, workload, bench, 9).take(0).window
    assert window.requests >= 9
    assert window.requests_failed == 0
    assert window.output_tokens == pytest.approx(window.requests * OUTPUT, rel=0.3)
    assert window.input_tokens == pytest.approx(window.requests * INPUT, rel=0.3)
    assert {"ttft_s", "tpot_s", "latency_s", "itl_s"} <= window.samples.keys()


def test_tokens_are_drawn_as_often_as_the_model_says(engine: Any) -> None:
    """Within five standard errors, for every token that is likely enough to be counted."""
    import torch

    temperature, many = 0.25, 300
    prompt = requests()[0].prompt_token_ids
    decoding = {"kind": "temperature", "temperature": temperature}
    asked = replace(SETTINGS, workload=replace(SETTINGS.workload, decoding=decoding))
    drawn: Counter[int] = Counter()
    batching = engine._batching(asked)
    deliver = batching._steps.deliver_batch

    def noted(outputs: list[Any]) -> None:
        drawn.update(each.generated_tokens[0] for each in outputs)
        deliver(outputs)

    batching._steps.deliver_batch = noted
    list(engine.serve((Request(index, prompt, 1) for index in range(many)), 4, asked))
    with torch.no_grad():
        logits = engine.model(torch.tensor([prompt])).logits[0, -1]
    probabilities = torch.softmax(logits / temperature, dim=-1).tolist()
    likely = [token for token, p in enumerate(probabilities) if p * many > 12]
    assert len(likely) > 2
    for token in likely:
        p = probabilities[token]
        error = (many * p * (1 - p)) ** 0.5
        assert drawn[token] == pytest.approx(many * p, abs=5 * error)


def test_what_does_not_fit_is_infeasible_and_the_others_go_on(engine: Any) -> None:
    with pytest.raises(Infeasible, match="5 requests in flight, the launch is made for 4"):
        served(engine, requests(), in_flight=5)
    with pytest.raises(Infeasible, match="108 positions asked, the launch is made for 48"):
        served(engine, [*requests(), Request(99, [1] * 100, 8)])
    batch = requests(first=2000)
    check_stream(served(engine, batch), batch, IN_FLIGHT)


def test_a_loop_that_died_is_told_and_another_starts(engine: Any) -> None:
    batching = engine._batching(SETTINGS)

    def broken() -> None:
        raise ValueError("no such kernel")

    batching._manager._generation_step = broken
    with pytest.raises(EngineError, match="no such kernel"):
        served(engine, requests())
    batch = requests(first=3000)
    check_stream(served(engine, batch), batch, IN_FLIGHT)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"compile": True}, "engine.compile with workload.batching continuous"),
        ({"options": {"repetition_penalty": 2.0}}, "engine.options"),
        (
            {"speculative": {"kind": "ngram", "tokens": 2, "prompt_lookup_min": 1}},
            "engine.speculative",
        ),
    ],
)
def test_what_static_batches_alone_have_is_refused(
    folder: str, spec: dict[str, Any], said: str
) -> None:
    engine = made(folder, **spec)
    with pytest.raises(Infeasible, match=said):
        engine.load()
    engine.close()
