"""vLLM with a real, tiny model: two workers on two processors, started once for all tests here."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Event, Request, engine_class
from sweeper.errors import EngineError, Infeasible
from sweeper.results.metrics import COUNTS
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec

pytestmark = [
    pytest.mark.engine,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

INPUT, OUTPUT = 16, 6
SIZES = Sizes(max_model_len=64, max_batch_size=8, batch_sizes=(1, 8))
DUMMY = ModelSpec(shape="tiny", weights="dummy")
STATIC = WorkloadSpec(batching="static", batch_size=8, input_tokens=INPUT, output_tokens=OUTPUT)


def make(
    model: ModelSpec = DUMMY,
    devices: tuple[str, ...] = (),
    sizes: Sizes = SIZES,
    **spec: Any,
) -> Any:
    asked = {"dtype": "float32", "compile": False, "graphs": False, **spec}
    settings = Settings(model=model, engine=EngineSpec(kind="vllm", **asked), workload=STATIC)
    return engine_class("vllm")(settings, sizes, devices, RealClock())


def requests(count: int, output_tokens: int = OUTPUT, first: int = 0) -> list[Request]:
    return [
        Request(place, [(31 * place + 7 * at) % 4096 for at in range(INPUT)], output_tokens)
        for place in range(first, first + count)
    ]


def kinds(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event.kind == kind]


class Loaded:
    """The engine of this module and what it said of itself."""

    def __init__(self) -> None:
        self.before = set(psutil.Process().children(recursive=True))
        self.variables = dict(os.environ)
        self.engine = make(tensor_parallel=2, chunked_prefill=False, max_batched_tokens=256)
        self.resolved = self.engine.load()

    @property
    def settings(self) -> Settings:
        found: Settings = self.engine._settings
        return found

    def processes(self) -> list[Any]:
        now = psutil.Process().children(recursive=True)
        return [each for each in now if each not in self.before and "VLLM" in each.name()]


@pytest.fixture(scope="module")
def loaded() -> Iterator[Loaded]:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two workers need two processors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        made = Loaded()
        yield made
        made.engine.close()


def test_both_workers_hold_their_part_of_the_stated_weights(loaded: Loaded) -> None:
    resolved = loaded.resolved
    weights = resolved["weights"]
    assert (weights["kind"], weights["distribution"], weights["norms"]) == ("dummy", "normal", 1.0)
    assert weights["std_of_largest"] == pytest.approx(weights["std"], rel=0.02)
    assert weights["mean_of_largest"] == pytest.approx(0.0, abs=1e-3)
    assert (resolved["tensor_parallel"], resolved["executor"]) == (2, "mp")
    assert [worker["threads"] for worker in resolved["workers"]] == [1, 1]
    assert resolved["variables"]["VLLM_CPU_OMP_THREADS_BIND"].count("|") == 1
    assert (resolved["compile"], resolved["prefix_caching"]) == (False, False)
    assert (resolved["chunked_prefill"], resolved["max_batched_tokens"]) == (False, 256)
    assert resolved["attention"] == "CPU_ATTN"
    # Norms are whole on both, everything else is parted: 4 bytes each.
    norms = 9 * 256
    assert resolved["weight_bytes"] == 4 * (3_950_848 - norms) + 2 * 4 * norms


def test_its_processes_run_and_its_variables_are_not_ours(loaded: Loaded) -> None:
    names = sorted(process.name() for process in loaded.processes())
    assert [name.split("_")[0] for name in names] == ["VLLM::EngineCore", *["VLLM::Worker"] * 2]
    assert dict(os.environ) == loaded.variables | {
        name: os.environ[name] for name in ("PYTEST_CURRENT_TEST", "OMP_NUM_THREADS")
    }


def test_a_static_batch_starts_and_ends_together(loaded: Loaded) -> None:
    for count in (8, 3, 8):
        events = list(loaded.engine.generate(requests(count), loaded.settings))
        assert len({event.t_s for event in kinds(events, "admitted")}) == 1
        assert len({event.t_s for event in kinds(events, "first_token")}) == 1
        assert len({event.t_s for event in kinds(events, "finished")}) == 1
        assert {(step.tokens, step.running) for step in kinds(events, "tokens")} == {(count, count)}


def test_a_closed_loop_keeps_every_place_taken(loaded: Loaded) -> None:
    lengths = [1, 9, 4, 2, 7, 3, 5, 8, 6, 2]
    source = [Request(place, [place] * INPUT, length) for place, length in enumerate(lengths)]
    events = list(loaded.engine.serve(iter(source), 3, loaded.settings))
    running, most = 0, 0
    for event in events:
        running += (event.kind == "admitted") - (event.kind == "finished")
        most = max(most, running)
    assert not kinds(events, "failed")
    assert (most, running) == (3, 0)
    firsts = len(kinds(events, "first_token"))
    assert firsts + sum(event.tokens for event in events) == sum(lengths)
    assert all(before.t_s <= after.t_s for before, after in pairwise(events))


def texts(loaded: Loaded, **decoding: Any) -> list[tuple[int, ...]]:
    """The tokens of three requests, each of which asks for chance on its own."""
    workload = replace(loaded.settings.workload, decoding=decoding)
    settings = replace(loaded.settings, workload=workload)
    told: dict[str, list[int]] = {}
    step = loaded.engine._driver.step

    def overheard() -> Any:
        outputs, at_s = step()
        for output in outputs:
            told.setdefault(output.request_id, []).extend(output.outputs[0].token_ids)
        return outputs, at_s

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaded.engine._driver, "step", overheard)
        events = list(loaded.engine.generate(requests(3), settings))
    assert len(kinds(events, "finished")) == 3
    found = [tuple(told[name]) for name in sorted(told, key=int)]
    assert {len(tokens) for tokens in found} == {OUTPUT}
    return found


def test_tokens_are_chosen_as_the_study_says(loaded: Loaded) -> None:
    greedy = texts(loaded, kind="greedy")
    assert texts(loaded, kind="greedy") == greedy
    seeded = {"kind": "temperature", "temperature": 2.0, "seed_requests": True}
    warm = texts(loaded, **seeded)
    assert texts(loaded, **seeded) == warm
    assert all(one != other for one, other in zip(warm, greedy, strict=True))
    chance = {"kind": "temperature", "temperature": 2.0}
    assert texts(loaded, **chance) != texts(loaded, **chance)
    # So few of the likeliest tokens have so little probability that only the first is left.
    assert texts(loaded, kind="top_p", top_p=1e-6) == greedy
    assert texts(loaded, kind="top_p", top_p=1.0) != greedy


def test_beams_search_in_a_batch_and_in_a_closed_loop(loaded: Loaded) -> None:
    """Of one beam the search is greedy: every round's token is the likeliest."""
    greedy = texts(loaded, kind="greedy")
    settings = replace(
        loaded.settings,
        workload=replace(loaded.settings.workload, decoding={"kind": "beam", "width": 1}),
    )
    asked, add = [], loaded.engine._driver.add
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            loaded.engine._driver,
            "add",
            lambda name, tokens, parameters: (asked.append(tokens), add(name, tokens, parameters)),
        )
        events = list(loaded.engine.generate(requests(3), settings))
    assert [len(kinds(events, kind)) for kind in ("admitted", "first_token", "finished")] == [3] * 3
    assert sum(event.tokens for event in events) == 3 * (OUTPUT - 1)
    longest = [tuple(tokens[INPUT:]) for tokens in asked if len(tokens) == INPUT + OUTPUT - 1]
    assert sorted(longest) == sorted(text[:-1] for text in greedy)
    wide = replace(settings.workload, decoding={"kind": "beam", "width": 4})
    settings = replace(settings, workload=wide)
    events = list(loaded.engine.serve(iter(requests(5)), 2, settings))
    assert len(kinds(events, "finished")) == 5
    # Beams are handed over one by one, beside a scheduler that takes those that it sees.
    assert 2 < loaded.engine.counts()["running_requests_max"] <= 8
    with pytest.raises(Infeasible, match="3 requests of 4 beams in flight, the engine has room"):
        list(loaded.engine.serve(iter(requests(5)), 3, settings))
    with pytest.raises(Infeasible, match="a batch of 12"):
        list(loaded.engine.generate(requests(3), settings))


def test_its_record_tells_what_it_ran_in(loaded: Loaded) -> None:
    """Of the point that ran last: steps of exactly the batch, and a cache that was in use."""
    resolved, alone = loaded.resolved, replace(loaded.settings.workload, seed=1)
    list(loaded.engine.generate(requests(5), replace(loaded.settings, workload=alone)))
    counts = loaded.engine.counts()
    assert counts["scheduler_steps"] == OUTPUT
    assert (counts["running_requests_mean"], counts["running_requests_max"]) == (5, 5)
    assert counts["kv_cache_tokens"] == resolved["kv_cache_blocks"] * 128
    assert 0 < counts["kv_cache_used_peak"] < 1
    assert not any("prefix" in name or "draft" in name for name in counts)
    assert (counts["steps_in_full_graphs"], counts["steps_in_piecewise_graphs"]) == (0, 0)
    assert counts["steps_without_graphs"] >= OUTPUT
    assert set(counts) <= {*COUNTS, "peak_memory_bytes"}
    assert (resolved["runner_version"], resolved["kv_cache_storage"]) == (1, "float32")
    assert resolved["left_open"] == {
        "async_scheduling": False,
        "runner_version": 1,
        "attention": "CPU_ATTN",
        "graph_mode": "NONE",
    }
    assert resolved["changed"] == {}


def test_what_is_left_behind_is_cancelled_before_the_next_begins(loaded: Loaded) -> None:
    stream = loaded.engine.serve(iter(requests(8, 40)), 8, loaded.settings)
    for event in stream:
        if event.kind == "tokens":
            break
    stream.close()
    events = list(loaded.engine.generate(requests(2, 20, first=50), loaded.settings))
    assert {event.request for event in events} == {None, 50, 51}
    assert len(kinds(events, "tokens")) == 19
    assert loaded.engine.counts()["preemptions"] == 0


def test_what_does_not_fit_is_said_in_numbers(loaded: Loaded) -> None:
    engine, settings = loaded.engine, loaded.settings
    with pytest.raises(Infeasible, match="66 positions asked, the engine was started for 64"):
        list(engine.generate(requests(1, 50), settings))
    with pytest.raises(Infeasible, match="a batch of 9, the engine has room for 8"):
        list(engine.generate(requests(9), settings))
    with pytest.raises(Infeasible, match="9 requests in flight"):
        list(engine.serve(iter(requests(9)), 9, settings))
    assert len(kinds(list(engine.generate(requests(8), settings)), "finished")) == 8


SAME = {
    "model_config": ("max_model_len", "enforce_eager"),
    "scheduler_config": (
        "max_num_seqs",
        "max_num_batched_tokens",
        "enable_chunked_prefill",
        "async_scheduling",
    ),
    "cache_config": ("enable_prefix_caching", "cache_dtype", "block_size", "num_gpu_blocks"),
    "parallel_config": ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"),
    "compilation_config": ("mode", "cudagraph_mode", "cudagraph_capture_sizes"),
}
"""Fields of vLLM's configuration, all that decides what runs except how weights are drawn."""


def plain(value: Any) -> str:
    """As both sides write it: enumerations by name or by number."""
    return str(getattr(value, "value", value))


@pytest.mark.slow
def test_the_launch_command_serves_what_was_measured(loaded: Loaded, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = f"{loaded.engine.launch_command()} --host 127.0.0.1 --port {port}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    server = subprocess.Popen(
        ["bash", "-c", command],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"},
        start_new_session=True,
    )
    try:
        served = ask(f"http://127.0.0.1:{port}/server_info?config_format=json", server)
    finally:
        started = psutil.Process(server.pid).children(recursive=True)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)
        _, alive = psutil.wait_procs(started, timeout=60)
        for process in alive:
            process.kill()
    assert alive == []
    ours = loaded.engine._driver.config
    for part, names in SAME.items():
        told = served["vllm_config"][part]
        for name in names:
            assert plain(told[name]) == plain(getattr(getattr(ours, part), name)), (part, name)
    dtype = served["vllm_config"]["model_config"]["dtype"]
    assert dtype.removeprefix("torch.") == loaded.resolved["dtype"]


def ask(url: str, server: subprocess.Popen[bytes]) -> Any:
    """What the server answers once it is up."""
    deadline_s = time.monotonic() + 240
    while server.poll() is None and time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)
        except OSError:
            time.sleep(1)
    raise AssertionError(f"no answer from {url}; the server's status is {server.poll()}")


def test_an_engine_whose_worker_died_fails_and_leaves_nobody(loaded: Loaded) -> None:
    """The last of this module: the engine is gone afterwards."""
    processes = loaded.processes()
    worker = next(each for each in processes if "Worker" in each.name())
    stream = loaded.engine.serve(iter(requests(8, 48)), 8, loaded.settings)
    next(stream)
    worker.send_signal(signal.SIGKILL)
    with pytest.raises(EngineError, match="EngineDeadError"):
        list(stream)
    loaded.engine.close()
    assert not any(process.is_running() for process in processes)
    loaded.engine.close()


@pytest.mark.parametrize(
    ("spec", "error", "said"),
    [
        ({"options": {"no_such_argument": 1}}, Infeasible, "knows no engine argument no_such_arg"),
        ({"options": {"block_size": -3}}, Infeasible, "vLLM refuses the combination"),
        ({"tensor_parallel": 4096}, Infeasible, "4096 workers on"),
        (
            {"chunked_prefill": False, "max_batched_tokens": 32},
            Infeasible,
            r"vLLM refuses the combination.*max_num_batched_tokens \(32\)",
        ),
        (
            {"speculative": {"kind": "stated", "acceptance": 0.5, "tokens": 2, "model": "tiny"}},
            Infeasible,
            "stated needs a GPU",
        ),
        ({"data_parallel": 2}, Infeasible, "vLLM's copies step each"),
        ({"quantization": "fp8"}, Infeasible, "drawn weights"),
        ({"devices": ("GPU-1",)}, EngineError, "a build for processors"),
        (
            {"sizes": Sizes(max_model_len=8192, max_batch_size=10**7, batch_sizes=(1,))},
            Infeasible,
            r"out of memory: weights and KV cache of \d+ bytes, \d+ free",
        ),
        (
            {"sizes": Sizes(max_model_len=9000, max_batch_size=1, batch_sizes=(1,))},
            Infeasible,
            "vLLM refuses the combination.*9000",
        ),
        ({"model": ModelSpec(id="/no/such/folder")}, EngineError, "/no/such/folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    spec: dict[str, Any], error: type[Exception], said: str
) -> None:
    engine = make(**spec)
    with pytest.raises(error, match=f"(?s){said}") as raised:
        engine.load()
    assert isinstance(raised.value, Infeasible) is (error is Infeasible)
    assert engine.launch_command()
    engine.close()


def test_work_before_load_is_refused() -> None:
    with pytest.raises(EngineError, match="not loaded"):
        list(make().generate(requests(1), Settings()))
    with pytest.raises(EngineError, match="not loaded"):
        list(make().serve(iter(requests(1)), 1, Settings()))
