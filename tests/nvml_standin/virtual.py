"""A world of its own time: the stand-in's virtual clock, and meters that live on it.

Hundreds of windows of 10 s go by in milliseconds. Time passes when somebody sleeps on the clock,
and when somebody looks at a counter or at power, if looks cost something.
"""

import math
import mmap
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from sweeper.engines import Engine
from sweeper.meters.nvml_meter import NvmlMeter
from sweeper.meters.sampler import PERIOD_S
from sweeper.meters.trace import Sample
from tests.nvml_standin.scenario import Gpu, Scenario

DOUBLES = 4
"""In the file, as `VirtualClock` of world.h has them."""
POWER_CALLS = frozenset({"*", "nvmlDeviceGetFieldValues", "field:186"})


class VirtualTime:
    """A `Clock` that the stand-in shares, through the file that SWEEPER_NVML_CLOCK names.

    A look at a counter or at power takes between the two `look_s`, and tells of a random moment
    inside them (on an H200 with driver 580 it takes 4 ms). Every sleep is longer than asked by an
    exponential time of mean `late_s`, as on a busy machine. For one thread at a time.
    """

    def __init__(
        self,
        path: Path,
        look_s: tuple[float, float] = (0.0, 0.0),
        late_s: float = 0.0,
        start_s: float = 1000.0,
        seed: int = 0,
    ) -> None:
        self.path = path
        self._rng = random.Random(seed)
        self._late_s = late_s
        path.write_bytes(bytes(8 * DOUBLES))
        with path.open("r+b") as file:
            self._file = memoryview(mmap.mmap(file.fileno(), 0)).cast("d")
        for place, value in enumerate((start_s, *look_s, self._rng.random())):
            self._file[place] = value

    def now(self) -> float:
        return self._file[0]

    def sleep(self, seconds: float) -> None:
        late_s = self._rng.expovariate(1 / self._late_s) if self._late_s else 0.0
        self._file[0] += max(seconds, 0.0) + late_s


@dataclass(frozen=True)
class VirtualWorld:
    """A scenario on a clock of its own; its time 0 is `scenario.start_s` of that clock."""

    scenario: Scenario
    clock: VirtualTime

    def meter(self, *devices: str) -> NvmlMeter:
        """The NVML meter of these GPUs, or of all: real but for the clock and the sampler."""
        names = devices or tuple(gpu.uuid for gpu in self.scenario.gpus)
        return NvmlMeter(
            names,
            self.clock,
            cast("Engine", None),
            machine=self.clock,
            trace=VirtualTrace(self, names),
        )

    def joules(self, uuid: str, from_s: float, until_s: float) -> float:
        """True energy of one GPU between two moments of the clock."""
        return self.scenario.joules(uuid, from_s, until_s)


class VirtualTrace:
    """What the sampler would have sampled, every 0.1 s; nothing where the power has a fault."""

    def __init__(self, world: VirtualWorld, devices: Sequence[str]) -> None:
        self._world = world
        self._gpus = [world.scenario.gpu(name) for name in devices]
        self._from_s = self._until_s = math.inf

    def start(self) -> None:
        self._from_s, self._until_s = self._world.clock.now(), math.inf

    def samples(self) -> Sequence[Sample]:
        until_s = min(self._until_s, self._world.clock.now())
        count = max(0, math.ceil((until_s - self._from_s) / PERIOD_S))
        start_s = self._world.scenario.start_s
        times = [self._from_s + place * PERIOD_S for place in range(count)]
        return [
            (t_s, gpu.uuid, gpu.watts(t_s - start_s))
            for t_s in times
            for gpu in self._gpus
            if not _silent(gpu, t_s - start_s)
        ]

    def stop(self) -> None:
        self._until_s = min(self._until_s, self._world.clock.now())


def _silent(gpu: Gpu, at_s: float) -> bool:
    return any(
        fault.function in POWER_CALLS and fault.from_s <= at_s < fault.until_s
        for fault in gpu.faults
    )
