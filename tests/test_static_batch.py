"""A static batch and what transformers can be asked for: pure, no torch."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.decoding import Greedy
from sweeper.engines import Request, host_memory
from sweeper.engines.static_batch import TokenTimes, batch_events, batch_positions, left_padded
from sweeper.engines.transformers_settings import (
    generation_options,
    notes,
    refuse_other_than_asked,
    refuse_unavailable,
    uses_graphs,
)
from sweeper.errors import Infeasible, WrongSetting
from sweeper.spec import EngineSpec, Settings, Sizes, WorkloadSpec
from sweeper.trial.latency import Timeline, samples

PLAIN = EngineSpec(kind="transformers", compile=False)
STATIC = WorkloadSpec(batching="static")
LOOKUP = {"kind": "ngram", "tokens": 2, "prompt_lookup_min": 1}
STATED = {"kind": "stated", "tokens": 2, "acceptance": 0.5, "model": "tiny"}
lengths = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6)


class Ticks:
    """A clock that goes on by one second each time it is asked."""

    def __init__(self) -> None:
        self.t_s = 0.0

    def now(self) -> float:
        self.t_s += 1.0
        return self.t_s

    def sleep(self, seconds: float) -> None:
        self.t_s += seconds


def requests_of(pairs: list[tuple[int, int]]) -> list[Request]:
    return [
        Request(index, list(range(1, 1 + prompt)), output)
        for index, (prompt, output) in enumerate(pairs)
    ]


def test_the_prompt_that_generate_hands_over_is_not_a_token():
    times = TokenTimes(Ticks())
    for batch in range(1, 3):
        times.begin()
        for _ in range(4):
            times.put([1, 2])
        times.end()
        assert len(times.times_s) == 3
        assert times.steps == 3 * batch
        assert times.rows == 2
    assert times.times_s == [4.0, 5.0, 6.0]
    times.all_at_once(2)
    assert times.times_s == [7.0, 7.0]


@given(lengths)
def test_padding_is_on_the_left_and_masked(pairs: list[tuple[int, int]]):
    requests = requests_of(pairs)
    prompts, mask = left_padded(requests)
    width = max(prompt for prompt, _ in pairs)
    assert batch_positions(requests) == width + max(output for _, output in pairs)
    for request, row, seen in zip(requests, prompts, mask, strict=True):
        assert len(row) == len(seen) == width
        assert sorted(seen) == seen
        kept = [token for token, visible in zip(row, seen, strict=True) if visible]
        assert kept == list(request.prompt_token_ids)


@given(lengths)
def test_every_wanted_token_is_told_of_once(pairs: list[tuple[int, int]]):
    requests = requests_of(pairs)
    steps = max(output for _, output in pairs)
    events = list(batch_events(requests, 1.0, [2.0 + step for step in range(steps)]))
    firsts = sum(event.kind == "first_token" for event in events)
    assert firsts + sum(event.tokens for event in events) == sum(output for _, output in pairs)
    assert [event.t_s for event in events] == sorted(event.t_s for event in events)
    assert {event.t_s for event in events if event.kind == "finished"} == {1.0 + steps}


def test_latencies_of_a_batch_are_those_of_its_steps():
    timeline, requests = Timeline(), requests_of([(3, 4), (3, 4)])
    for event in batch_events(requests, 10.0, [10.5, 10.6, 10.7, 10.8]):
        timeline.add(event)
    found = samples(timeline, {0: 4, 1: 4}, 10.0, 11.0, streams=True)
    assert found.ttft_s == pytest.approx((0.5, 0.5))
    assert found.tpot_s == pytest.approx((0.1, 0.1))
    assert found.latency_s == pytest.approx((0.8, 0.8))


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"mode": "online"}, "engine.mode=online"),
        ({"tensor_parallel": 2}, "engine.tensor_parallel"),
        ({"pipeline_parallel": 2}, "engine.pipeline_parallel"),
        ({"data_parallel": 2}, "engine.data_parallel"),
        ({"quantization": "awq"}, "engine.quantization awq is not available"),
        ({"kv_cache_dtype": "fp8"}, "engine.kv_cache_dtype"),
        ({"speculative": {"kind": "ngram"}}, "engine.speculative.tokens"),
        ({"speculative": {"kind": "ngram", "tokens": 2}}, "prompt_lookup_min"),
        ({"speculative": STATED}, "stated chance"),
        ({"speculative": LOOKUP, "compile": True}, "engine.compile"),
        ({"options": {"num_assistant_tokens": 4}}, "engine.options.num_assistant_tokens"),
        ({"chunked_prefill": True}, "engine.chunked_prefill"),
        ({"prefix_caching": True}, "engine.prefix_caching"),
        ({"max_batched_tokens": 512}, "engine.max_batched_tokens"),
        ({"options": {"num_beams": 4}}, "engine.options.num_beams"),
    ],
)
def test_what_is_not_available_is_refused_by_name(engine: dict[str, object], said: str):
    both = Settings(engine=replace(PLAIN, **{"prefix_caching": True, **engine}), workload=STATIC)
    with pytest.raises(Infeasible) as raised:
        refuse_unavailable(both)
    assert said in str(raised.value)
    assert "engine.prefix_caching" in str(raised.value)


def test_a_strategy_with_other_keys_than_its_own_is_refused():
    workload = WorkloadSpec(decoding={"kind": "beam", "height": 4})
    with pytest.raises(Infeasible, match=r"workload\.decoding\.height"):
        refuse_unavailable(Settings(engine=PLAIN, workload=workload))


def test_what_is_available_passes():
    refuse_unavailable(Settings(engine=PLAIN))
    refuse_unavailable(
        Settings(engine=replace(PLAIN, kv_cache_dtype="bfloat16", chunked_prefill=False))
    )


@pytest.mark.parametrize(
    ("graphs", "compiled", "device", "used"),
    [
        (True, True, "cuda", True),
        (True, True, "cpu", False),
        (True, False, "cuda", False),
        (False, True, "cuda", False),
    ],
)
def test_graphs_need_a_gpu_and_compilation(graphs: bool, compiled: bool, device: str, used: bool):
    spec = replace(PLAIN, graphs=graphs, compile=compiled)
    assert uses_graphs(spec, device) is used
    assert bool(notes(spec, device)) is (graphs and not used)


def test_a_compiled_step_has_the_cache_of_the_whole_launch():
    sizes = Sizes(max_model_len=77, max_batch_size=4, batch_sizes=(1, 4))
    compiled = generation_options(replace(PLAIN, compile=True), sizes, Greedy())
    assert (compiled["cache_implementation"], compiled["max_cache_len"]) == ("static", 77)
    plain = generation_options(PLAIN, sizes, Greedy())
    assert plain["disable_compile"]
    assert "cache_implementation" not in plain


def test_another_setting_than_asked_is_told():
    asked = replace(PLAIN, attention="sdpa", dtype="float16")
    refuse_other_than_asked(asked, {"dtype": "float16", "attention": "sdpa"})
    with pytest.raises(WrongSetting, match=r"attention=sdpa .* eager"):
        refuse_other_than_asked(asked, {"dtype": "float16", "attention": "eager"})
    with pytest.raises(WrongSetting, match=r"dtype=float16 .* float32"):
        refuse_other_than_asked(asked, {"dtype": "float32", "attention": "sdpa"})


def meminfo(folder: Path) -> Path:
    path = folder / "meminfo"
    path.write_text("MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  600 kB\nHugePages: 0\n")
    return path


def test_a_machines_memory_without_a_control_group(tmp_path: Path):
    assert host_memory.total_bytes(meminfo(tmp_path), tmp_path) == 1000 * 1024
    assert host_memory.free_bytes(meminfo(tmp_path), tmp_path) == 600 * 1024


@pytest.mark.parametrize(
    ("limit", "total", "free"),
    [
        ("max\n", 1024_000, 614_400),
        ("500000\n", 500_000, 340_000),
        ("9999999\n", 1024_000, 614_400),
    ],
)
def test_a_control_group_leaves_less(tmp_path: Path, limit: str, total: int, free: int):
    for name, text in {
        "memory.max": limit,
        "memory.current": "200000\n",
        "memory.stat": "anon 150000\ninactive_file 40000\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert host_memory.total_bytes(meminfo(tmp_path), tmp_path) == total
    assert host_memory.free_bytes(meminfo(tmp_path), tmp_path) == free


def test_a_control_group_of_version_1_is_read_too(tmp_path: Path):
    (tmp_path / "memory").mkdir()
    for name, text in {
        "memory.limit_in_bytes": "300000\n",
        "memory.usage_in_bytes": "400000\n",
        "memory.stat": "cache 0\n",
    }.items():
        (tmp_path / "memory" / name).write_text(text)
    assert host_memory.total_bytes(meminfo(tmp_path), tmp_path) == 300_000
    assert host_memory.free_bytes(meminfo(tmp_path), tmp_path) == 0


def test_this_process_has_held_memory_and_not_more_than_there_is():
    assert 1_000_000 < host_memory.peak_bytes() < host_memory.total_bytes() * 2
    assert 0 < host_memory.free_bytes() <= host_memory.total_bytes()
