"""Studies of endpoints: what they may say, and what is known of their energy."""

import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from sweeper.clocks import RealClock
from sweeper.engines.endpoint import EndpointEngine
from sweeper.engines.endpoint_server import Server, alive
from sweeper.errors import EngineError, StudyError
from sweeper.results.contents import FILE, read
from sweeper.spec import Sizes, Study
from sweeper.study import load, unavailable
from sweeper.trial.assignment import Assignment, bench_for
from sweeper.trial.process import ProcessLaunch
from tests.fake_server import FakeServer, Script
from tests.studies import one_launch
from tests.verified import Kept, assert_verified

TEXT = """\
name: served
model: {{shape: tiny}}
engine: {{kind: endpoint, {more}options: {options}}}
workload: {{input_tokens: 6, output_tokens: 4, batching: {batching}}}
measure: {{warmup: {{min_batches: 1, max_batches: 2}}, min_window_s: 0.2, repeats: 2}}
axes: {{workload.batch_size: [1, 3]}}
"""


def study_of(folder: Path, options: str, *, batching: str = "static", more: str = "") -> Study:
    path = folder / "served.yaml"
    path.write_text(TEXT.format(options=options, batching=batching, more=more))
    return load(str(path))


@pytest.mark.parametrize(
    ("options", "more", "said"),
    [
        ("{}", "", "either command, which is started, or url"),
        ("{command: 'x {port}', url: 'http://a:1'}", "", "either command"),
        ("{command: serve}", "", "says nowhere {port}"),
        ("{command: 'serve {port} \"'}", "", "cannot be parted into words"),
        ("{command: 'serve {port} --api-key s3cret'}", "", "names a key"),
        ("{url: 'a:1'}", "", "wanted: http://HOST:PORT"),
        ("{url: 'http://me:s3cret@a:1'}", "", "holds more than an address"),
        ("{url: 'http://a:1', ready_s: 0}", "", "engine.options.ready_s: 0 given"),
        ("{url: 'http://a:1', redy_s: 1}", "", "engine.options.redy_s: unknown key"),
        ("{url: 'http://a:1', devices: GPU-a}", "", "wanted: a list of GPU UUIDs"),
        ("{command: 'x {port}', devices: [GPU-a]}", "", "a command gets the GPUs of its lease"),
        ("{url: 'http://a:1', body: {stream: false}}", "", "is decided by the workload"),
        ("{url: 'http://a:1', api_key: s3cret}", "", "engine.options.api_key"),
        ("{url: 'http://a:1'}", "dtype: float16, ", 'engine.dtype: "float16" cannot be handed'),
        ("{command: 'x {port}'}", "compile: false, ", "say it in engine.options.command"),
    ],
)
def test_what_cannot_be_said_of_a_server(
    tmp_path: Path, options: str, more: str, said: str
) -> None:
    with pytest.raises(StudyError) as raised:
        study_of(tmp_path, options, more=more)
    assert said in str(raised.value)
    assert "s3cret" not in str(raised.value)


def test_a_command_is_filled_in_word_by_word(tmp_path: Path) -> None:
    study = study_of(
        tmp_path,
        "{command: 'serve \"{model}\" -p {port} --tp={tensor_parallel} --json ''{\"a\": 1}'''}",
        more="tensor_parallel: 2, env: {SOME: a b}, ",
    )
    assert unavailable(study) == []
    sizes = Sizes(max_model_len=10, max_batch_size=1, batch_sizes=(1,))
    engine = EndpointEngine(study.settings, sizes, (), RealClock())
    words = engine._options().words(study.settings, 8123)
    assert words == ["serve", "tiny", "-p", "8123", "--tp=2", "--json", '{"a": 1}']
    assert engine.launch_command() == "SOME='a b' serve tiny -p 8000 --tp=2 --json '{\"a\": 1}'"


@pytest.mark.process
@pytest.mark.parametrize("batching", ["static", "continuous"])
def test_a_server_elsewhere_is_measured_and_has_no_energy(tmp_path: Path, batching: str) -> None:
    with FakeServer(Script(chunks=[(0.01, 1)] * 4)) as server:
        study = study_of(tmp_path, f"{{url: '{server.url}'}}", batching=batching)
        folder = Kept(study, tmp_path).measure()
        server.script.chunks = None
    records = read(folder / FILE).records
    assert [record.status for record in records] == ["energy_invalid"] * 2
    for record in records:
        assert (record.reason or "").startswith("not_attributable: engine.options.url names no")
        assert record.gpus == 0
        assert record.metrics["output_tokens_per_s"] > 0
        assert record.metrics["ttft_p50_s"] >= 0.009
        assert record.metrics["tpot_p50_s"] >= 0.009
        assert not any("energy" in name or name.endswith("_w") for name in record.metrics)
        assert record.environment["resolved_engine"]["model"] == "fake"
    assert_verified(folder)


def bench_of(study: Study, devices: tuple[str, ...]) -> Any:
    assignment = Assignment(
        launch=one_launch(study),
        study=study.name,
        trial_id="t",
        attempt=0,
        devices=devices,
        place={"node_id": "n", "host": "h"},
    )
    return bench_for(assignment, lambda kind, fields: None)


def test_which_devices_the_energy_is_of(tmp_path: Path) -> None:
    held = ("GPU-held",)
    running = bench_of(study_of(tmp_path, "{url: 'http://a:1', devices: [GPU-x, GPU-y]}"), held)
    assert (running.devices, running.meter.source) == (("GPU-x", "GPU-y"), "nvml")
    assert running.occupied
    elsewhere = bench_of(study_of(tmp_path, "{url: 'http://a:1'}"), held)
    assert (elsewhere.devices, elsewhere.meter.source) == ((), "none")
    ours = bench_of(study_of(tmp_path, "{command: 'x {port}'}"), held)
    assert (ours.devices, ours.meter.source, ours.occupied) == (held, "nvml", False)


STUBBORN = """\
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print("up", flush=True)
time.sleep(300)
"""


@pytest.mark.process
def test_a_server_that_will_not_end_is_killed_with_all_it_started() -> None:
    server = Server([sys.executable, "-c", STUBBORN], {}, patience_s=0.5)
    server.start()
    mine = psutil.Process()
    deadline_s = time.monotonic() + 20
    while len(mine.children(recursive=True)) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.05)
    started = mine.children(recursive=True)
    assert len(started) == 2
    assert server.peak_bytes() > 2**20
    server.end()
    assert not any(map(alive, started))
    assert (server.status, server.peak_bytes()) == (None, 0)
    server.end()


@pytest.mark.process
def test_a_server_that_ends_before_it_is_ready_is_not_waited_for(tmp_path: Path) -> None:
    study = study_of(tmp_path, f"{{command: '{sys.executable} -c \"exit({{port}} and 3)\"'}}")
    sizes = Sizes(max_model_len=10, max_batch_size=1, batch_sizes=(1,))
    engine = EndpointEngine(study.settings, sizes, (), RealClock())
    with pytest.raises(EngineError, match="the server has ended with status 3"):
        engine.load()
    engine.close()


@pytest.mark.process
def test_a_launch_that_is_killed_takes_its_server_with_it(tmp_path: Path) -> None:
    """The child has no time to end it: the lease's guardian does."""
    server = Path(__file__).parent / "fake_server.py"
    study = study_of(tmp_path, f"{{command: '{sys.executable} {server} {{port}}'}}")
    assignment = Assignment(
        launch=one_launch(study),
        study=study.name,
        trial_id="t",
        attempt=0,
        devices=(),
        place={"node_id": "n", "host": "h"},
    )
    launch = ProcessLaunch(assignment, tmp_path)
    launch.start()
    try:
        told: list[Any] = []
        deadline_s = time.monotonic() + 60
        while not any(event.get("phase") == "idle" for event in told):
            assert time.monotonic() < deadline_s, told
            told += launch.events(0.5)
            launch.kept(told)
        child = psutil.Process(launch.pid)
        servers = [each for each in child.children(recursive=True) if str(server) in each.cmdline()]
        assert len(servers) == 1
        assert servers[0].environ()["CUDA_VISIBLE_DEVICES"] == ""
    finally:
        launch.kill()
    deadline_s = time.monotonic() + 20
    while any(map(alive, servers)) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not any(map(alive, servers))
