"""What does it cost to run an engine through sweeper, rather than as its own benchmark does?

Three comparisons, on processors with a tiny model of random weights (`engine_overhead_arms.py`):

    vllm          static batches, over what `vllm bench throughput` times
    endpoint      a closed loop, over `vllm bench serve --max-concurrency` on the same server
    transformers  static batches, over a bare loop

A fixed rate of arrivals is no part of it: sweeper has no open loop yet, so both clients keep the
same number of requests in flight. In every round, in random order, the work is done through
sweeper, without it, and without it once more as a control.

The bars: the lower end of the 95 % interval of the ratio of output tokens a second (paired by
rounds, on logarithms, Student's t) is at least 0.95 in each comparison; the medians of TTFT and
TPOT that `endpoint` sees are those that `vllm bench serve` sees, within 10 % (geometric mean over
rounds). A tiny model's steps take milliseconds: on a large one the same cost is a smaller share.

    python benchmarks/engine_overhead.py [--quick] [--only NAME] [--seed N] [--json]
"""

import argparse
import json
import math
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks import engine_overhead_arms as arms
from benchmarks.engine_overhead_arms import Load, Pair, Taken
from sweeper.answers.interval import mean_interval

SIDES = ("ours", "theirs", "control")
TIMES = ("ttft_s", "tpot_s")
MAKERS: Mapping[str, Callable[[Load, Path], AbstractContextManager[Pair]]] = {
    "transformers": arms.static,
    "vllm": arms.offline,
    "endpoint": arms.served,
}


@dataclass(frozen=True)
class Bars:
    """How many rounds of how much work, and where a figure holds."""

    rounds: int
    load: Load
    ratio_low: float
    apart: float


FULL = Bars(
    rounds=20,
    load=Load(batch=16, batches=2, in_flight=8, requests=48),
    ratio_low=0.95,
    apart=0.10,
)
QUICK = Bars(
    rounds=3,
    load=Load(batch=4, batches=1, in_flight=4, requests=12),
    ratio_low=0.4,
    apart=1.0,
)


@dataclass(frozen=True)
class Ratio:
    """Of two sides' figures: the geometric mean over rounds and its 95 % interval."""

    mean: float
    low: float
    high: float


Rounds = Sequence[Mapping[str, Taken]]


def rounds(pair: Pair, number: int, rng: random.Random) -> Rounds:
    """What each side gave, by round; before the first, each works once for nothing."""
    work = {"ours": pair.ours, "theirs": pair.theirs, "control": pair.theirs}
    pair.theirs()
    pair.ours()
    return [{side: work[side]() for side in rng.sample(SIDES, len(SIDES))} for _ in range(number)]


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Paired, on logarithms."""
    logs = [math.log(a / b) for a, b in zip(above, below, strict=True)]
    low, high = mean_interval(logs)
    return Ratio(math.exp(math.fsum(logs) / len(logs)), math.exp(low), math.exp(high))


def compared(taken: Rounds, bars: Bars) -> dict[str, Any]:
    """One comparison: rates, ratios, and whether they hold."""
    rates = {side: [each[side].tokens_per_s for each in taken] for side in SIDES}
    found: dict[str, Any] = {
        "tokens_per_s": {side: math.fsum(each) / len(each) for side, each in rates.items()},
        "ours_to_theirs": asdict(ratio(rates["ours"], rates["theirs"])),
        "control_to_theirs": asdict(ratio(rates["control"], rates["theirs"])),
        "medians": {},
    }
    holds = found["ours_to_theirs"]["low"] >= bars.ratio_low
    for name in TIMES:
        medians = {
            side: [statistics.median(getattr(each[side], name)) for each in taken]
            for side in SIDES
            if all(getattr(each[side], name) for each in taken)
        }
        if len(medians) < len(SIDES):
            continue
        between = ratio(medians["ours"], medians["theirs"])
        found["medians"][name] = {
            **{side: statistics.median(each) for side, each in medians.items()},
            "ours_to_theirs": asdict(between),
            "control_to_theirs": asdict(ratio(medians["control"], medians["theirs"])),
        }
        holds &= abs(math.log(between.mean)) <= math.log(1 + bars.apart)
    return {**found, "ok": holds}


def figures(taken: Mapping[str, Rounds], bars: Bars) -> dict[str, Any]:
    """All that was found, and whether it holds."""
    each = {name: compared(one, bars) for name, one in taken.items()}
    return {
        "rounds": bars.rounds,
        "bars": asdict(bars),
        "comparisons": each,
        "ok": bool(each) and all(one["ok"] for one in each.values()),
    }


def table(found: Mapping[str, Any]) -> str:
    bars = found["bars"]
    lines = [
        f"{found['rounds']} rounds; ratios are geometric means with their 95 % interval",
        _row("", "tokens/s", "ratio", "95 % interval", "bar"),
    ]
    for name, one in found["comparisons"].items():
        rates = one["tokens_per_s"]
        bar = f"low >= {bars['ratio_low']:g}"
        lines += [
            _row(f"{name} through sweeper", f"{rates['ours']:.0f}", *_of(one), bar),
            _row("  without, again", f"{rates['control']:.0f}", *_of(one, "control"), ""),
        ]
        for time_name, medians in one["medians"].items():
            label = f"  median {time_name.removesuffix('_s').upper()}"
            bar = f"within {bars['apart']:.0%}"
            told = f"{1e3 * medians['ours']:.2f} ms"
            lines += [
                _row(label, told, *_of(medians), bar),
                _row(
                    "  without, again",
                    f"{1e3 * medians['control']:.2f} ms",
                    *_of(medians, "control"),
                    "",
                ),
            ]
    lines.append("holds" if found["ok"] else "DOES NOT HOLD")
    return "\n".join(lines)


def _of(one: Mapping[str, Any], side: str = "ours") -> tuple[str, str]:
    found = one[f"{side}_to_theirs"]
    return f"{found['mean']:.4f}", f"{found['low']:.4f} .. {found['high']:.4f}"


def _row(label: str, value: str, mean: str, interval: str, bar: str) -> str:
    return f"{label:<30}{value:>10}  {mean:>7}   {interval:<18}{bar}".rstrip()


def measured(bars: Bars, seed: int, names: Sequence[str]) -> dict[str, Any]:
    """One comparison after the other; whatever one has started is gone before the next."""
    # Threads of an engine that rests would spin on the processors of the one that works.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    rng, taken = random.Random(seed), {}
    for name in names:
        began_s = time.monotonic()
        with (
            _kept_aside(),
            tempfile.TemporaryDirectory() as folder,
            MAKERS[name](bars.load, Path(folder)) as pair,
        ):
            taken[name] = rounds(pair, bars.rounds, rng)
        print(f"{name}: {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    return figures(taken, bars)


@contextmanager
def _kept_aside() -> Iterator[None]:
    """Standard output is for the table alone: what engines print goes to standard error."""
    sys.stdout.flush()
    aside = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(aside, 1)
        os.close(aside)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, wider bars")
    parser.add_argument("--only", choices=list(MAKERS), help="one of the comparisons")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    asked = parser.parse_args()
    names = [asked.only] if asked.only else list(MAKERS)
    found = measured(QUICK if asked.quick else FULL, asked.seed, names)
    print(table(found))
    if asked.json:
        print(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
