"""Ticks of counters become one moment, however slowly the counters answer."""

import math
import random
from collections.abc import Callable
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.clocks import VirtualClock
from sweeper.errors import MeterError
from sweeper.meters.counter import Tick, _at, periods_s, read_aligned
from tests.nvml_standin import Gpu


def ticking(
    clock: VirtualClock,
    watts: float,
    period_s: float,
    phase_s: float,
    slow_s: float = 0.0,
    quick_looks: int = 0,
) -> Callable[[], float]:
    """A counter of constant power that shows the energy up to its last tick."""

    looks = count()

    def read() -> float:
        clock.sleep(slow_s if next(looks) >= quick_looks else 0.0)
        ticks = math.floor((clock.now() - phase_s) / period_s)
        return watts * (ticks * period_s + phase_s)

    return read


def test_one_counter_is_read_at_its_tick() -> None:
    clock = VirtualClock()
    t_s, joules = read_aligned({"a": ticking(clock, 200.0, 0.1, 0.03)}, clock)
    assert joules["a"] == pytest.approx(200.0 * t_s, abs=200.0 * 0.001)


def test_several_counters_are_brought_to_one_moment() -> None:
    clock = VirtualClock()
    counters = {
        "a": ticking(clock, 100.0, 0.2, 0.01),
        "b": ticking(clock, 300.0, 0.2, 0.09),
        "c": ticking(clock, 700.0, 0.1, 0.07),
    }
    t_s, joules = read_aligned(counters, clock)
    for device, watts in {"a": 100.0, "b": 300.0, "c": 700.0}.items():
        assert joules[device] == pytest.approx(watts * t_s, abs=watts * 0.001)


@pytest.mark.parametrize("quick_looks", [0, 3], ids=["always slow", "slow after a while"])
def test_a_counter_too_slow_for_sharp_ticks_is_still_read(quick_looks: int) -> None:
    clock = VirtualClock()
    counter = ticking(clock, 200.0, 0.1, 0.0, slow_s=0.03, quick_looks=quick_looks)
    t_s, joules = read_aligned({"a": counter}, clock)
    assert joules["a"] == pytest.approx(200.0 * t_s, abs=200.0 * 0.1)


@pytest.mark.parametrize("period_s", [0.02, 0.05, 0.1, 0.2])
def test_the_period_is_found(period_s: float) -> None:
    clock = VirtualClock()
    found = periods_s({"a": ticking(clock, 50.0, period_s, 0.0)}, clock)
    assert found["a"] == pytest.approx(period_s, abs=0.001)


def test_ticks_that_were_not_sharp_do_not_lengthen_the_period() -> None:
    clock, period_s = VirtualClock(), 0.06

    def hidden_two_times_of_three() -> float:
        tick, phase = divmod(clock.now(), period_s)
        if (tick + 1) % 3 and phase > period_s / 2:
            clock.sleep(0.04)
        return 50.0 * (clock.now() // period_s)

    found = periods_s({"a": hidden_two_times_of_three}, clock)
    assert found["a"] == pytest.approx(period_s, abs=0.02)


def test_between_two_ticks_a_counter_is_a_line() -> None:
    ticks = [Tick(1.0, 100.0, 1), Tick(1.2, 160.0, 2), Tick(1.4, 200.0, 3)]
    assert _at(1.2, ticks) == 160.0
    assert _at(1.05, ticks) == pytest.approx(115.0)
    assert _at(1.3, ticks) == pytest.approx(180.0)


def test_a_counter_that_goes_down_was_reset() -> None:
    values = iter([10.0, 10.0, 4.0])
    with pytest.raises(MeterError, match=r"^counter_reset: a went from 10.0 J to 4.0 J"):
        read_aligned({"a": lambda: next(values)}, VirtualClock())


def test_a_counter_that_stands_still_is_stuck() -> None:
    clock = VirtualClock()
    with pytest.raises(MeterError, match=r"^counter_stuck: b stood at 5.0 J"):
        read_aligned({"a": clock.now, "b": lambda: 5.0}, clock)


@given(st.integers(0, 10_000))
def test_at_several_gpus_a_jump_is_off_by_a_quarter_period_at_most(seed: int) -> None:
    rng = random.Random(seed)
    gpus = []
    for number in range(rng.randint(2, 5)):
        times_s = sorted({round(rng.uniform(0, 0.8), 4) for _ in range(rng.randint(1, 12))})
        period_s = rng.choice([0.02, 0.1, 0.2])
        gpus.append(
            Gpu(
                uuid=f"GPU-{number}",
                power_w=[(t_s, rng.choice([70.0, 300.0, 700.0])) for t_s in times_s],
                counter_period_s=period_s,
                counter_phase_s=rng.uniform(0, period_s),
            )
        )
    clock = VirtualClock()
    t_s, joules = read_aligned({gpu.uuid: shown(gpu, clock) for gpu in gpus}, clock)
    for gpu in gpus:
        levels = [watts for _, watts in gpu.power_w]
        quarter_j = gpu.counter_period_s / 4 * (max(levels) - min(levels))
        # Ticks are known to half the millisecond between two looks, and so is the moment.
        assert joules[gpu.uuid] == pytest.approx(
            gpu.counter_offset_j + gpu.joules(0, t_s), abs=quarter_j + 0.001 * max(levels)
        )


def test_the_quarter_of_a_period_is_reached() -> None:
    """Power jumps, and the moment is, half way between two ticks."""
    clock = VirtualClock()
    steady = Gpu(uuid="a", counter_period_s=0.2, counter_phase_s=0.1)
    jumps = Gpu(uuid="b", counter_period_s=0.2, power_w=((0.0, 100.0), (0.3, 700.0), (0.4, 100.0)))
    clock.sleep(0.15)
    t_s, joules = read_aligned({gpu.uuid: shown(gpu, clock) for gpu in (steady, jumps)}, clock)
    assert t_s == pytest.approx(0.3, abs=0.001)
    off_j = joules["b"] - jumps.counter_offset_j - jumps.joules(0, t_s)
    assert off_j == pytest.approx(0.2 / 4 * 600.0, abs=0.6)


def shown(gpu: Gpu, clock: VirtualClock) -> Callable[[], float]:
    return lambda: gpu.counter_j(clock.now())
