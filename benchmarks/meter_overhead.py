"""What does the NVML meter cost the engine that it measures?

vLLM on processors serves a small model of random weights in a closed loop. In every round, in
random order, its throughput is taken with the meter on 8 GPUs of the NVML stand-in (both readings,
and the sampler at 10 Hz beside them), without it, and without it once more as a control. The
readings of a window's edges weigh as much here as in a window of a few seconds, which is several
times more than in one of 30 s. How long NVML itself takes on real boards is not in it.

The bars: the lower end of the 95 % interval of the ratio with to without (paired by rounds, on
logarithms, Student's t) is at least 0.95; by its own accounting the sampler takes at most 2 % of a
core, at no less than 9 samples a second.

    python benchmarks/meter_overhead.py [--quick] [--seed N] [--json]
"""

import argparse
import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from sweeper.answers.interval import mean_interval
from sweeper.clocks import RealClock
from sweeper.engines import Event, Request, engine_class
from sweeper.meters import meter_class
from sweeper.meters.trace import Cost, PowerTrace
from sweeper.spec import EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec

ROOT = Path(__file__).resolve().parent.parent
GPUS = tuple(f"GPU-{number}" for number in range(8))
ARMS = ("metered", "bare", "control")
INPUT, OUTPUT, IN_FLIGHT = 32, 32, 8
SETTLE_S = 0.5
CLOCK = RealClock()


@dataclass(frozen=True)
class Bars:
    """How many rounds of how many seconds an arm, and where a figure holds."""

    rounds: int
    seconds: float
    ratio_low: float
    share: float
    samples_hz: float


FULL = Bars(rounds=20, seconds=4.0, ratio_low=0.95, share=0.02, samples_hz=9.0)
QUICK = Bars(rounds=3, seconds=1.0, ratio_low=0.5, share=0.1, samples_hz=3.0)


@dataclass(frozen=True)
class Ratio:
    """Of two arms' throughputs: the geometric mean over rounds and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Sampling:
    """The sampler over all of its sittings: shares of a core, samples a second and GPU."""

    share: float
    share_most: float
    samples_hz: float


class Loop:
    """The engine under its load: events that go on as long as somebody asks for the next."""

    def __init__(self, engine: Any, settings: Settings) -> None:
        requests = (
            Request(place, [(31 * place + 7 * at) % 4096 for at in range(INPUT)], length)
            for place, length in zip(count(), _lengths(), strict=False)
        )
        self._events: Generator[Event, None, None] = engine.serve(requests, IN_FLIGHT, settings)

    def until(self, done: Callable[[], bool]) -> int:
        """The tokens generated until the first event after `done()`."""
        tokens = 0
        for event in self._events:
            tokens += event.tokens + (event.kind == "first_token")
            if event.kind == "tokens" and done():
                return tokens
        raise AssertionError("a closed loop has no end")

    def close(self) -> None:
        """Take back what runs."""
        self._events.close()


def _lengths() -> Iterator[int]:
    """The first ones end at evenly spread moments, so that prefills come one by one."""
    yield from (OUTPUT * (slot + 1) // IN_FLIGHT for slot in range(IN_FLIGHT))
    while True:
        yield OUTPUT


def throughput(loop: Loop, seconds: float, read: Callable[[], object] | None) -> float:
    """Tokens a second over a window, with a reading at each of its edges if there is a meter."""
    settled_s = time.monotonic() + SETTLE_S
    loop.until(lambda: time.monotonic() >= settled_s)
    with ThreadPoolExecutor(max_workers=1) as reader:
        began_s = time.monotonic()
        reading = _edge(reader, read)
        tokens = loop.until(lambda: time.monotonic() - began_s >= seconds and reading.done())
        reading.result()
        reading = _edge(reader, read)
        tokens += loop.until(reading.done)
        reading.result()
        return tokens / (time.monotonic() - began_s)


def _edge(reader: ThreadPoolExecutor, read: Callable[[], object] | None) -> Future[object]:
    """A reading beside the engine, as in a steady window."""
    return reader.submit(read or (lambda: None))


def metered(loop: Loop, seconds: float) -> tuple[float, Cost, int]:
    """The throughput with a meter open, what its sampler took, and how often it sampled."""
    trace = PowerTrace(GPUS)
    make: Any = meter_class("nvml")
    with closing(make(GPUS, CLOCK, None, trace=trace)) as meter:
        meter.open()
        while not trace.samples():
            time.sleep(0.01)
        rate = throughput(loop, seconds, meter.read)
    cost = trace.cost()
    if cost is None:
        raise AssertionError("the sampler did not tell what it took")
    return rate, cost, len(trace.samples())


def rounds(
    loop: Loop, bars: Bars, rng: random.Random
) -> tuple[dict[str, list[float]], list[tuple[Cost, int]]]:
    """Tokens a second of every arm by round, and the sampler's costs and samples."""
    rates: dict[str, list[float]] = {arm: [] for arm in ARMS}
    costs = []
    for _ in range(bars.rounds):
        for arm in rng.sample(ARMS, len(ARMS)):
            if arm == "metered":
                rate, cost, samples = metered(loop, bars.seconds)
                costs.append((cost, samples))
            else:
                rate = throughput(loop, bars.seconds, None)
            rates[arm].append(rate)
    return rates, costs


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """Paired, on logarithms."""
    logs = [math.log(a / b) for a, b in zip(above, below, strict=True)]
    low, high = mean_interval(logs)
    return Ratio(math.exp(math.fsum(logs) / len(logs)), math.exp(low), math.exp(high))


def sampling(costs: Sequence[tuple[Cost, int]]) -> Sampling:
    elapsed_s = math.fsum(cost.elapsed_s for cost, _ in costs)
    return Sampling(
        share=math.fsum(cost.cpu_s for cost, _ in costs) / elapsed_s,
        share_most=max(cost.share for cost, _ in costs),
        samples_hz=sum(samples for _, samples in costs) / len(GPUS) / elapsed_s,
    )


def figures(
    rates: Mapping[str, Sequence[float]], costs: Sequence[tuple[Cost, int]], bars: Bars
) -> dict[str, Any]:
    """What was found, and whether it holds."""
    cost, sampled = ratio(rates["metered"], rates["bare"]), sampling(costs)
    return {
        "rounds": bars.rounds,
        "gpus": len(GPUS),
        "tokens_per_s": {arm: math.fsum(each) / len(each) for arm, each in rates.items()},
        "by_round": {arm: [round(rate, 1) for rate in each] for arm, each in rates.items()},
        "metered_to_bare": asdict(cost),
        "control_to_bare": asdict(ratio(rates["control"], rates["bare"])),
        "sampler": asdict(sampled),
        "bars": asdict(bars),
        "ok": cost.low >= bars.ratio_low
        and sampled.share <= bars.share
        and sampled.samples_hz >= bars.samples_hz,
    }


def table(found: Mapping[str, Any]) -> str:
    bars, sampler, rate = found["bars"], found["sampler"], found["tokens_per_s"]["bare"]
    cost, control = found["metered_to_bare"], found["control_to_bare"]
    share, most = f"{sampler['share']:.2%}", f"{sampler['share_most']:.2%} at most"
    lines = [
        f"{found['rounds']} rounds of {bars['seconds']:g} s an arm, {rate:.0f} tokens/s bare",
        _row("", "mean", "95 % interval", "bar"),
        _row("with meter / without", *_interval(cost), f"low >= {bars['ratio_low']:g}"),
        _row("without / without", *_interval(control), ""),
        _row("sampler, of a core", share, most, f"<= {bars['share']:.0%}"),
        _row("samples/s and GPU", f"{sampler['samples_hz']:.2f}", "", f">= {bars['samples_hz']:g}"),
        "holds" if found["ok"] else "DOES NOT HOLD",
    ]
    return "\n".join(lines)


def _interval(one: Mapping[str, float]) -> tuple[str, str]:
    return f"{one['mean']:.4f}", f"{one['low']:.4f} .. {one['high']:.4f}"


def _row(label: str, mean: str, interval: str, bar: str) -> str:
    return f"{label:<22}{mean:>8}   {interval:<18}{bar}".rstrip()


def enter_world(folder: Path) -> None:
    """Put this process, and the samplers it starts, before 8 GPUs of the stand-in."""
    sys.path.append(str(ROOT))
    from tests.nvml_standin import Gpu, Scenario, build, environment, preload

    library = build(folder)
    gpus = tuple(
        Gpu(uuid=uuid, sine=(80.0, 0.7, number), counter_phase_s=0.0125 * number)
        for number, uuid in enumerate(GPUS)
    )
    scenario = Scenario(gpus=gpus).write(folder / "scenario.txt")
    os.environ.update(environment(library, scenario, os.environ))
    preload(library)


def measured(bars: Bars, seed: int) -> dict[str, Any]:
    """Start vLLM, then the world: the engine's own processes know nothing of these GPUs."""
    processor = str(min(os.sched_getaffinity(0)))
    settings = Settings(
        model=ModelSpec(shape="tiny", weights="dummy"),
        engine=EngineSpec(
            kind="vllm",
            dtype="float32",
            compile=False,
            graphs=False,
            env={"VLLM_CPU_OMP_THREADS_BIND": processor},
        ),
        workload=WorkloadSpec(input_tokens=INPUT, output_tokens=OUTPUT, batch_size=IN_FLIGHT),
    )
    sizes = Sizes(max_model_len=INPUT + OUTPUT, max_batch_size=IN_FLIGHT, batch_sizes=(IN_FLIGHT,))
    with (
        tempfile.TemporaryDirectory() as folder,
        closing(engine_class("vllm")(settings, sizes, (), CLOCK)) as engine,
    ):
        engine.load()
        enter_world(Path(folder))
        loop = Loop(engine, settings)
        throughput(loop, 2 * bars.seconds, None)
        return figures(*rounds(loop, bars, random.Random(seed)), bars)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, wider bars")
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
