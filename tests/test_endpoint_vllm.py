"""A real server of completions, started as a process once for all tests here: vLLM's."""

import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import psutil
import pytest

from sweeper.clocks import RealClock
from sweeper.engines import Request
from sweeper.engines.endpoint import EndpointEngine
from sweeper.engines.endpoint_options import OF_THE_SERVER
from sweeper.engines.endpoint_server import alive
from sweeper.errors import EngineError
from sweeper.spec import Sizes
from sweeper.trial.latency import Timeline, samples
from sweeper.workloads.fixed import FixedWorkload
from tests.completion_server import LENGTH, settings_of
from tests.contract_engine import (
    CONTRACT,
    INPUT_TOKENS,
    OUTPUT_TOKENS,
    Subject,
    it_closes_twice_loaded_or_not,
)

pytestmark = pytest.mark.engine

SIZES = Sizes(max_model_len=INPUT_TOKENS + OUTPUT_TOKENS, max_batch_size=8, batch_sizes=(1, 8))
UNKNOWN = frozenset(key.partition(".")[2] for key in OF_THE_SERVER)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    settings = settings_of(
        tmp_path_factory.mktemp("served") / "tiny",
        batching="static",
        input_tokens=INPUT_TOKENS,
        output_tokens=OUTPUT_TOKENS,
        batch_size=8,
    )

    def make() -> EndpointEngine:
        return EndpointEngine(settings, SIZES, (), RealClock())

    engine = make()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OMP_NUM_THREADS", "1")
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            resolved = engine.load()
        yield Subject(
            engine=engine,
            resolved=resolved,
            settings=settings,
            make=make,
            absurd=[Request(0, [1] * 8000, OUTPUT_TOKENS)],
            unknown=UNKNOWN,
            together=False,
        )
    finally:
        engine.close()


@pytest.mark.parametrize("clause", CONTRACT, ids=lambda clause: clause.__name__)
def test_an_endpoint_keeps_the_contract(
    subject: Subject, clause: Callable[[Subject], None]
) -> None:
    clause(subject)


def test_what_is_seen_of_it_from_outside(subject: Subject) -> None:
    resolved = subject.resolved
    assert (resolved["model"], resolved["max_model_len"]) == ("tiny", LENGTH)
    assert (resolved["owned_by"], resolved["started_here"]) == ("vllm", True)
    assert resolved["engine_version"]
    assert resolved["prompts"] == "token ids"
    assert resolved["token_counts"] == "usage of every chunk"


def test_latencies_follow_from_its_events_as_from_any_other(subject: Subject) -> None:
    """Mean gaps times their number are the decoding times, by another road."""
    spec = subject.settings.workload
    requests = FixedWorkload(spec, subject.resolved["vocabulary"], seed=3).batch(6)
    again = FixedWorkload(spec, subject.resolved["vocabulary"], seed=3).batch(6)
    assert [list(each.prompt_token_ids) for each in requests] == [
        list(each.prompt_token_ids) for each in again
    ]
    timeline, events = Timeline(), []
    for event in subject.engine.serve(iter(requests), 3, subject.settings):
        timeline.add(event)
        events.append(event)
    assert all(before.t_s <= after.t_s for before, after in pairwise(events))
    lengths = {each.index: each.output_tokens for each in requests}
    found = samples(timeline, lengths, float("-inf"), float("inf"), streams=True)
    assert len(found.ttft_s) == len(found.tpot_s) == len(found.latency_s) == 6
    for ttft, tpot, latency in zip(found.ttft_s, found.tpot_s, found.latency_s, strict=True):
        assert ttft + tpot * (OUTPUT_TOKENS - 1) == pytest.approx(latency)
    decoding_s = sum(gap * tokens for gap, tokens in found.itl_s)
    assert decoding_s == pytest.approx(sum(found.tpot_s) * (OUTPUT_TOKENS - 1))
    assert sum(tokens for _, tokens in found.itl_s) == 6 * (OUTPUT_TOKENS - 1)


def test_requests_that_nobody_listens_to_end_in_the_server(subject: Subject) -> None:
    long = [Request(place, [place + 1] * INPUT_TOKENS, 50) for place in range(8)]
    stream = subject.engine.serve(iter(long * 20), 8, subject.settings)
    for event in stream:
        if event.kind == "tokens":
            break
    stream.close()
    deadline_s = time.monotonic() + 10
    while running(subject) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert running(subject) == 0


def running(subject: Subject) -> float:
    """What the server says of itself."""
    url = f"{address(subject)}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    told = [line for line in lines if line.startswith("vllm:num_requests_running")]
    return sum(float(line.rpartition(" ")[2]) for line in told)


def address(subject: Subject) -> str:
    engine: Any = subject.engine
    return str(engine._client._url)


@pytest.mark.slow
def test_an_endpoint_that_is_launched_again_closes_as_often_as_wanted(subject: Subject) -> None:
    it_closes_twice_loaded_or_not(subject)


def test_a_server_that_dies_fails_the_launch_and_leaves_nobody(subject: Subject) -> None:
    """The last of this module: the server is gone afterwards."""
    engine: Any = subject.engine
    process = engine._server._process
    members = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    long = [Request(place, [place + 1] * INPUT_TOKENS, 50) for place in range(8)]
    stream = engine.serve(iter(long), 8, subject.settings)
    next(stream)
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="the server has ended with signal 9"):
        list(stream)
    engine.close()
    deadline_s = time.monotonic() + 30  # as long as anything may live after a SIGKILL
    while any(map(alive, members)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not any(map(alive, members))
