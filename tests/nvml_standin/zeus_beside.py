"""`python -m tests.nvml_standin.zeus_beside FOLDER`: ZeusMonitor and the NVML meter, side by side.

Both measure the same windows of one world, GPU by GPU and all GPUs at once; each window is a line
of JSON. In a process of its own, which finds the stand-in, as Zeus holds NVML open for good.
"""

import json
import os
import random
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from zeus.monitor import ZeusMonitor

from tests.nvml_standin import Scenario
from tests.nvml_standin.shapes import random_gpu
from tests.nvml_standin.virtual import VirtualTime, VirtualWorld

PERIODS_S = (0.02, 0.1, 0.2)
COUNT = 9
WINDOWS = 70
"""For each GPU, and for all at once: 210 a period."""


def world_in(folder: Path, rng: random.Random) -> VirtualWorld:
    clock = VirtualTime(folder / "clock", look_s=(2e-5, 3e-4), late_s=1e-4)
    until_s = (COUNT + 1) * WINDOWS * 18.0
    gpus = [
        random_gpu(number, PERIODS_S[number % len(PERIODS_S)], rng, until_s)
        for number in range(COUNT)
    ]
    scenario = Scenario(gpus=tuple(gpus), start_s=clock.now())
    os.environ["SWEEPER_NVML_SCENARIO"] = str(scenario.write(folder / "scenario.txt"))
    os.environ["SWEEPER_NVML_CLOCK"] = str(clock.path)
    return VirtualWorld(scenario, clock)


def windows(world: VirtualWorld, places: Sequence[int], rng: random.Random) -> Iterator[Any]:
    """Zeus's window begins and ends right before our readings."""
    gpus = [world.scenario.gpus[place] for place in places]
    zeus = ZeusMonitor(gpu_indices=list(places), cpu_indices=[])
    with closing(world.meter(*(gpu.uuid for gpu in gpus))) as meter:
        meter.open()
        for _ in range(WINDOWS):
            world.clock.sleep(rng.uniform(0, 1))
            from_s = world.clock.now()
            zeus.begin_window("window", sync_execution=False)
            opening = meter.read()
            world.clock.sleep(rng.uniform(10, 15))
            until_s = world.clock.now()
            theirs = zeus.end_window("window", sync_execution=False)
            ending = meter.read()
            for place, gpu in zip(places, gpus, strict=True):
                yield {
                    "gpus": len(places),
                    "period_s": gpu.counter_period_s,
                    "slowest_s": max(each.counter_period_s for each in gpus),
                    "peak_w": max(watts for _, watts in gpu.power_w) + gpu.sine[0],
                    "zeus_j": theirs.gpu_energy[place],
                    "zeus_true_j": world.joules(gpu.uuid, from_s, until_s),
                    "ours_j": ending.energy_j[gpu.uuid] - opening.energy_j[gpu.uuid],
                    "ours_true_j": world.joules(gpu.uuid, opening.t_s, ending.t_s),
                }


if __name__ == "__main__":
    rng = random.Random(5)
    world = world_in(Path(sys.argv[1]), rng)
    for places in ([number] for number in range(COUNT)):
        for row in windows(world, places, rng):
            print(json.dumps(row))
    for row in windows(world, range(COUNT), rng):
        print(json.dumps(row))
