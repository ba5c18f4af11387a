"""Energy counters and a power trace of simulated GPUs."""

import math
import random
from collections import deque
from collections.abc import Sequence

from sweeper.engines import Clock

GAIN_SD = 0.02
BOARD_SD = 0.008
"""Of time between boards."""
GAIN_BOUND = 0.05
"""Board to board: NVML's stated error."""
WARM_S = 240.0
"""Time constant of what power and speed follow: the whole machine's temperature."""
WARM_POWER = 0.02
WARM_TIME = 0.004
"""Relative rise of power and of step time from cold to warm at full load."""
CPU_IDLE_W = 130.0
CPU_LOAD_W = 35.0
DRAM_W = 20.0
"""Of a node: its processors when idle, what each GPU at full load has them do, its memory.

Near the 179 W and 19.8 W beside two H100 NVL at 284 W each of TokenPowerBench (arXiv 2512.03024).
"""
COLD_C = 34.0
FULL_LOAD_C = 59.0
"""What an H200 told at 78 W, and at 691 W of its 700 W."""
DIE_SHARE = 0.8
DIE_S = 0.4
"""The part of that difference that follows the load at once, and its time constant: when the H200
went from 691 to 125 W its temperature fell from 59 to 40 degrees in 1.1 s, then to 37 in 5 s."""
SINK_S = 20.0
"""Time constant of the rest, its heat sink's: at a steady 420 W it went from 46 to 50 in 44 s."""
TRACE_PERIOD_S = 0.1
TRACE_SAMPLES = 18_000
"""Half an hour; older samples go."""


class Boards:
    """The GPUs of one launch, all under the same load, each with a gain of its own.

    `warmth` is 0 when idle for long and nears 1 at full load. Beside them there are processors and
    memory of a node that nobody else works on, and GPUs that stand idle.
    """

    def __init__(
        self,
        devices: Sequence[str],
        clock: Clock,
        idle_w: float,
        tdp_w: float,
        cap_w: float | None = None,
    ) -> None:
        """`cap_w` is what they are limited to, where that is less than what they are built for."""
        self._gains = {device: _gain(device) for device in devices}
        self._clock = clock
        self._idle_w = idle_w
        self._tdp_w = tdp_w
        self._cap_w = tdp_w if cap_w is None else cap_w
        self._watts = idle_w
        self._joules = 0.0
        self._cpu_j = 0.0
        self._made_s = clock.now()
        self._until_s = clock.now()
        self._sample_s = self._until_s
        self._trace: deque[tuple[float, float]] = deque(maxlen=TRACE_SAMPLES)
        self._die = self._sink = 0.0
        self.warmth = 0.0

    def draw(self, watts: float) -> None:
        """From now on, so much on each GPU, within what it is limited to."""
        self._pass()
        self._watts = min(watts * (1.0 + WARM_POWER * self.warmth), self._cap_w)

    def slowdown(self) -> float:
        """Factor on a step's time by how warm the GPUs are."""
        return 1.0 + WARM_TIME * self.warmth

    def energy_j(self) -> dict[str, float]:
        """Joules of each device since it was made, now."""
        self._pass()
        return {device: self._joules * gain for device, gain in self._gains.items()}

    def host_j(self) -> dict[str, float]:
        """Joules of the node's processors (`cpu`) and memory (`dram`), as `energy_j`."""
        self._pass()
        return {"cpu": self._cpu_j, "dram": DRAM_W * (self._until_s - self._made_s)}

    def idle_j(self, device: str) -> float:
        """Joules of a GPU beside them that stands idle."""
        self._pass()
        return self._idle_w * _gain(device) * (self._until_s - self._made_s)

    def temperature_c(self) -> dict[str, float]:
        """Of each device, now."""
        self._pass()
        heat = DIE_SHARE * self._die + (1.0 - DIE_SHARE) * self._sink
        celsius = COLD_C + (FULL_LOAD_C - COLD_C) * heat
        return dict.fromkeys(self._gains, celsius)

    def trace(self) -> list[tuple[float, str, float]]:
        """Samples (t_s, device, watts), the devices of one moment together."""
        self._pass()
        return [
            (t_s, device, watts * gain)
            for t_s, watts in self._trace
            for device, gain in self._gains.items()
        ]

    def _pass(self) -> None:
        now_s = self._clock.now()
        passed_s = now_s - self._until_s
        if passed_s <= 0:
            return
        self._until_s = now_s
        self._joules += self._watts * passed_s
        load = self._load()
        self._die = load + (self._die - load) * math.exp(-passed_s / DIE_S)
        self._sink = load + (self._sink - load) * math.exp(-passed_s / SINK_S)
        self._cpu_j += (CPU_IDLE_W + CPU_LOAD_W * len(self._gains) * load) * passed_s
        self.warmth = load + (self.warmth - load) * math.exp(-passed_s / WARM_S)
        while self._sample_s <= now_s:
            self._trace.append((self._sample_s, self._watts))
            self._sample_s += TRACE_PERIOD_S

    def _load(self) -> float:
        return (self._watts - self._idle_w) / (self._tdp_w - self._idle_w)


def _gain(device: str) -> float:
    gain = random.Random(f"gain of {device}").gauss(0.0, GAIN_SD)
    return 1.0 + max(-GAIN_BOUND, min(gain, GAIN_BOUND))


def slowness(device: str) -> float:
    """A board's own factor on time, the same in every launch; one is as slow as its slowest."""
    return math.exp(random.Random(f"speed of {device}").gauss(0.0, BOARD_SD))
