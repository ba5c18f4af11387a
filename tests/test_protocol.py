"""The protocol of a launch, with an engine, a meter and a clock whose every number is known."""

import math
from dataclasses import asdict

import pytest

from sweeper.errors import EngineError, Infeasible, MeterError, WrongSetting
from sweeper.meters import Reading
from sweeper.plan import sizes_of
from sweeper.results.power import unpack_trace
from sweeper.results.record import Record, Window
from sweeper.spec import Launch, MeasureSpec, Point, Settings, WarmupSpec, WorkloadSpec
from sweeper.trial.bench import Bench, Context
from sweeper.trial.protocol import run_launch
from tests.fakes import FakeClock, FakeEngine, FakeMeter

WARMUP = WarmupSpec(min_batches=2, max_batches=3)
STEP_S, PREFILL_S = 0.125, 0.5


def point(name: str, batch_size: int, *, window="auto", batching="static", **workload) -> Point:
    settings = Settings(
        workload=WorkloadSpec(
            input_tokens=40,
            output_tokens=9,
            batch_size=batch_size,
            batching=batching,
            **workload,
        ),
        measure=MeasureSpec(warmup=WARMUP, window=window, min_window_s=6.0, repeats=2),
    )
    return Point(
        id=name,
        configuration="c",
        condition={},
        chosen={"workload.batch_size": batch_size},
        settings=settings,
    )


def launched(*points: Point, clock=None, meter=None, min_requests=1, made=FakeEngine, **engine):
    clock = clock or FakeClock()
    engine = made(clock, prefill_s=PREFILL_S, step_s=STEP_S, **engine)
    meter = meter or FakeMeter(clock)
    events: list[tuple[str, dict]] = []
    bench = Bench(
        engine=engine,
        meter=meter,
        clock=clock,
        devices=meter.devices,
        context=Context(name="t-1", study="s", trial_id="t", attempt=1, environment={"host": "h"}),
        emit=lambda kind, fields: events.append((kind, dict(fields))),
    )
    launch = Launch(
        number=4,
        stage="full",
        sizes=sizes_of(points),
        points=points,
        min_requests=min_requests,
        seed=3,
    )
    failure = None
    try:
        events.append(("launched", asdict(run_launch(launch, bench))))
    except Exception as error:
        failure = error
    records = {
        fields["id"]: Record.from_json(fields) for kind, fields in events if kind == "record"
    }
    return engine, meter, events, records, failure


def test_whole_windows_by_hand():
    engine, meter, _, records, failure = launched(point("a", 4))
    assert failure is None
    record = records["a"]
    assert (record.status, record.reason, record.launch, record.attempt) == ("ok", None, 4, 1)
    assert record.load_s == 3.0
    # A batch takes 0.5 s and 8 steps of 0.125 s: four of them make the 6 s of a window.
    assert [window.duration_s for window in record.windows] == [6.0, 6.0]
    assert [window.requests for window in record.windows] == [16, 16]
    assert record.windows[0].output_tokens == 16 * 9
    assert record.windows[0].input_tokens == 16 * 40
    assert record.windows[0].energy_j == pytest.approx(2 * 200.0 * 6.0)
    assert record.metrics["energy_per_output_token_j"] == pytest.approx(2400.0 / (16 * 9))
    assert record.metrics["ttft_mean_s"] == pytest.approx(PREFILL_S)
    assert record.metrics["tpot_mean_s"] == pytest.approx(STEP_S)
    assert record.metrics["latency_mean_s"] == pytest.approx(1.5)
    assert record.metrics["bare_idle_w"] == pytest.approx(400.0)
    assert record.metrics["context_idle_w"] == pytest.approx(400.0)
    assert record.metrics["peak_memory_bytes"] == 1e9
    assert record.environment["host"] == "h"
    assert record.environment["resolved_engine"]["engine"] == "fake"
    assert record.environment["devices"]["GPU-a"] == {"name": "Fake GPU"}
    assert record.launch_command == "fake --serve"
    # Two batches of warm-up on the first visit, one to settle on the second.
    assert engine.batches == [4] * (2 + 4 + 1 + 4)
    assert (engine.closed, meter.closed) == (1, 1)


def test_windows_are_emitted_before_their_record_and_rebuild_it():
    _, _, events, records, _ = launched(point("a", 4), point("b", 2))
    kinds = [kind for kind, _ in events if kind in ("window", "record")]
    assert sorted(kinds) == ["record"] * 2 + ["window"] * 5
    assert sum(fields.get("control", False) for _, fields in events) == 1
    for name, record in records.items():
        told = [fields for kind, fields in events if kind == "window" and fields["id"] == name]
        mine = [fields for fields in told if not fields.get("control")]
        where = [index for index, (kind, fields) in enumerate(events) if fields.get("id") == name]
        assert events[where[-1]][0] == "record"
        known = set(Window.__dataclass_fields__)
        rebuilt = [Window(**{k: v for k, v in f.items() if k in known}) for f in mine]
        assert [window.energy_j for window in rebuilt] == [w.energy_j for w in record.windows]


def test_points_are_visited_in_passes_warmed_up_once_and_the_first_again_at_the_end():
    _, _, events, _, _ = launched(point("a", 4), point("b", 2))
    phases = [(f["phase"], f["point"]) for kind, f in events if kind == "phase"]
    assert [name for name, _ in phases[:3]] == ["gate", "load", "idle"]
    assert phases[-1] == ("unload", None)
    windows = [where for name, where in phases if name == "window"]
    assert {windows[0], windows[1]} == {windows[2], windows[3]} == {"a", "b"}
    assert windows[4:] == [windows[0]]
    for name in "ab":
        visits = windows.count(name)
        assert [phase for phase, where in phases if where == name] == [
            *("warm-up", "window"),
            *(("settle", "window") * (visits - 1)),
        ]


def test_the_power_trace_is_attached_at_the_end():
    _, _, events, _, _ = launched(point("a", 4))
    kind, fields = events[-2]
    assert (kind, fields["role"]) == ("attachment", "power_trace")
    import base64

    assert unpack_trace(base64.b64decode(fields["data"]))[0][1:] == ("GPU-a", 200.0)


def test_an_exact_number_of_requests_is_repeated_until_the_window_is_long_enough():
    engine, _, _, records, _ = launched(point("a", 4, requests=6))
    # 6 requests are a batch of 4 and one of 2: 3 s; twice that is the window.
    assert records["a"].windows[0].requests == 12
    assert engine.batches[2:6] == [4, 2, 4, 2]


def test_a_window_holds_its_share_of_the_requests_that_percentiles_need():
    _, _, _, records, _ = launched(point("a", 4), min_requests=100)
    assert [window.requests for window in records["a"].windows] == [52, 52]


def test_steady_windows_hold_what_the_workload_says():
    _, _, _, records, failure = launched(point("a", 3, batching="continuous"))
    assert failure is None
    record = records["a"]
    assert (record.status, record.convention) == ("ok", "steady")
    for window in record.windows:
        assert window.duration_s >= 6.0
        assert window.input_tokens / window.output_tokens == pytest.approx(40 / 9, rel=0.02)
        assert window.energy_j == pytest.approx(400.0 * window.duration_s)
        assert window.requests == pytest.approx(window.output_tokens / 9, abs=3)


def test_a_steady_window_holds_what_fills_every_slot_once():
    _, _, _, records, _ = launched(point("a", 24, batching="continuous"))
    # A request takes longer than the window has to last, as the prefills of 23 others lie in it.
    for window in records["a"].windows:
        assert window.metrics["latency_mean_s"] > 6.0
        assert window.requests >= 24
        assert window.energy_j is not None, window.reason


def test_a_meter_that_waits_is_read_beside_the_running_engine():
    clock = FakeClock()
    _, _, _, records, failure = launched(
        point("a", 3, batching="continuous"), clock=clock, meter=FakeMeter(clock, waits=True)
    )
    assert failure is None
    assert len(records["a"].windows) >= 2
    assert all(w.ended_s - w.started_s >= 6.0 for w in records["a"].windows)


def test_a_steady_stream_is_closed_after_its_window():
    engine, *_ = launched(point("a", 3, batching="continuous"))
    assert engine.open_streams == 0


def test_whole_windows_of_a_continuous_engine_take_one_request_set():
    _, _, _, records, _ = launched(
        point("a", 3, batching="continuous", window="whole", requests=10)
    )
    window = records["a"].windows[0]
    assert window.requests % 10 == 0
    assert window.output_tokens == window.requests * 9


def test_a_batch_that_does_not_fit_is_infeasible_and_the_others_go_on():
    _, _, _, records, failure = launched(point("a", 4), point("b", 64), too_large=64)
    assert failure is None
    assert records["a"].status == "ok"
    assert (records["b"].status, records["b"].reason) == (
        "infeasible",
        "out of memory at batch 64",
    )
    assert records["b"].metrics == {}


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Infeasible("weights do not fit"), "infeasible"),
        (WrongSetting("got eager"), "wrong_setting"),
    ],
)
def test_a_load_that_says_no_is_a_verdict_for_every_point(error, status):
    engine, meter, _, records, failure = launched(point("a", 4), point("b", 2), load_error=error)
    assert failure is None
    assert {record.status for record in records.values()} == {status}
    assert {record.reason for record in records.values()} == {str(error)}
    assert (engine.closed, meter.closed) == (1, 1)


def test_a_load_that_fails_is_no_verdict():
    engine, meter, _, records, failure = launched(point("a", 4), load_error=EngineError("boom"))
    assert records == {}
    assert str(failure) == "boom"
    assert (engine.closed, meter.closed) == (1, 1)


def test_a_failed_reading_is_measured_again_and_stays_in_the_record():
    clock = FakeClock()
    meter = FakeMeter(clock, fails={6: MeterError("gpu_lost", "GPU-a")})
    _, _, _, records, _ = launched(point("a", 4), clock=clock, meter=meter)
    record = records["a"]
    assert record.status == "ok"
    assert [w.reason for w in record.windows] == ["gpu_lost: GPU-a", None, None]
    assert [check.ok for check in record.checks if check.name == "window_0"] == [False]


def test_without_energy_a_record_keeps_its_performance():
    clock = FakeClock()
    fails = {number: MeterError("gpu_lost", "GPU-a") for number in range(6, 60)}
    _, _, _, records, _ = launched(point("a", 4), clock=clock, meter=FakeMeter(clock, fails=fails))
    record = records["a"]
    assert (record.status, record.reason) == ("energy_invalid", "gpu_lost: GPU-a")
    assert record.metrics["output_tokens_per_s"] > 0
    assert "energy_j" not in record.metrics


def test_idle_power_that_cannot_be_read_is_a_check_and_no_number():
    clock = FakeClock()
    meter = FakeMeter(clock, fails={2: MeterError("not_supported", "GPU-a")})
    _, _, _, records, _ = launched(point("a", 4), clock=clock, meter=meter)
    assert "bare_idle_w" not in records["a"].metrics
    assert "context_idle_w" in records["a"].metrics
    [check] = [check for check in records["a"].checks if check.name == "bare_idle_w"]
    assert (check.ok, check.detail) == (False, "not_supported: GPU-a")


def test_a_launch_tells_what_all_of_it_took():
    clock = FakeClock()
    began_s = clock.now()
    _, meter, events, records, _ = launched(point("a", 4), point("b", 2), clock=clock)
    kind, spent = events[-1]
    assert kind == "launched"
    assert spent["seconds"] == clock.now() - began_s
    assert spent["energy_j"] == pytest.approx(2 * meter.power_w * spent["seconds"])
    assert (spent["source"], spent["measured"], spent["scope"]) == ("fake", True, "gpu")
    in_windows_j = sum(w.energy_j or 0.0 for record in records.values() for w in record.windows)
    assert 0 < in_windows_j < spent["energy_j"]


def test_a_launch_whose_first_reading_failed_has_no_joules_of_its_own():
    clock = FakeClock()
    meter = FakeMeter(clock, fails={1: MeterError("gpu_lost", "GPU-a")})
    _, _, events, records, _ = launched(point("a", 4), clock=clock, meter=meter)
    assert events[-1][1]["energy_j"] is None
    assert records["a"].status == "ok"


def test_a_gpu_that_stays_taken_stops_the_launch():
    clock = FakeClock()
    taken = {"GPU-a": {"compute_pids": [4711], "memory_used_bytes": 1, "memory_total_bytes": 9}}
    engine, _, _, records, failure = launched(
        point("a", 4), clock=clock, meter=FakeMeter(clock, state=taken)
    )
    assert isinstance(failure, MeterError)
    assert str(failure) == "gpu_not_free: GPU-a is computed on by process 4711"
    assert records == {}
    assert engine.batches == []


def test_memory_in_use_is_waited_for():
    clock = FakeClock()
    full = {"GPU-a": {"memory_used_bytes": 6 * 2**30, "memory_total_bytes": 80 * 2**30}}
    _, _, _, _, failure = launched(point("a", 4), clock=clock, meter=FakeMeter(clock, state=full))
    assert str(failure) == "gpu_not_free: GPU-a has 6.0 of 80.0 GiB in use"
    assert clock.now() >= 160.0


def test_a_free_gpu_leaves_a_check():
    clock = FakeClock()
    free = {"GPU-a": {"compute_pids": [], "memory_used_bytes": 1, "memory_total_bytes": 100}}
    _, _, _, records, _ = launched(point("a", 4), clock=clock, meter=FakeMeter(clock, state=free))
    [check] = [check for check in records["a"].checks if check.name == "gpu_free"]
    assert check.ok
    assert check.detail.startswith("GPU-a: ")


class Cooling(FakeMeter):
    """Each device rests at 100 W, and draws up to 300 W more that fade in seconds."""

    def read(self) -> Reading:
        since_s = self.clock.now() - 100.0
        joules = 100.0 * since_s + 300.0 * 4.0 * (1 - math.exp(-since_s / 4.0))
        return Reading(self.clock.now(), dict.fromkeys(self.devices, joules))


@pytest.mark.parametrize(("waits", "least", "most"), [(True, 200.0, 206.0), (False, 370.0, 640.0)])
def test_idle_power_is_read_until_it_rests(waits, least, most):
    """Where the meter is a counter of hardware; what is estimated does not cool down."""
    clock = FakeClock()
    meter = Cooling(clock, waits=waits)
    *_, records, failure = launched(point("a", 4), clock=clock, meter=meter)
    assert failure is None
    assert least < records["a"].metrics["bare_idle_w"] < most


@pytest.mark.parametrize(
    ("changed", "checks"),
    [
        (None, []),
        ({}, [(True, "")]),
        ({"runner": "1, not 2", "b": "off"}, [(False, "b: off; runner: 1, not 2")]),
    ],
)
def test_what_an_engine_changed_unasked_is_a_check_of_every_record(changed, checks):
    class Changing(FakeEngine):
        def load(self):
            told = {} if changed is None else {"changed": changed}
            return {**super().load(), **told}

    *_, records, failure = launched(point("a", 4), point("b", 2), made=Changing)
    assert failure is None
    for record in records.values():
        found = [each for each in record.checks if each.name == "settings_followed"]
        assert [(each.ok, each.detail) for each in found] == checks
        assert record.status == "ok"
