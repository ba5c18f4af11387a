"""A trial under its supervisor: in a thread, and in a child process with a guardian."""

import base64
import gzip
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from sweeper.engines import host_memory
from sweeper.results.record import Record
from sweeper.trial.assignment import Assignment, meter_kind
from sweeper.trial.guardian import VARIABLE
from sweeper.trial.lease import Lease
from sweeper.trial.process import ProcessLaunch
from tests.studies import one_trial, simulated

pytestmark = pytest.mark.process

PLACE = {"node_id": "n", "host": "h"}
DEVICES = ("H100/gpu-0",)


def lease_of(study, tmp_path: Path) -> Lease:
    return Lease(one_trial(study), DEVICES, study.name, tmp_path, PLACE)


def run(lease, limit_s: float = 60.0, on_event=lambda event: None) -> list[dict]:
    """All events until the lease has finished, each acknowledged."""
    events: list[dict] = []
    deadline = time.monotonic() + limit_s
    lease.start()
    try:
        while not lease.finished:
            assert time.monotonic() < deadline, events[-3:]
            for event in lease.events(0.5):
                events.append(event)
                on_event(event)
            lease.acknowledge()
    finally:
        lease.kill()
    return events


def kinds(events: list[dict]) -> list[str]:
    return [event["kind"] for event in events]


def marked(token_of: str) -> list[int]:
    """Living processes that carry a lease's mark, whatever their parents."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        carries = f"{VARIABLE}=".encode() in environment and token_of.encode() in environment
        if carries and state not in "ZX":
            found.append(int(entry.name))
    return found


def test_a_simulated_launch_runs_in_a_thread(tmp_path):
    events = run(lease_of(simulated(), tmp_path))
    records = [Record.from_json(e) for e in events if e["kind"] == "record"]
    assert {record.status for record in records} == {"ok"}
    assert len(records) == 2
    assert kinds(events).count("window") == 5  # two of each point, and the control's last
    assert kinds(events)[0] == "trial"
    assert kinds(events)[-1] == "ended"
    assert records[0].environment["host"] == "h"
    assert records[0].energy.source == "simulated"
    assert not records[0].energy.measured


def test_a_lease_tells_what_it_held(tmp_path):
    events = run(lease_of(simulated(), tmp_path))
    assert events[0]["devices"] == list(DEVICES)
    assert events[0]["node_id"] == "n"
    ended = events[-1]
    [launched] = [event for event in events if event["kind"] == "launched"]
    # Its own clock has gone on for longer than ours.
    assert ended["gpu_seconds"] == ended["seconds"] == launched["seconds"] > 20
    assert ended["energy_j"] == launched["energy_j"] > 0
    assert ended["energy"] == {"source": "simulated", "measured": False, "scope": "gpu"}


def test_joules_of_a_lease_that_died_are_not_known(tmp_path):
    events = run(lease_of(simulated(fail={"kind": "error", "at": "window"}), tmp_path))
    assert events[-1]["kind"] == "ended"
    assert events[-1]["energy_j"] is None
    assert events[-1]["gpu_seconds"] > 0


def test_nothing_goes_on_before_what_was_told_is_kept(tmp_path):
    lease = lease_of(simulated(), tmp_path)
    lease.start()
    try:
        seen: list[str] = []
        deadline = time.monotonic() + 30
        while "window" not in seen:
            assert time.monotonic() < deadline, seen
            if seen:
                lease.acknowledge()
            seen += kinds(lease.events(5.0))
        assert lease.events(0.3) == []
        lease.acknowledge()
        assert lease.events(5.0)
    finally:
        lease.kill()


def test_a_launch_in_a_process_tells_the_same(tmp_path):
    inline = run(lease_of(simulated(), tmp_path))
    apart = run(lease_of(simulated(isolated=True), tmp_path))
    told = [e for e in apart if e["kind"] == "attachment" and e["role"] == "engine_log"]
    assert len(told) == 1
    gzip.decompress(base64.b64decode(told[0]["data"]))
    assert kinds(apart).count("record") == kinds(inline).count("record") == 2
    assert kinds(apart).count("window") == 5
    assert "death" not in kinds(apart)


@pytest.mark.parametrize("isolated", [False, True])
def test_an_engine_error_is_a_death_with_its_reason(tmp_path, isolated):
    study = simulated(fail={"kind": "error", "at": "load"}, isolated=isolated)
    events = run(lease_of(study, tmp_path))
    [death] = [event for event in events if event["kind"] == "death"]
    assert death["reason"].startswith("EngineError: ")
    assert death["phase"] == "load"
    assert death["point"] is None


def test_a_crash_is_a_death_that_names_the_point_in_progress(tmp_path):
    study = simulated(isolated=True, fail={"kind": "crash", "at": "window", "batch_size": 4})
    events = run(lease_of(study, tmp_path))
    [death] = [event for event in events if event["kind"] == "death"]
    assert death["reason"].startswith("died: the engine process ended with ")
    [guilty] = [
        point.id
        for point in one_trial(study).launches[0].points
        if point.settings.workload.batch_size == 4
    ]
    assert death["point"] == guilty
    assert "log_tail" in death


def test_out_of_memory_is_a_result(tmp_path):
    events = run(lease_of(simulated(oom_above_batch=1), tmp_path))
    records = {
        event["chosen"]["workload.batch_size"]: event
        for event in events
        if event["kind"] == "record"
    }
    assert (records[1]["status"], records[4]["status"]) == ("ok", "infeasible")
    assert "death" not in kinds(events)


def process_launch(study, tmp_path, **limits) -> ProcessLaunch:
    launch = one_trial(study).launches[0]
    assignment = Assignment(
        launch=launch,
        study=study.name,
        trial_id="t",
        attempt=0,
        devices=DEVICES,
        place=PLACE,
    )
    return ProcessLaunch(assignment, tmp_path, **limits)


def test_an_engine_that_stands_still_is_killed_with_all_it_started(tmp_path):
    study = simulated(isolated=True, helpers=2, fail={"kind": "hang", "at": "window"})
    launch = process_launch(study, tmp_path, silence_limit_s=3.0)
    launch.start()
    events: list[dict] = []
    deadline = time.monotonic() + 60
    while not launch.finished and time.monotonic() < deadline:
        got = launch.events(0.5)
        launch.kept(got)
        events += got
    assert events[-1]["kind"] == "death"
    assert events[-1]["reason"].startswith("hang: no step for ")
    assert marked(launch.token) == []


def test_an_engine_that_leaks_is_killed_before_the_node_has_no_memory(tmp_path):
    free = host_memory.free_bytes()
    if free < 4 * 2**30:
        pytest.skip("needs 4 GiB of free memory")
    study = simulated(isolated=True, helpers=1, fail={"kind": "leak", "at": "window"})
    # It is let grow past the size from which it is suspected.
    launch = process_launch(study, tmp_path, memory_reserve_bytes=free)
    launch.start()
    events: list[dict] = []
    deadline = time.monotonic() + 60
    while not launch.finished and time.monotonic() < deadline:
        got = launch.events(0.1)
        launch.kept(got)
        events += got
    assert events[-1]["reason"].startswith("leak: its processes hold 1."), events[-1]
    assert events[-1]["point"] is not None
    assert marked(launch.token) == []


def test_a_launch_that_does_not_grow_is_not_blamed_for_a_full_node(tmp_path):
    launch = process_launch(simulated(isolated=True), tmp_path, memory_reserve_bytes=2**60)
    launch.start()
    events: list[dict] = []
    deadline = time.monotonic() + 60
    while not launch.finished and time.monotonic() < deadline:
        got = launch.events(0.5)
        launch.kept(got)
        events += got
    assert events[-1]["kind"] == "launched"


def test_a_stopped_process_is_found_and_killed(tmp_path):
    study = simulated(isolated=True, time_scale=0.1, load_s=0.2, helpers=1)
    launch = process_launch(study, tmp_path, silence_limit_s=3.0)
    launch.start()
    events: list[dict] = []
    deadline = time.monotonic() + 60
    while not launch.finished and time.monotonic() < deadline:
        got = launch.events(0.5)
        launch.kept(got)
        events += got
        if any(event["kind"] == "phase" and event["phase"] == "warm-up" for event in got):
            os.kill(launch.pid, signal.SIGSTOP)
    assert events[-1]["reason"].startswith("hang: ")
    assert marked(launch.token) == []


def test_killing_a_lease_leaves_nobody(tmp_path):
    study = simulated(isolated=True, time_scale=0.1, load_s=0.2, helpers=2)
    launch = process_launch(study, tmp_path)
    launch.start()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        got = launch.events(0.5)
        launch.kept(got)
        if any(event["kind"] == "phase" and event["phase"] == "warm-up" for event in got):
            break
    assert len(marked(launch.token)) >= 5  # the child, two helpers, their two grandchildren
    launch.kill()
    launch.kill()
    assert marked(launch.token) == []


def test_a_child_whose_parent_is_gone_ends(tmp_path):
    study = simulated(isolated=True, time_scale=0.1, load_s=0.2)
    launch = process_launch(study, tmp_path)
    launch.start()
    deadline = time.monotonic() + 60
    while not any(event["kind"] == "window" for event in launch.events(10.0)):
        assert time.monotonic() < deadline
        launch.kept([])
    launch.hang_up()
    deadline = time.monotonic() + 20
    while marked(launch.token) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert marked(launch.token) == []
    launch.kill()


def test_auto_meters():
    settings = simulated().settings
    assert meter_kind(settings, DEVICES) == "simulated"
    real = replace(settings, engine=replace(settings.engine, kind="transformers"))
    assert meter_kind(real, DEVICES) == "nvml"
    assert meter_kind(real, ()) == "codecarbon"
    assert meter_kind(replace(real, meter="nvml"), ()) == "nvml"
