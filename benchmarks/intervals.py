"""Do our intervals hold the truth as often as they say, and our claims err as rarely?

Draws launches whose true energy per token is known and sends them through the road that measured
ones take: windows to records (`record_metrics`), to results (`results`), to intervals; and pairs of
sides that do not differ through `change` and `adjusted`. Noise is log-normal, 1 % from window to
window, and 0, 1 and 3 times that variance from launch to launch.

The bars: 93 to 97 % of the 95 % intervals hold the truth, for 3, 5 and 10 launches; of paired
comparisons without any difference 4.5 to 5.5 % are called significant. What else is printed has
none: heavier tails than log-normal, many comparisons at once, and what boards that differ do to
comparisons that are not paired.

    python benchmarks/intervals.py [--quick] [--seed N] [--json]
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sweeper.answers.adjustment import adjusted
from sweeper.answers.change import Change, Launched, Side, change
from sweeper.answers.results import results
from sweeper.results.metrics import record_metrics, window_metrics
from sweeper.results.record import Energy, Record, Window

METRIC = "energy_per_output_token_j"
TRUTH_J, TOKENS, WINDOW_S, WINDOWS = 0.4, 10_000, 30.0, 3
NOISE = 0.01
GAIN = 0.05
"""The gain of boards is drawn evenly from within it; it is also NVML's `systematic`."""
LAUNCHES, RATIOS, BLOCKS = (3, 5, 10), (0, 1, 3), (6, 8, 12)
COMPARISONS = 5
ENERGY = Energy(source="nvml", measured=True, method="counter", scope="gpu", systematic=GAIN)

Factors = NDArray[np.float64]
Noise = Callable[[np.random.Generator, float, tuple[int, ...]], Factors]
"""Factors of mean 1 and of a standard deviation, in a shape."""


@dataclass(frozen=True)
class Bars:
    """How many draws, and between which shares in percent a figure holds."""

    coverage_draws: int
    rate_draws: int
    coverage: tuple[float, float]
    rate: tuple[float, float]


FULL = Bars(4000, 40_000, (93.0, 97.0), (4.5, 5.5))
QUICK = Bars(300, 2000, (91.0, 99.0), (3.5, 6.5))


def log_normal(rng: np.random.Generator, deviation: float, shape: tuple[int, ...]) -> Factors:
    sigma = np.sqrt(np.log1p(deviation**2))
    drawn: Factors = np.exp(rng.normal(-(sigma**2) / 2, sigma, shape))
    return drawn


def student_3(rng: np.random.Generator, deviation: float, shape: tuple[int, ...]) -> Factors:
    """Symmetric, with tails so heavy that it has no fourth moment."""
    drawn: Factors = np.maximum(1 + deviation * rng.standard_t(3, shape) / np.sqrt(3), 0.01)
    return drawn


def outliers(rng: np.random.Generator, deviation: float, shape: tuple[int, ...]) -> Factors:
    """One in twenty too high by five deviations, as after a disturbance that nothing caught."""
    hit = rng.random(shape) < 0.05
    return log_normal(rng, deviation, shape) * (1 + 5 * deviation * hit) / (1 + 0.25 * deviation)


TAILS: Mapping[str, Noise] = {
    "log-normal": log_normal,
    "Student's t, 3 degrees": student_3,
    "5 % of outliers, one-sided": outliers,
}


def coverage(
    rng: np.random.Generator, noise: Noise, launches: int, ratio: float, draws: int
) -> float:
    """Percent of the intervals of a result's energy per token that hold the truth."""
    by_launch = noise(rng, NOISE * np.sqrt(ratio), (draws, launches, 1))
    joules = TRUTH_J * TOKENS * by_launch * noise(rng, NOISE, (draws, launches, WINDOWS))
    held = 0
    for study in joules:
        [result] = results(record(number, windows) for number, windows in enumerate(study))
        interval = result.interval(METRIC)
        assert interval is not None
        held += interval[0] <= TRUTH_J <= interval[1]
    return 100 * held / draws


def record(launch: int, joules: Sequence[float] | Factors) -> Record:
    """A launch with a window for each of some joules."""
    windows = [window(index, float(each)) for index, each in enumerate(joules)]
    metrics, tails = record_metrics(windows, 1)
    moment = "2026-01-02T03:04:05+00:00"
    return Record(
        id="point",
        configuration="configuration",
        launch=launch,
        stage="full",
        study="intervals",
        trial_id=f"trial-{launch}",
        attempt=0,
        status="ok",
        reason=None,
        config={},
        chosen={},
        condition={},
        convention="steady",
        gpus=1,
        environment={},
        started_at=moment,
        ended_at=moment,
        windows=windows,
        metrics=metrics,
        undersampled=tails,
        energy=ENERGY,
    )


def window(index: int, joules: float) -> Window:
    started_s = index * WINDOW_S
    reading = {"t_s": started_s, "energy_j": {"GPU-0": 0.0}}
    after = {"t_s": started_s + WINDOW_S, "energy_j": {"GPU-0": joules}}
    return Window(
        index=index,
        convention="steady",
        started_s=started_s,
        ended_s=started_s + WINDOW_S,
        requests=100,
        requests_failed=0,
        input_tokens=TOKENS,
        output_tokens=TOKENS,
        energy_j=joules,
        reasons=(),
        readings=(reading, after),
        samples={},
        metrics=window_metrics(
            duration_s=WINDOW_S,
            energy_j=joules,
            requests=100,
            input_tokens=TOKENS,
            output_tokens=TOKENS,
            samples={},
            gpus=1,
        ),
    )


def side(values: Sequence[float] | Factors, boards: Sequence[str], trial: str = "block") -> Side:
    """One launch in each lease."""
    told = zip(values, boards, strict=True)
    return {
        (f"{trial}{place}", 0): [Launched(float(value), frozenset([board]))]
        for place, (value, board) in enumerate(told)
    }


def family(
    rng: np.random.Generator, noise: Noise, blocks: int, members: int, saving: float = 0.0
) -> list[Change]:
    """Sides in the same blocks against one baseline, which they save so much against.

    What a block shares, its board and its day, is many times what tells its launches apart.
    """
    shared = log_normal(rng, 5 * NOISE, (blocks,))
    deviation = NOISE * np.sqrt(1 + 1 / WINDOWS)
    values = shared * noise(rng, deviation, (1 + members, blocks))
    boards = [f"GPU-{place % 2}" for place in range(blocks)]
    baseline = side(values[0], boards)
    found = [change(side((1 - saving) * each, boards), baseline, GAIN) for each in values[1:]]
    return adjusted([each for each in found if each is not None])


def claimed(
    rng: np.random.Generator,
    noise: Noise,
    blocks: int,
    draws: int,
    members: int = 1,
    saving: float = 0.0,
) -> float:
    """Percent of the families in which anything is called significant."""
    called = sum(
        any(each.significant for each in family(rng, noise, blocks, members, saving))
        for _ in range(draws)
    )
    return 100 * called / draws


def unpaired(rng: np.random.Generator, launches: int, draws: int, *, moving: bool) -> float:
    """Percent of the intervals of unpaired ratios that hold 1, where nothing differs but boards.

    `moving`: every launch is on a board of its own; else each side stays on one.
    """
    held = 0
    for _ in range(draws):
        count = launches if moving else 1
        sides = []
        for name in ("a", "b"):
            gains = np.repeat(rng.uniform(1 - GAIN, 1 + GAIN, count), launches // count)
            boards = [f"{name}{place % count}" for place in range(launches)]
            values = gains * log_normal(rng, NOISE, (launches,))
            sides.append(side(values, boards, name))
        made = change(sides[0], sides[1], GAIN)
        assert made is not None
        assert made.low is not None
        assert made.high is not None
        assert (made.systematic is None) is moving
        held += made.low <= 1 <= made.high
    return 100 * held / draws


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="coverage of intervals, rate of false claims")
    parser.add_argument("--quick", action="store_true", help="fewer draws, wider bars")
    parser.add_argument("--seed", type=int, default=0, help="other draws")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    asked = parser.parse_args(arguments)
    bars = QUICK if asked.quick else FULL
    figures = measure(bars, asked.seed)
    print(tables(figures, bars))
    ok = holds(figures, bars)
    print(f"\nthe bars {'hold' if ok else 'DO NOT HOLD'}")
    if asked.json:
        print(json.dumps({**figures, "ok": ok}))
    return 0 if ok else 1


def measure(bars: Bars, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """Every figure, in percent, by table, row and column; the same for the same seed."""
    rng = np.random.default_rng(seed)
    draws, many = bars.coverage_draws, bars.rate_draws
    few = max(200, many // 10)
    return {
        "coverage": {
            f"{ratio} x": {
                f"{count} launches": coverage(rng, log_normal, count, ratio, draws)
                for count in LAUNCHES
            }
            for ratio in RATIOS
        },
        "false claims": {
            f"{count} blocks": {"log-normal": claimed(rng, log_normal, count, many)}
            for count in BLOCKS
        },
        "coverage, tails": {
            name: {
                f"{count} launches": coverage(rng, noise, count, 1, draws // 2)
                for count in LAUNCHES
            }
            for name, noise in TAILS.items()
        },
        "false claims, tails": {
            name: {f"{count} blocks": claimed(rng, noise, count, few * 2) for count in BLOCKS}
            for name, noise in TAILS.items()
        },
        f"any false claim among {COMPARISONS}": {
            "Holm": {
                f"{count} blocks": claimed(rng, log_normal, count, few, COMPARISONS)
                for count in BLOCKS
            }
        },
        "savings found": {
            f"{saving:.0%} saved": {
                f"{count} blocks": claimed(rng, log_normal, count, few, saving=saving)
                for count in BLOCKS
            }
            for saving in (0.01, 0.02, 0.03)
        },
        "coverage, unpaired": {
            name: {
                f"{count} launches": unpaired(rng, count, few, moving=moving) for count in LAUNCHES
            }
            for name, moving in (("a board for each launch", True), ("one board a side", False))
        },
    }


TITLES: Mapping[str, str] = {
    "coverage": "95 % intervals that hold the truth, by variance from launch to launch over the "
    "window's [%]",
    "false claims": "paired savings called significant where nothing differs [%]",
    "coverage, tails": "95 % intervals that hold the truth, launch variance 1 x, other noise [%]",
    "false claims, tails": "paired savings called significant, nothing differs, other noise [%]",
    "savings found": "true savings called significant, paired, by size [%]",
    "coverage, unpaired": "95 % intervals of unpaired ratios that hold 1, boards' gains within 5 % "
    "[%]; with one board a side the gain error stands beside them for that reason",
}


def tables(figures: Mapping[str, Mapping[str, Mapping[str, float]]], bars: Bars) -> str:
    limits = {"coverage": bars.coverage, "false claims": bars.rate}
    lines = [
        f"{bars.coverage_draws} draws for each coverage, {bars.rate_draws} for each false claim"
    ]
    for name, rows in figures.items():
        low_high = limits.get(name)
        bar = f"; the bar: {low_high[0]:g} to {low_high[1]:g}" if low_high else ""
        lines += ["", TITLES.get(name, f"{name}, nothing differs [%]") + bar]
        columns = [*next(iter(rows.values()))]
        width = max(len(row) for row in rows)
        lines.append(f"  {'':{width}}  " + "  ".join(f"{each:>11}" for each in columns))
        for row, cells in rows.items():
            shown = "  ".join(f"{cell:>11.2f}" for cell in cells.values())
            lines.append(f"  {row:{width}}  {shown}")
    return "\n".join(lines)


def holds(figures: Mapping[str, Mapping[str, Mapping[str, float]]], bars: Bars) -> bool:
    return all(
        low <= figure <= high
        for name, (low, high) in (("coverage", bars.coverage), ("false claims", bars.rate))
        for row in figures[name].values()
        for figure in row.values()
    )


if __name__ == "__main__":
    sys.exit(main())
