"""The NVML meter against the true energy of random worlds, on the stand-in's virtual clock."""

import random
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from typing import Any

import pytest

from sweeper.meters import nvml
from sweeper.meters.counter import POLL_S, periods_s
from sweeper.trial.validity import energy_j, reading_reasons
from tests.nvml_standin.shapes import random_gpu
from tests.nvml_standin.virtual import VirtualWorld

pytest_plugins = ("tests.nvml_standin.fixtures",)
pytestmark = pytest.mark.nvml

Begin = Callable[..., VirtualWorld]
MACHINES: Mapping[str, Any] = {
    "quick": {"look_s": (2e-5, 3e-4), "late_s": 1e-4},
    "slow looks": {"look_s": (0.004, 0.004), "late_s": 1e-4},
    "busy": {"look_s": (1e-4, 0.002), "late_s": 0.005},
}
"""`slow looks` are those of an H200 with driver 580: 32 ms a round at 8 GPUs."""
WORLDS, WINDOWS_EACH = 12, 20
MOST_S = WINDOWS_EACH * 22.0


@pytest.mark.parametrize("several", [False, True], ids=["one GPU", "several GPUs"])
@pytest.mark.parametrize("period_s", [0.02, 0.1, 0.2])
def test_windows_cost_what_the_world_spends(
    virtual_world: Begin, period_s: float, several: bool
) -> None:
    """240 windows of 10 to 15 s, at random phases, in worlds of their own shapes and machines.

    What the same edges enclose in less than 5 s has no energy.
    """
    rng = random.Random(f"{period_s} {several}")
    errors = []
    for place in range(WORLDS):
        count = rng.randint(2, 8) if several else 1
        gpus = [random_gpu(number, period_s, rng, MOST_S) for number in range(count)]
        machine = list(MACHINES.values())[place % len(MACHINES)]
        world = virtual_world(*gpus, **machine, seed=place)
        with closing(world.meter()) as meter:
            meter.open()
            for _ in range(WINDOWS_EACH):
                world.clock.sleep(rng.uniform(0, 1))
                opening = meter.read()
                world.clock.sleep(rng.uniform(0, 2))
                soon = meter.read()
                world.clock.sleep(rng.uniform(10, 15) - (soon.t_s - opening.t_s))
                ending = meter.read()
                names = {gpu.uuid for gpu in gpus}
                spent_j = energy_j(opening, ending)
                assert [*reading_reasons(opening, ending, meter.min_window_s, names)] == []
                truth_j = sum(world.joules(gpu.uuid, opening.t_s, ending.t_s) for gpu in gpus)
                errors.append(abs(spent_j / truth_j - 1))
                (why,) = reading_reasons(opening, soon, meter.min_window_s, names)
                assert why.startswith("window_too_short")
    print(f"worst of {len(errors)}: {max(errors):.4%}")
    assert len(errors) >= 200
    assert max(errors) <= 0.01


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("count", [1, 4, 8])
@pytest.mark.parametrize("period_s", [0.02, 0.1, 0.2])
def test_the_period_is_the_worlds(
    virtual_world: Begin, period_s: float, count: int, machine: str
) -> None:
    """Within 5 %, and no longer than a round of looks where that takes longer.

    Where a round is longer than half a period, busy machines miss some ticks: within 10 %.
    """
    rng = random.Random(f"{period_s} {count} {machine}")
    gpus = [random_gpu(number, period_s, rng, 20.0) for number in range(count)]
    clock = MACHINES[machine]
    world = virtual_world(*gpus, **clock)
    with nvml.session():
        handles = {gpu.uuid: nvml.handle_of(gpu.uuid) for gpu in gpus}
        counters = {uuid: partial(nvml.energy_j, uuid, handle) for uuid, handle in handles.items()}
        found = periods_s(counters, world.clock)
    round_s = count * sum(clock["look_s"]) / 2 + POLL_S + clock["late_s"]
    off = 0.05 if round_s < period_s / 2 else 0.1
    for device in counters:
        assert period_s * (1 - off) <= found[device] <= max(period_s, round_s) * (1 + off)
