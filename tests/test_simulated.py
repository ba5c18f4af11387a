from dataclasses import replace

import pytest

from sweeper.clocks import VirtualClock
from sweeper.engines import Event, Request, engine_class
from sweeper.engines.simulated import SimulatedEngine
from sweeper.engines.simulated_options import of_launch
from sweeper.errors import EngineError, Infeasible
from sweeper.spec import EngineSpec, GpuSpec, ModelSpec, Settings, Sizes
from tests.simulated import OUTPUT, asked, endless, generated, loaded, made, requests, total_j


def one_launch(seed: int, attempt: int = 0) -> tuple[list[Event], dict[str, float]]:
    of = of_launch(asked(8, devices=2, noise=0.02), seed, attempt)
    engine = loaded(of, ["H200/a", "H200/b"])
    events = list(engine.generate(requests(8), of))
    events += list(engine.serve(iter(requests(32)), 8, of))
    return events, dict(engine.energy_j())


def test_a_seed_gives_the_same_launch_and_another_one_a_little_different() -> None:
    assert one_launch(3) == one_launch(3)
    events, energy = one_launch(3)
    others, other_energy = one_launch(4)
    assert [event.kind for event in events] == [event.kind for event in others]
    assert events[-1].t_s != others[-1].t_s
    assert sum(energy.values()) == pytest.approx(sum(other_energy.values()), rel=0.25)


def test_closing_a_stream_cancels_what_runs_and_the_engine_goes_on() -> None:
    of = asked(4)
    engine = loaded(of)
    stream = engine.serve(endless(), 4, of)
    seen = [next(stream) for _ in range(200)]
    assert sum(event.kind == "finished" for event in seen) > 8
    stream.close()
    steps = engine.progress()
    before = total_j(engine)
    engine._clock.sleep(10.0)
    assert engine.progress() == steps
    assert (total_j(engine) - before) / 10.0 < 130.0
    again = list(engine.serve(iter(requests(4)), 4, of))
    assert generated(again) == 4 * OUTPUT
    assert engine.counts()["steps"] == engine.progress() > steps


def test_a_launch_says_what_it_resolved_to_and_what_it_is() -> None:
    of = asked(devices=2, engine={"dtype": "float16"})
    engine = made(of, ["NVIDIA B200/0", "NVIDIA B200/1"])
    resolved = engine.load()
    assert resolved["gpu"] == "B200"
    assert resolved["vocabulary"] == 128256
    assert resolved["dtype"] == "float16"
    assert resolved["tensor_parallel"] == 2
    assert "simulation of llama-3.2-1b on 2 GPUs" in engine.launch_command()
    assert engine_class("simulated") is SimulatedEngine


def test_a_load_takes_its_time() -> None:
    engine = made(asked(load_s=12.5))
    engine.load()
    assert engine._clock.now() == 12.5
    small, large = (made(asked(shape_name=name)) for name in ("llama-3.2-1b", "llama-3.1-8b"))
    small.load()
    large.load()
    assert 10 < small._clock.now() < large._clock.now() < 60


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (asked(shape_name="llama-3.1-70b"), "out of memory: each GPU needs"),
        (asked(shape_name="llama-3.1-8b", devices=3), "attention heads"),
        (asked(oom_at_load=True), "oom_at_load"),
        (asked(fail={"kind": "oom", "at": "load"}), "at load"),
        (asked(engine={"quantization": "fp8"}), "engine.quantization"),
        (asked(engine={"speculative": {"kind": "ngram", "tokens": 2}}), "engine.speculative"),
    ],
)
def test_what_cannot_be_loaded(of: Settings, said: str) -> None:
    with pytest.raises(Infeasible, match=said):
        loaded(of)


def test_a_studied_gpu_setting_is_not_ignored() -> None:
    of = Settings(
        model=ModelSpec(shape="tiny"),
        engine=EngineSpec(kind="simulated"),
        gpu=GpuSpec(clock_mhz=900),
    )
    with pytest.raises(Infeasible, match=r"gpu\.clock_mhz"):
        loaded(of)


def test_a_power_limit_is_kept_to_and_takes_time() -> None:
    def watts_and_seconds(batch: int, limit_w: float | None) -> tuple[float, float]:
        of = replace(
            asked(batch, shape_name="llama-3.1-8b", noise=0, gpu="H100"),
            gpu=GpuSpec(power_limit_w=limit_w),
        )
        engine = loaded(of)
        began_s, began_j = engine._clock.now(), total_j(engine)
        list(engine.generate(requests(batch), of))
        spent_s = engine._clock.now() - began_s
        return (total_j(engine) - began_j) / spent_s, spent_s

    free_w, free_s = watts_and_seconds(256, None)
    assert free_w > 480
    for limit_w in (450.0, 350.0, 250.0):
        kept_w, kept_s = watts_and_seconds(256, limit_w)
        # The counter's gain is the board's own.
        assert kept_w < limit_w * 1.05
        assert kept_s >= free_s
    assert kept_s > 1.1 * free_s
    assert watts_and_seconds(256, 700.0) == (free_w, free_s)


def test_a_batch_that_does_not_fit_leaves_the_engine_working() -> None:
    of = asked(8, oom_above_batch=4)
    engine = loaded(of)
    with pytest.raises(Infeasible, match="above batch 4"):
        next(engine.serve(endless(), 8, of))
    assert generated(list(engine.generate(requests(4), of))) == 4 * OUTPUT
    large = asked(64, shape_name="llama-3.1-8b", gpu="A6000")
    sizes = Sizes(max_model_len=8192, max_batch_size=64, batch_sizes=(64,))
    engine = SimulatedEngine(large, sizes, [], VirtualClock())
    engine.load()
    long = [Request(index, [0] * 8000, 192) for index in range(64)]
    with pytest.raises(Infeasible, match=r"KV cache 68\.7, .*, 47\.4 GB of A6000"):
        next(engine.generate(long, large))
    assert generated(list(engine.generate(long[:1], large))) == 192


def test_work_that_was_not_loaded_for_is_refused() -> None:
    of = asked()
    with pytest.raises(EngineError, match="not loaded"):
        next(made(of).generate(requests(1), of))
    engine = loaded(of)
    with pytest.raises(EngineError, match="loaded for 1 to 512"):
        next(engine.serve(endless(), 513, of))
    with pytest.raises(EngineError, match="loaded for 1024"):
        next(engine.generate(requests(1, 1000), of))
    with pytest.raises(EngineError, match="1 devices given, 2 needed"):
        loaded(asked(devices=2), ["H100/0"])


def test_copies_of_a_model_share_the_requests() -> None:
    def step_s(batch: int, copies: int) -> float:
        of = asked(batch, noise=0, engine={"data_parallel": copies, "mode": "online"})
        engine = loaded(of, [f"H100/{place}" for place in range(copies)])
        started_s = engine._clock.now()
        list(engine.generate(requests(batch), of))
        return (engine._clock.now() - started_s) / engine.progress()

    assert step_s(64, 2) == pytest.approx(step_s(32, 1), rel=0.15)
    assert step_s(64, 2) < 0.9 * step_s(64, 1)
