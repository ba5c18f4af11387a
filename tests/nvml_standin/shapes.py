"""Random courses of power, as engines draw it and worse: steps, bursts, waves and ramps."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.nvml_standin.scenario import Knots

IDLE_W, FULL_W = 70.0, 700.0
"""Of an H200."""


@dataclass(frozen=True)
class Shape:
    """What `Gpu` wants to know of its power."""

    power_w: Knots
    linear: bool = False
    sine: tuple[float, float, float] = (0.0, 1.0, 0.0)


def _moments(rng: random.Random, until_s: float, mean_s: float) -> list[float]:
    moments, at_s = [], 0.0
    while at_s < until_s:
        moments.append(at_s)
        at_s += rng.expovariate(1 / mean_s)
    return moments


def steps(rng: random.Random, until_s: float) -> Shape:
    """Another level every two seconds or so, as batches come and go."""
    return Shape([(at_s, rng.uniform(IDLE_W, FULL_W)) for at_s in _moments(rng, until_s, 2.0)])


def bursts(rng: random.Random, until_s: float) -> Shape:
    """Prefills on top of decoding: full power for 20 to 500 ms, twice a second or less often."""
    low_w, mean_s = rng.uniform(100.0, 400.0), rng.uniform(0.5, 3.0)
    knots: list[tuple[float, float]] = []
    for at_s in _moments(rng, until_s, mean_s):
        start_s = max(at_s, knots[-1][0] + 1e-3 if knots else 0.0)
        knots += [(start_s, FULL_W), (start_s + rng.uniform(0.02, 0.5), low_w)]
    return Shape(knots)


def wave(rng: random.Random, until_s: float) -> Shape:
    """A sine of 0.1 to 20 Hz."""
    mean_w = rng.uniform(200.0, 500.0)
    amplitude_w = rng.uniform(0.1, 0.6) * mean_w
    return Shape([(0.0, mean_w)], sine=(amplitude_w, rng.uniform(0.1, 20.0), rng.uniform(0, 6.3)))


def ramps(rng: random.Random, until_s: float) -> Shape:
    """Straight lines from level to level, every second or so."""
    knots = [(at_s, rng.uniform(IDLE_W, FULL_W)) for at_s in _moments(rng, until_s, 1.0)]
    return Shape(knots, linear=True)


SHAPES: Mapping[str, Callable[[random.Random, float], Shape]] = {
    "steps": steps,
    "bursts": bursts,
    "wave": wave,
    "ramps": ramps,
}
