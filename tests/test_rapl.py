"""The processors' counters: what is counted once, laps that go unseen, and what is not told."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.clocks import RealClock
from sweeper.errors import MeterError
from sweeper.meters.powercap import of_component, zones
from sweeper.meters.rapl import LONGEST_WATCH_S, MOST_W, RaplCounters, RaplMeter, Wrapping
from tests.powercap_tree import TWO_SOCKETS, Zone, build, running, write

RANGE_UJ = 262_143_328_850
NOBODY = 65534


def names(root: Path, *components: str) -> list[str]:
    return [zone.name for zone in zones(root) if zone.component in components]


def test_a_socket_and_its_memory_are_counted_once(tmp_path: Path) -> None:
    root = build(tmp_path / "powercap", TWO_SOCKETS)
    assert names(root, "cpu") == ["cpu package-0", "cpu package-1"]
    assert names(root, "dram") == ["dram package-0", "dram package-1"]
    assert names(root, "part", "psys", "other") == ["core package-0", "psys"]
    assert {zone.folder.name.partition(":")[0] for zone in zones(root)} == {"intel-rapl"}


def test_a_socket_that_only_the_other_interface_shows_is_counted(tmp_path: Path) -> None:
    root = build(tmp_path, [zone for zone in TWO_SOCKETS if "mmio" in zone.folder])
    assert names(root, "cpu", "dram") == ["cpu package-0", "dram package-0"]


def test_sockets_come_in_their_order_and_dies_are_sockets(tmp_path: Path) -> None:
    many = [Zone(folder=f"intel-rapl:{n}", name=f"package-{n}") for n in (10, 2, 0)]
    dies = [Zone(folder="intel-rapl:11", name="package-11-die-1")]
    root = build(tmp_path, [*many, *dies])
    wanted = ["cpu package-0", "cpu package-2", "cpu package-10", "cpu package-11-die-1"]
    assert names(root, "cpu") == wanted


def test_processors_of_amd_have_no_memory_in_it(tmp_path: Path) -> None:
    tree = [
        Zone(folder="intel-rapl:0", name="package-0", watts=200.0),
        Zone(folder="intel-rapl:0:0", name="core", watts=120.0),
    ]
    root = build(tmp_path, tree)
    meter = RaplMeter([], RealClock(), root=root)
    facts = meter.open()
    meter.close()
    assert meter.scope == "node cpu"
    assert facts["rapl"] == {"counted": ["cpu package-0"], "not_counted": ["core package-0"]}
    with pytest.raises(MeterError, match="not_supported: the kernel shows no counter of dram"):
        of_component(zones(root), "dram")


def test_without_a_tree_there_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match=r"^not_supported"):
        RaplMeter([], RealClock(), root=tmp_path / "none").open()


def test_what_gpus_use_it_does_not_tell(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match=r"^device_unknown: .*GPU-0"):
        RaplMeter(["GPU-0"], RealClock(), root=build(tmp_path, TWO_SOCKETS)).open()


@contextmanager
def as_nobody() -> Iterator[None]:
    """As a user who may not read what root may."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A folder that every user can go into."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_permission_denied_is_missing_and_no_zero(open_path: Path) -> None:
    root = build(open_path, TWO_SOCKETS)
    for zone in TWO_SOCKETS:
        (root / zone.folder / "energy_uj").chmod(0o000 if os.geteuid() else 0o400)
    meter = RaplMeter([], RealClock(), root=root)
    with as_nobody(), pytest.raises(MeterError, match=r"^no_permission: .*energy_uj") as raised:
        meter.open()
    assert raised.value.code == "no_permission"
    with pytest.raises(MeterError, match="not_open"):
        meter.read()


@pytest.mark.parametrize("content", ["", "many", "-5", str(RANGE_UJ + 1)])
def test_a_counter_that_says_nonsense_gives_no_number(tmp_path: Path, content: str) -> None:
    root = build(tmp_path, TWO_SOCKETS)
    counters = RaplCounters(of_component(zones(root), "dram"))
    counters.open()
    (root / "intel-rapl:1:0" / "energy_uj").write_text(content)
    with pytest.raises(MeterError, match=r"^reading_failed"):
        counters.read()
    counters.close()


@given(
    start_uj=st.integers(0, RANGE_UJ),
    steps=st.lists(
        st.tuples(st.floats(0.01, RANGE_UJ * 1e-6 / MOST_W - 1.0), st.floats(0.0, MOST_W)),
        min_size=1,
        max_size=40,
    ),
)
def test_laps_are_followed_however_many_there_are(
    start_uj: int, steps: list[tuple[float, float]]
) -> None:
    """Against the counter that never wraps."""
    counter, t_s, whole_uj = Wrapping(RANGE_UJ), 0.0, start_uj
    counter.look(t_s, start_uj)
    for seconds, watts in steps:
        t_s += seconds
        whole_uj += int(watts * seconds * 1e6)
        joules = counter.look(t_s, whole_uj % RANGE_UJ)
        assert joules == pytest.approx((whole_uj - start_uj) * 1e-6, abs=1e-6)


def test_a_lap_that_may_have_gone_unseen_leaves_no_number_from_then_on() -> None:
    counter = Wrapping(RANGE_UJ)
    counter.look(0.0, 5)
    counter.look(counter.lap_s - 1.0, 10)
    with pytest.raises(MeterError, match=r"^counter_wrapped"):
        counter.look(2 * counter.lap_s, 20)
    with pytest.raises(MeterError, match=r"^counter_wrapped"):
        counter.look(2 * counter.lap_s + 1.0, 30)


def test_a_counter_that_was_set_back_is_not_a_lap() -> None:
    counter = Wrapping(RANGE_UJ)
    counter.look(0.0, 4_000_000_000)
    with pytest.raises(MeterError, match=r"^counter_reset"):
        counter.look(10.0, 0)


@pytest.mark.process
def test_the_watch_follows_laps_between_two_readings(tmp_path: Path) -> None:
    """Laps go by between two readings, and none is missed: the reading alone would see one."""
    small = Zone(folder="intel-rapl:0", name="package-0", watts=1900.0, range_uj=4_000_000_000)
    with running(tmp_path, [small]) as root:
        counters = RaplCounters(zones(root))
        counters.open()
        assert counters.watch_period_s == pytest.approx(0.5)
        before_s, before = time.monotonic(), counters.read()["cpu package-0"]
        time.sleep(4.5)
        after_s, after = time.monotonic(), counters.read()["cpu package-0"]
        counters.close()
    laps = (after - before) * 1e6 / small.range_uj
    assert laps > 2
    assert after - before == pytest.approx(small.joules(before_s, after_s), rel=0.02)


def test_a_watch_that_was_kept_from_looking_gives_no_number(tmp_path: Path) -> None:
    root = build(tmp_path, TWO_SOCKETS)
    clock = iter([0.0, 0.0, 1000.0])
    counters = RaplCounters(of_component(zones(root), "cpu"), now=lambda: next(clock, 1000.0))
    counters.open()
    write(root, TWO_SOCKETS, time.monotonic())
    with pytest.raises(MeterError, match=r"^counter_wrapped: not looked at for 1000 s"):
        counters.read()
    counters.close()


def test_a_slow_counter_is_hardly_looked_at(tmp_path: Path) -> None:
    counters = RaplCounters(zones(build(tmp_path, TWO_SOCKETS)))
    counters.open()
    counters.close()
    assert counters.watch_period_s == LONGEST_WATCH_S
