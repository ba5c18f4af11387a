"""Another instrument's log: between its rows there are joules, outside of them and in gaps none."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.clocks import RealClock, VirtualClock
from sweeper.errors import MeterError, StudyError
from sweeper.forecast import parse_pool
from sweeper.meters.recording import Recording
from sweeper.meters.replay import ReplayMeter, read_log
from sweeper.plan import expand
from sweeper.rehearsal import rehearsed
from sweeper.study import load, unavailable
from tests.log_writer import written

HEADER = "t_s,device,watts\n"


def log_of(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def steady(path: Path, watts: float = 100.0, seconds: int = 60, unit: str = "watts") -> Path:
    """A row a second from 0 on."""
    value = (lambda t_s: watts) if unit == "watts" else (lambda t_s: 5e4 + watts * t_s)
    rows = [f"{t_s},wall,{value(t_s)}\n" for t_s in range(seconds + 1)]
    return log_of(path, f"t_s,device,{unit}\n" + "".join(rows))


def meter(file: Path, of: Any = None, /, **log: Any) -> ReplayMeter:
    """On the clock `of` a launch."""
    given_log = {"file": str(file), "clock": "monotonic", **log}
    return ReplayMeter((), of or VirtualClock(), None, given_log)


@pytest.mark.parametrize("unit", ["watts", "joules"])
def test_a_recorded_log_is_read_on_a_virtual_clock(tmp_path: Path, unit: str) -> None:
    clock = VirtualClock()
    replay = meter(steady(tmp_path / "log.csv", unit=unit), clock)
    facts = replay.open()
    assert facts["tracked"] == ["wall"]
    assert replay.method == {"watts": "power log", "joules": "counter log"}[unit]
    assert not replay.waits
    clock.sleep(10.25)
    before = replay.read()
    clock.sleep(30.5)
    after = replay.read()
    assert (before.t_s, after.t_s) == (10.25, 40.75)
    assert after.energy_j["wall"] - before.energy_j["wall"] == pytest.approx(3050.0)


def test_a_power_is_a_line_from_sample_to_sample(tmp_path: Path) -> None:
    recording = Recording(log_of(tmp_path / "l.csv", HEADER + "0,a,0\n2,a,100\n3,a,100\n"), 3.0)
    recording.more()
    track = recording.tracks["a"]
    assert track.at(2.0, 3.0) == pytest.approx(100.0)
    assert track.at(2.5, 3.0) == pytest.approx(150.0)


@pytest.mark.parametrize("at_s", [-0.5, 60.5, 1e6])
def test_outside_of_its_rows_a_log_says_nothing(tmp_path: Path, at_s: float) -> None:
    clock = VirtualClock()
    clock._now_s = at_s
    replay = meter(steady(tmp_path / "log.csv"), clock)
    replay.open()
    with pytest.raises(MeterError, match=r"^not_bracketed"):
        replay.read()


def with_a_gap(path: Path) -> Path:
    rows = [f"{t_s},wall,100\n" for t_s in range(61) if not 20 < t_s < 25]
    return log_of(path, HEADER + "".join(rows))


def test_a_gap_between_two_readings_leaves_the_second_without_a_number(tmp_path: Path) -> None:
    clock = VirtualClock()
    replay = meter(with_a_gap(tmp_path / "log.csv"), clock)
    replay.open()
    clock.sleep(10.0)
    first = replay.read()
    clock.sleep(20.0)
    with pytest.raises(MeterError, match=r"^sample_gap: wall: 5.0 s without a sample"):
        replay.read()
    before = replay.read()
    clock.sleep(10.0)
    after = replay.read()
    assert after.energy_j["wall"] - before.energy_j["wall"] == pytest.approx(1000.0)
    assert after.energy_j["wall"] - first.energy_j["wall"] < -1e11


def test_inside_a_gap_there_is_no_number_and_after_it_there_is(tmp_path: Path) -> None:
    clock = VirtualClock()
    replay = meter(with_a_gap(tmp_path / "log.csv"), clock)
    replay.open()
    clock.sleep(22.0)
    with pytest.raises(MeterError, match=r"^sample_gap"):
        replay.read()
    clock.sleep(8.0)
    before = replay.read()
    clock.sleep(10.0)
    assert replay.read().energy_j["wall"] - before.energy_j["wall"] == pytest.approx(1000.0)


def test_a_longer_gap_may_be_allowed(tmp_path: Path) -> None:
    clock = VirtualClock()
    replay = meter(with_a_gap(tmp_path / "log.csv"), clock, max_gap_s=6.0)
    replay.open()
    clock.sleep(10.0)
    before = replay.read()
    clock.sleep(20.0)
    assert replay.read().energy_j["wall"] - before.energy_j["wall"] == pytest.approx(2000.0)


def test_a_counter_that_goes_down_was_reset(tmp_path: Path) -> None:
    rows = [f"{t_s},wall,{1000 + 50 * (t_s % 30)}\n" for t_s in range(61)]
    clock = VirtualClock()
    replay = meter(log_of(tmp_path / "l.csv", "t_s,device,joules\n" + "".join(rows)), clock)
    replay.open()
    clock.sleep(10.0)
    replay.read()
    clock.sleep(30.0)
    with pytest.raises(MeterError, match=r"^counter_reset: wall went from 2450.0 J to 1000.0 J"):
        replay.read()


@given(
    cuts=st.lists(st.floats(0.5, 59.5), min_size=2, max_size=2, unique=True),
    watts=st.lists(st.floats(1.0, 900.0), min_size=61, max_size=61),
)
def test_joules_between_any_two_moments_are_the_integral(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[float], watts: list[float]
) -> None:
    """Against a sum over thousandths of a second."""
    rows = "".join(f"{t_s},a,{power_w}\n" for t_s, power_w in enumerate(watts))
    recording = Recording(log_of(tmp_path_factory.mktemp("log") / "l.csv", HEADER + rows), 3.0)
    recording.more()
    track = recording.tracks["a"]
    from_s, until_s = sorted(cuts)

    def power_w(t_s: float) -> float:
        low = int(t_s)
        return watts[low] + (watts[min(low + 1, 60)] - watts[low]) * (t_s - low)

    steps = 2000
    width_s = (until_s - from_s) / steps
    true_j = sum(power_w(from_s + (step + 0.5) * width_s) * width_s for step in range(steps))
    # Inside a row's second joules are a line, where the integral of a line is not.
    found_j = track.at(until_s, 3.0) - track.at(from_s, 3.0)
    assert found_j == pytest.approx(true_j, abs=2 * 900.0 / 8 + 1e-3 * true_j)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no rows yet"),
        (HEADER, "has no rows yet"),
        ("t_s,watts\n1,2\n", "its header is"),
        ("t_s,device,watts,joules\n1,a,2,3\n", "its header is"),
        (HEADER + "1,a,nan\n", "'1,a,nan'"),
        (HEADER + "1,a,-3\n", "'1,a,-3'"),
        (HEADER + "1,a\n", "'1,a'"),
        (HEADER + "noon,a,3\n", "'noon,a,3'"),
        (HEADER + "2025-11-27T12:00:00,a,3\n", "12:00:00"),
        (HEADER + "1,a,3\n1,a,3\n", "a at 1.0 after 1.0"),
    ],
)
def test_a_log_that_is_none_says_where(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(MeterError, match=r"^log_damaged") as raised:
        meter(log_of(tmp_path / "l.csv", text)).open()
    assert said in str(raised.value)


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match=r"^log_missing: .*l.csv"):
        meter(tmp_path / "l.csv").open()


def test_a_row_that_is_not_finished_is_left_for_the_next_time(tmp_path: Path) -> None:
    path = log_of(tmp_path / "l.csv", HEADER + "1,a,3\n2,a,10")
    recording = Recording(path, 3.0)
    recording.more()
    assert recording.tracks["a"].times_s == [1.0]
    with path.open("a") as log:
        log.write("0\n")
    recording.more()
    assert recording.tracks["a"].joules == [0.0, pytest.approx(51.5)]


def test_dates_are_seconds_and_go_with_no_virtual_clock(tmp_path: Path) -> None:
    path = log_of(tmp_path / "l.csv", HEADER + "1970-01-01T01:00:05+01:00,a,3\n")
    recording = Recording(path, 3.0)
    recording.more()
    assert recording.tracks["a"].times_s == [5.0]
    with pytest.raises(MeterError, match=r"^clock_not_real"):
        meter(path, clock="utc").open()


@pytest.mark.process
def test_a_wall_meter_beside_a_running_clock(tmp_path: Path) -> None:
    with written(tmp_path / "wall.csv", {"psu-1": 300.0, "psu-2": 200.0}, clock="utc") as file:
        replay = meter(file, RealClock(), clock="utc", systematic=0.01)
        replay.open()
        assert (replay.waits, replay.scope, replay.systematic) == (True, "node", 0.01)
        before = replay.read()
        time.sleep(1.5)
        after = replay.read()
        with file.open("a") as log:
            log.write(f"{time.time()},,psu-3,1\n")
        with pytest.raises(MeterError, match=r"^wrong_gpu_count: new in .*psu-3"):
            replay.read()
    spent_j = sum(after.energy_j[name] - before.energy_j[name] for name in before.energy_j)
    assert spent_j == pytest.approx(500.0 * (after.t_s - before.t_s), rel=0.01)


class SteppingClock(RealClock):
    """Real, until the wall clock is set: then the launch's own has moved beside it."""

    ahead_s = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_s


@pytest.mark.process
def test_a_wall_clock_that_is_set_leaves_one_reading_without_a_number(tmp_path: Path) -> None:
    clock = SteppingClock()
    with written(tmp_path / "wall.csv", {"wall": 300.0}, clock="utc") as file:
        replay = meter(file, clock, clock="utc")
        replay.open()
        time.sleep(0.2)
        replay.read()
        clock.ahead_s = -5.0
        with pytest.raises(MeterError, match=r"^clock_step: the wall clock was set by \+5.0"):
            replay.read()
        replay.read()


STUDY = """
model: {shape: tiny, weights: dummy}
engine: {kind: simulated}
meter: replay
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "replay: missing: {file: /path/of/a.csv}"),
        ("replay: {clock: utc}", "replay.file: missing"),
        ("replay: {file: wall.csv}", "replay.file: wall.csv is read on the node that measures"),
        ("replay: {file: /w.csv, clock: local}", "replay.clock"),
        ("replay: {file: /w.csv, max_gap_s: 0}", "replay.max_gap_s"),
        ("replay: {file: /w.csv, devices: 3}", "replay.devices"),
        ("replay: {file: /w.csv}", "replay.scope: node counts all that runs on a node"),
        ("meter: nvml\nreplay: {file: /w.csv}", "replay: is a key of meter replay, and meter is"),
        ("axes: {replay.max_gap_s: [1, 2]}", "is how a point is measured, not a choice"),
    ],
)
def test_what_a_study_says_of_its_log_is_checked(tmp_path: Path, text: str, said: str) -> None:
    base = STUDY.replace("meter: replay\n", "") if text.startswith("meter") else STUDY
    (tmp_path / "s.yaml").write_text(base + text)
    with pytest.raises(StudyError) as raised:
        load(tmp_path / "s.yaml")
    assert said in str(raised.value)


def test_a_study_with_a_log_can_be_had_and_is_rehearsed_without_it(tmp_path: Path) -> None:
    text = "replay: {file: /w.csv, scope: gpu}\n"
    (tmp_path / "s.yaml").write_text(STUDY + text)
    study = load(tmp_path / "s.yaml")
    assert unavailable(study) == []
    assert read_log(study.settings).scope == "gpu"
    [point] = expand(study)[0]
    other = load(tmp_path / "s.yaml", ["replay.file=/other.csv"])
    assert expand(other)[0][0].id != point.id
    assert rehearsed(study, parse_pool("1x1:H100")).settings.replay is None
