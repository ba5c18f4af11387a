"""Simulated engines and work for them."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

from sweeper.clocks import clock_for
from sweeper.engines import Event, Request
from sweeper.engines.simulated import SimulatedEngine
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec

INPUT, OUTPUT = 64, 16
SIZES = Sizes(max_model_len=1024, max_batch_size=512, batch_sizes=(4,))


def asked(
    batch: int = 4,
    *,
    shape_name: str = "llama-3.2-1b",
    devices: int = 1,
    meter: str = "simulated",
    engine: dict[str, object] | None = None,
    **options: object,
) -> Settings:
    spec = {"kind": "simulated", "tensor_parallel": devices, "options": options, **(engine or {})}
    return Settings(
        model=ModelSpec(shape=shape_name),
        engine=EngineSpec(**spec),
        workload=WorkloadSpec(batch_size=batch, input_tokens=INPUT, output_tokens=OUTPUT),
        meter=meter,
    )


def made(of: Settings, devices: Sequence[str] = ()) -> SimulatedEngine:
    return SimulatedEngine(of, SIZES, devices, clock_for(of))


def loaded(of: Settings, devices: Sequence[str] = ()) -> SimulatedEngine:
    engine = made(of, devices)
    engine.load()
    return engine


def requests(count: int, output_tokens: int = OUTPUT) -> list[Request]:
    return [Request(index, [7] * INPUT, output_tokens) for index in range(count)]


def endless() -> Iterator[Request]:
    return (Request(index, [7] * INPUT, OUTPUT) for index in itertools.count())


def total_j(engine: SimulatedEngine) -> float:
    return sum(engine.energy_j().values())


def generated(events: Sequence[Event]) -> int:
    return sum(event.tokens + (event.kind == "first_token") for event in events)


def check_stream(
    events: Sequence[Event], given_: Sequence[Request], limit: int, most_tokens: int = 1
) -> None:
    """What holds of any stream of events, by replaying it.

    A step gives each request that runs at least one token and at most `most_tokens`; with one, the
    steps that a request took part in are its tokens.
    """
    times = [event.t_s for event in events]
    assert times == sorted(times)
    state: dict[int, list[str]] = {request.index: [] for request in given_}
    decoding: set[int] = set()
    steps = Counter[int]()
    for event in events:
        if event.kind == "tokens":
            assert event.running == len(decoding)
            assert event.running <= event.tokens <= event.running * most_tokens
            steps.update(decoding)
            continue
        assert event.request is not None
        state[event.request].append(event.kind)
        if event.kind == "first_token":
            decoding.add(event.request)
        if event.kind == "finished":
            decoding.remove(event.request)
        admitted = sum("admitted" in kinds for kinds in state.values())
        finished = sum("finished" in kinds for kinds in state.values())
        assert admitted - finished <= limit
    assert all(kinds == ["admitted", "first_token", "finished"] for kinds in state.values())
    for request in given_:
        further = request.output_tokens - 1
        assert -(-further // most_tokens) <= steps[request.index] <= further
    assert generated(events) == sum(request.output_tokens for request in given_)
