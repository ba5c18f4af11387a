"""On how many processors should vLLM's arithmetic be, where it runs without a GPU?

Two engines serve the same small model of random weights on all processors that this process may
use: one with its arithmetic on all of them, one as sweeper binds it, with one left to the processes
that schedule and listen. In every round, in random order, each serves a closed loop for some
seconds, and the first does so once more as a control; the other one waits meanwhile.

The bar: the lower end of the 95 % interval of the ratio of throughputs, as bound over all (paired
by rounds, on logarithms, Student's t), is at least 1.

    python -m benchmarks.vllm_binding [--quick] [--seed N] [--json]
"""

import argparse
import json
import math
import os
import random
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.meter_overhead import CLOCK, IN_FLIGHT, INPUT, OUTPUT, Loop, ratio, throughput
from sweeper.engines import engine_class
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec

BIND = "VLLM_CPU_OMP_THREADS_BIND"
ARMS = ("all", "bound", "control")


@dataclass(frozen=True)
class Bars:
    """How many rounds of how many seconds an arm, and where the ratio holds."""

    rounds: int
    seconds: float
    ratio_low: float


FULL = Bars(rounds=20, seconds=3.0, ratio_low=1.0)
QUICK = Bars(rounds=3, seconds=1.0, ratio_low=0.5)


def settings(env: Mapping[str, str]) -> Settings:
    return Settings(
        model=ModelSpec(shape="tiny", weights="dummy"),
        engine=EngineSpec(kind="vllm", dtype="float32", compile=False, graphs=False, env=env),
        workload=WorkloadSpec(input_tokens=INPUT, output_tokens=OUTPUT, batch_size=IN_FLIGHT),
    )


def engine(of: Settings) -> Any:
    sizes = Sizes(max_model_len=INPUT + OUTPUT, max_batch_size=IN_FLIGHT, batch_sizes=(IN_FLIGHT,))
    return engine_class("vllm")(of, sizes, (), CLOCK)


def rate(served: Any, of: Settings, seconds: float) -> float:
    """Tokens a second of a loop of its own, so that nothing runs on the engine afterwards."""
    loop = Loop(served, of)
    found = throughput(loop, seconds, None)
    loop.close()
    return found


def figures(
    rates: Mapping[str, Sequence[float]], processors: Mapping[str, int], bars: Bars
) -> dict[str, Any]:
    """What was found, and whether it holds."""
    gain = ratio(rates["bound"], rates["all"])
    return {
        "rounds": bars.rounds,
        "processors": dict(processors),
        "tokens_per_s": {arm: math.fsum(each) / len(each) for arm, each in rates.items()},
        "by_round": {arm: [round(each, 1) for each in rates[arm]] for arm in ARMS},
        "bound_to_all": asdict(gain),
        "control_to_all": asdict(ratio(rates["control"], rates["all"])),
        "bars": asdict(bars),
        "ok": gain.low >= bars.ratio_low,
    }


def table(found: Mapping[str, Any]) -> str:
    bars, of, rates = found["bars"], found["processors"], found["tokens_per_s"]
    lines = [
        f"{found['rounds']} rounds of {bars['seconds']:g} s an arm",
        (
            f"arithmetic on {of['all']} processors: {rates['all']:.0f} tokens/s, "
            f"on {of['bound']}: {rates['bound']:.0f}"
        ),
        _row("bound / all", found["bound_to_all"], f"low >= {bars['ratio_low']:g}"),
        _row("all / all", found["control_to_all"], ""),
        "holds" if found["ok"] else "DOES NOT HOLD",
    ]
    return "\n".join(lines)


def _row(label: str, one: Mapping[str, float], bar: str) -> str:
    interval = f"{one['low']:.3f} .. {one['high']:.3f}"
    return f"{label:<14}{one['mean']:>7.3f}   {interval:<18}{bar}".rstrip()


def measured(bars: Bars, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    cpus = sorted(os.sched_getaffinity(0))
    of = {"all": settings({BIND: ",".join(map(str, cpus))}), "bound": settings({})}
    of["control"] = of["all"]
    with closing(engine(of["all"])) as everywhere, closing(engine(of["bound"])) as bound:
        engines = {"all": everywhere, "control": everywhere, "bound": bound}
        processors = {arm: engines[arm].load()["threads"] for arm in ("all", "bound")}
        for arm in ("all", "bound"):
            rate(engines[arm], of[arm], 2 * bars.seconds)
        rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for _ in range(bars.rounds):
            for arm in rng.sample(ARMS, len(ARMS)):
                rates[arm].append(rate(engines[arm], of[arm], bars.seconds))
    return figures(rates, processors, bars)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, a wider bar")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    asked = parser.parse_args()
    found = measured(QUICK if asked.quick else FULL, asked.seed)
    print(table(found))
    if asked.json:
        print(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
