import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.clocks import VirtualClock
from sweeper.engines.simulated_power import TRACE_SAMPLES, Boards
from sweeper.gpu_data import gpu
from sweeper.roofline import estimate
from sweeper.shapes import shape
from tests.simulated import asked, check_stream, generated, loaded, made, requests, total_j


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 64),
    output_tokens=st.integers(1, 40),
    gpu_name=st.sampled_from(["H100", "A6000", "B200"]),
    devices=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 99),
    static_batches=st.booleans(),
)
def test_an_engine_keeps_its_energy_and_power_within_what_gpus_can(
    *, batch: int, output_tokens: int, gpu_name: str, devices: int, seed: int, static_batches: bool
) -> None:
    of = asked(batch, devices=devices, gpu=gpu_name, seed=seed, noise=0.05)
    engine = loaded(of)
    given_ = requests(2 * batch, output_tokens)
    streams = (
        [engine.generate(given_[:batch], of), engine.generate(given_[batch:], of)]
        if static_batches
        else [engine.serve(iter(given_), batch, of)]
    )
    before = engine.energy_j()
    events = []
    for event in itertools.chain(*streams):
        events.append(event)
        now = engine.energy_j()
        assert all(now[device] >= before[device] for device in before)
        before = now
    check_stream(events, given_, batch)
    tdp_w = gpu(gpu_name).tdp_w
    trace = engine.power_trace()
    assert len({device for _, device, _ in trace}) == len(before) == devices
    assert all(0 < watts <= 1.05 * tdp_w for _, _, watts in trace)
    engine.close()


def test_the_simulation_is_near_the_roofline_but_is_not_it() -> None:
    of = asked(16, shape_name="llama-3.1-8b", noise=0)
    engine = loaded(of)
    start_s, start_j = engine._clock.now(), total_j(engine)
    list(engine.generate(requests(16), of))
    expected = estimate(of, shape("llama-3.1-8b"), gpu("H100"))
    took_s, spent_j = engine._clock.now() - start_s, total_j(engine) - start_j
    assert 1.02 < took_s / expected.latency_s < 1.6
    assert 0.7 < spent_j / (256 * expected.energy_per_output_token_j) < 1.6


def joules_and_seconds(
    batch: int, devices: int = 1, name: str = "llama-3.1-8b"
) -> tuple[float, float]:
    of = asked(batch, shape_name=name, devices=devices, noise=0)
    engine = loaded(of)
    start_s, start_j = engine._clock.now(), total_j(engine)
    events = list(engine.generate(requests(batch, 64), of))
    return (total_j(engine) - start_j) / generated(events), engine._clock.now() - start_s


def test_tensor_parallel_and_batch_have_the_signs_that_are_published() -> None:
    one, two, four = (joules_and_seconds(1, devices) for devices in (1, 2, 4))
    assert one[0] < two[0] < four[0]
    assert one[1] > two[1] > four[1]
    batches = [joules_and_seconds(batch) for batch in (1, 8, 64, 256)]
    assert [joules for joules, _ in batches] == sorted((j for j, _ in batches), reverse=True)
    assert [seconds for _, seconds in batches] == sorted(s for _, s in batches)
    mixture, dense = (
        joules_and_seconds(1, name="olmoe-1b-7b"),
        joules_and_seconds(1, name="olmo-7b"),
    )
    assert mixture < dense


def test_energy_while_nothing_runs_is_idle_energy() -> None:
    of = asked(noise=0)
    engine = made(of, ["H100/0"])
    gain = engine.energy_j()["H100/0"]
    assert gain == 0
    engine._clock.sleep(100.0)
    bare_w = total_j(engine) / 100.0
    assert bare_w == pytest.approx(71.8, rel=0.06)
    engine.load()
    before = total_j(engine)
    engine._clock.sleep(100.0)
    assert (total_j(engine) - before) / 100.0 == pytest.approx(bare_w * 121.7 / 71.8, rel=0.01)


def test_the_power_trace_sums_to_the_counter() -> None:
    of = asked(16, shape_name="llama-3.1-8b")
    engine = loaded(of)
    list(engine.generate(requests(16, 500), of))
    engine._clock.sleep(5.0)
    trace = engine.power_trace()
    gaps = {round(after[0] - before[0], 6) for before, after in itertools.pairwise(trace)}
    assert gaps == {0.1}
    assert sum(watts for *_, watts in trace) * 0.1 == pytest.approx(total_j(engine), rel=0.01)


def test_the_power_trace_is_bounded() -> None:
    clock = VirtualClock()
    boards = Boards(["a", "b"], clock, idle_w=50.0, tdp_w=500.0)
    clock.sleep(3600.0)
    trace = boards.trace()
    assert len(trace) == 2 * TRACE_SAMPLES
    assert trace[-1][0] == pytest.approx(3600.0, abs=0.11)


def test_a_warm_gpu_draws_more_than_a_cold_one() -> None:
    clock = VirtualClock()
    boards = Boards(["a"], clock, idle_w=50.0, tdp_w=500.0)
    spent = []
    for _ in range(3):
        before = boards.energy_j()["a"]
        for _ in range(1000):
            boards.draw(400.0)
            clock.sleep(0.3)
        spent.append(boards.energy_j()["a"] - before)
    assert spent[0] < spent[1] < spent[2] < 1.02 * spent[0]
    assert 1.0 < boards.slowdown() < 1.01


def test_the_temperature_moves_with_the_load_and_then_slowly_as_an_h200s() -> None:
    clock = VirtualClock()
    boards = Boards(["GPU-0"], clock, idle_w=78.0, tdp_w=700.0)

    def after(seconds: float) -> float:
        clock.sleep(seconds)
        return boards.temperature_c()["GPU-0"]

    assert after(60.0) == pytest.approx(34.0)
    boards.draw(691.0)
    assert after(6.0) == pytest.approx(57.0, abs=2.5)
    assert after(60.0) == pytest.approx(59.0, abs=1.0)
    boards.draw(125.0)
    assert after(1.1) == pytest.approx(40.0, abs=2.0)
    assert after(5.0) == pytest.approx(37.0, abs=2.5)
