import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweeper.clocks import RealClock, ScaledClock, VirtualClock, clock_for
from sweeper.engines import Event, Request, engine_class
from sweeper.engines.simulated import SimulatedEngine
from sweeper.engines.simulated_batching import continuous, static
from sweeper.engines.simulated_options import of_launch, read_options
from sweeper.engines.simulated_power import TRACE_SAMPLES, Boards
from sweeper.errors import EngineError, Infeasible, StudyError
from sweeper.gpu_data import gpu
from sweeper.roofline import estimate
from sweeper.shapes import shape
from sweeper.spec import EngineSpec, GpuSpec, ModelSpec, Settings, Sizes, WorkloadSpec

REPOSITORY = Path(__file__).parent.parent
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


class Steps:
    """A step of 1 s, noted."""

    def __init__(self) -> None:
        self.done: list[tuple[int, int, float, float]] = []

    def __call__(self, requests: int, tokens: int, attended: float, cached: float) -> float:
        self.done.append((requests, tokens, attended, cached))
        return float(len(self.done))

    def now(self) -> float:
        return float(len(self.done))


LENGTHS = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 12)), min_size=1, max_size=30)


def of_lengths(lengths: Sequence[tuple[int, int]]) -> list[Request]:
    return [Request(place, [0] * i, o) for place, (i, o) in enumerate(lengths)]


def check_stream(events: Sequence[Event], given_: Sequence[Request], limit: int) -> None:
    """What holds of any stream of events, by replaying it."""
    times = [event.t_s for event in events]
    assert times == sorted(times)
    state: dict[int, list[str]] = {request.index: [] for request in given_}
    decoding: set[int] = set()
    tokens = Counter[int]()
    for event in events:
        if event.kind == "tokens":
            assert event.tokens == event.running == len(decoding)
            tokens.update(decoding)
            continue
        assert event.request is not None
        state[event.request].append(event.kind)
        if event.kind == "first_token":
            decoding.add(event.request)
            tokens[event.request] += 1
        if event.kind == "finished":
            decoding.remove(event.request)
        admitted = sum("admitted" in kinds for kinds in state.values())
        finished = sum("finished" in kinds for kinds in state.values())
        assert admitted - finished <= limit
    assert all(kinds == ["admitted", "first_token", "finished"] for kinds in state.values())
    assert tokens == {request.index: request.output_tokens for request in given_}


@given(lengths=LENGTHS)
def test_a_static_batch_gives_every_request_its_tokens(lengths: list[tuple[int, int]]) -> None:
    batch, step = of_lengths(lengths), Steps()
    events = list(static(batch, step, 0.0))
    check_stream(events, batch, len(batch))
    assert len(step.done) == max(request.output_tokens for request in batch)
    assert sum(event.kind == "tokens" for event in events) == len(step.done) - 1


@given(lengths=LENGTHS, in_flight=st.integers(1, 9), budget=st.integers(1, 60))
def test_continuous_batching_gives_every_request_its_tokens(
    lengths: list[tuple[int, int]], in_flight: int, budget: int
) -> None:
    queue, step = of_lengths(lengths), Steps()
    events = list(continuous(iter(queue), in_flight, budget, step, step.now))
    check_stream(events, queue, in_flight)
    assert all(tokens <= max(budget, in_flight + 1) for _, tokens, _, _ in step.done)
    worked = sum(tokens for _, tokens, _, _ in step.done)
    assert worked == sum(i + o - 1 for i, o in lengths)
    order = [event.request for event in events if event.kind == "first_token"]
    assert order == sorted(order, key=int)


@given(lengths=LENGTHS, in_flight=st.integers(1, 9), budget=st.integers(1, 60))
def test_what_a_step_looks_back_on_is_what_each_request_has_behind_it(
    lengths: list[tuple[int, int]], in_flight: int, budget: int
) -> None:
    queue, step = of_lengths(lengths), Steps()
    list(continuous(iter(queue), in_flight, budget, step, step.now))
    prefills = sum(i * i / 2 for i, _ in lengths)
    decodes = sum(sum(i + done for done in range(o - 1)) for i, o in lengths)
    assert sum(cached for *_, cached in step.done) == pytest.approx(decodes)
    assert sum(attended for *_, attended, _ in step.done) == pytest.approx(prefills + decodes)


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
        (asked(engine={"speculative": {"kind": "ngram"}}), "engine.speculative"),
    ],
)
def test_what_cannot_be_loaded(of: Settings, said: str) -> None:
    with pytest.raises(Infeasible, match=said):
        loaded(of)


def test_a_studied_gpu_setting_is_not_ignored() -> None:
    of = Settings(
        model=ModelSpec(shape="tiny"),
        engine=EngineSpec(kind="simulated"),
        gpu=GpuSpec(power_limit_w=300.0),
    )
    with pytest.raises(Infeasible, match=r"gpu\.power_limit_w"):
        loaded(of)


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


def batches_until_failure(of: Settings, batch: int) -> int:
    engine = loaded(of)
    for count in range(10):
        try:
            list(engine.generate(requests(batch), asked(batch)))
        except EngineError:
            return count
    return -1


@pytest.mark.parametrize(
    ("fail", "batch", "expected"),
    [
        ({"kind": "error", "at": "warmup"}, 4, 0),
        ({"kind": "error", "at": "window"}, 4, 4),
        ({"kind": "error"}, 4, 4),
        ({"kind": "oom", "at": "window", "batch_size": 4}, 4, 4),
        ({"kind": "error", "at": "window", "batch_size": 8}, 4, -1),
        ({"kind": "crash", "at": "window", "attempts": 1}, 4, 4),
    ],
)
def test_a_failure_comes_when_it_was_asked_for(
    fail: dict[str, object], batch: int, expected: int
) -> None:
    assert batches_until_failure(asked(batch, fail=fail), batch) == expected


def test_a_failure_comes_in_as_many_attempts_as_were_asked_for() -> None:
    of = asked(fail={"kind": "error", "at": "load", "attempts": 2})
    for attempt in (0, 1):
        with pytest.raises(EngineError, match="at load"):
            loaded(of_launch(of, 0, attempt))
    assert loaded(of_launch(of, 0, 2)).progress() == 0


def test_a_stream_fails_once_its_warm_up_is_over() -> None:
    of = asked(4, fail={"kind": "error", "at": "window"})
    stream = loaded(of).serve(endless(), 4, of)
    finished = 0
    while finished < 16:
        finished += next(stream).kind == "finished"
    with pytest.raises(EngineError, match=r"at window, as engine\.options\.fail asks"):
        next(stream)


CHILD = """
from sweeper.clocks import clock_for
from sweeper.engines.simulated import SimulatedEngine
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes
options = {"isolated": True, "helpers": 2, "fail": {"kind": "%s", "at": "%s"}}
settings = Settings(
    model=ModelSpec(shape="tiny"), engine=EngineSpec(kind="simulated", options=options)
)
assert SimulatedEngine.isolated(settings)
sizes = Sizes(max_model_len=16, max_batch_size=1, batch_sizes=(1,))
engine = SimulatedEngine(settings, sizes, [], clock_for(settings))
try:
    engine.load()
    print("loaded", flush=True)
    input()
finally:
    engine.close()
"""


def child(kind: str, at: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD % (kind, at)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        process_group=0,
    )


def group(of: int) -> list[int]:
    """Processes alive in a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(after[2]) == of and after[0] != "Z":
                found.append(int(entry.name))
    return found


def await_group(of: int, count: int) -> None:
    """Processes start and end a moment after they are told to."""
    deadline_s = time.monotonic() + 30.0
    while len(group(of)) != count:
        assert time.monotonic() < deadline_s, f"{group(of)}, not {count} processes"
        time.sleep(0.01)


def test_helpers_are_processes_with_their_own_and_close_ends_them() -> None:
    with child("error", "window") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
        await_group(process.pid, 5)
        process.communicate("go\n", timeout=30)
    assert process.returncode == 0
    await_group(process.pid, 0)


def test_an_isolated_engine_crashes_for_real_and_leaves_its_helpers() -> None:
    with child("crash", "load") as process:
        assert process.wait(timeout=30) == -signal.SIGKILL
    await_group(process.pid, 4)
    os.killpg(process.pid, signal.SIGKILL)
    await_group(process.pid, 0)


def test_a_hanging_engine_hangs_until_it_is_killed() -> None:
    with child("hang", "load") as process:
        await_group(process.pid, 5)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        os.killpg(process.pid, signal.SIGKILL)
    await_group(process.pid, 0)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"noize": 0.1}, r"engine\.options\.noize: not an option .*known: gpu, noise"),
        ({"gpu": "H900"}, "GPU type 'H900'"),
        ({"gpu": 7}, r"engine\.options\.gpu: 7; wanted"),
        ({"noise": -0.1}, r"engine\.options\.noise"),
        ({"time_scale": "fast"}, r"engine\.options\.time_scale: 'fast'"),
        ({"fail": {"at": "load"}}, r"engine\.options\.fail\.kind: missing"),
        ({"fail": {"kind": "boom"}}, r"error, crash, hang, oom"),
        ({"fail": "boom"}, r"engine\.options\.fail: 'boom'; wanted"),
        ({"fail": {"kind": "oom", "when": 3}}, r"engine\.options\.fail\.when: not an option"),
        ({"helpers": True}, r"engine\.options\.helpers"),
        ({"oom_at_load": 1}, r"engine\.options\.oom_at_load: 1; wanted: true or false"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, object], said: str) -> None:
    with pytest.raises(StudyError, match=said):
        read_options(asked(**options))


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(StudyError) as told:
        read_options(asked(noise=3, helpers=-1, turbo=True, fail={"kind": "x", "at": "y"}))
    assert len(told.value.faults) == 5


@pytest.mark.parametrize(
    ("meter", "options", "kind"),
    [
        ("simulated", {}, VirtualClock),
        ("auto", {}, VirtualClock),
        ("simulated", {"time_scale": 0.01}, ScaledClock),
        ("simulated", {"time_scale": 1}, RealClock),
        ("nvml", {}, RealClock),
        ("nvml", {"time_scale": 1}, RealClock),
        ("codecarbon", {}, RealClock),
    ],
)
def test_the_clock_of_a_launch(meter: str, options: dict[str, object], kind: type) -> None:
    assert type(clock_for(asked(meter=meter, **options))) is kind


def test_the_clock_of_a_real_engine_is_real() -> None:
    assert type(clock_for(Settings(engine=EngineSpec(kind="vllm")))) is RealClock


@pytest.mark.parametrize("scale", [0, 0.5])
def test_a_meter_of_hardware_needs_real_time(scale: float) -> None:
    with pytest.raises(StudyError, match=r"time_scale: .* with meter nvml"):
        clock_for(asked(meter="nvml", time_scale=scale))


@pytest.mark.parametrize("clock", [RealClock(), VirtualClock(), ScaledClock(0.01)])
def test_a_clock_goes_forward_by_at_least_what_was_slept(
    clock: RealClock | VirtualClock | ScaledClock,
) -> None:
    before = clock.now()
    clock.sleep(0.02)
    clock.sleep(-1.0)
    assert clock.now() >= before + 0.02


def test_a_scaled_clock_takes_its_share_of_real_time() -> None:
    real, scaled = RealClock(), ScaledClock(0.01)
    before = real.now()
    for _ in range(10):
        scaled.sleep(0.5)
    assert scaled.now() == pytest.approx(5.0)
    assert real.now() - before >= 0.05


def test_a_simulated_launch_takes_real_time_when_asked() -> None:
    of = asked(2, shape_name="tiny", time_scale=1, load_s=0.0)
    clock = clock_for(of)
    engine = SimulatedEngine(of, SIZES, [], clock)
    engine.load()
    before = clock.now()
    events = list(engine.generate(requests(2), of))
    assert before <= events[0].t_s < events[-1].t_s <= clock.now()
    assert total_j(engine) > 0


def test_copies_of_a_model_share_the_requests() -> None:
    def step_s(batch: int, copies: int) -> float:
        of = asked(batch, noise=0, engine={"data_parallel": copies, "mode": "online"})
        engine = loaded(of, [f"H100/{place}" for place in range(copies)])
        started_s = engine._clock.now()
        list(engine.generate(requests(batch), of))
        return (engine._clock.now() - started_s) / engine.progress()

    assert step_s(64, 2) == pytest.approx(step_s(32, 1), rel=0.15)
    assert step_s(64, 2) < 0.9 * step_s(64, 1)
