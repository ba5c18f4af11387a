"""Is the memory that the roofline expects what an engine really takes?

transformers and vLLM load each shape with random weights on processors and run one batch, in a
process of their own; the most memory that its processes ever held is read from the kernel
(`VmHWM`, summed). Libraries, interpreters and, on a GPU, its context take a constant beside that:
the same run with a tiny model tells it, and what is compared is the difference of both runs,
measured, with the difference of both estimates, in which the constants of a GPU cancel.

In float32: processors without bfloat16 units compute it on copies. There transformers took 6.7 GB
for llama-3.2-1b and 4.0 GB for olmo-1b where 2.5 GB were estimated (2.5 GB after loading llama, the
rest while it generated), which says nothing of a GPU.

The bar: of every engine and shape, the estimate over what was taken lies between the two `ratio`s.

    python -m benchmarks.memory_estimate [--quick] [--json]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeper.clocks import RealClock
from sweeper.engines import Request, engine_class
from sweeper.gpu_data import gpu
from sweeper.roofline import memory
from sweeper.shapes import shape_of_model
from sweeper.spec import EngineKind, EngineSpec, ModelSpec, Settings, Sizes, WorkloadSpec
from sweeper.trial.guardian import Guardian, members, processes

ROOT = Path(__file__).resolve().parent.parent
ENGINES: Sequence[EngineKind] = ("transformers", "vllm")
CONSTANT = "tiny"
INPUT, OUTPUT, BATCH = 28, 4, 8
SIZES = Sizes(max_model_len=INPUT + OUTPUT, max_batch_size=BATCH, batch_sizes=(BATCH,))
BUDGET = 256
"""Tokens of one pass of vLLM: a whole batch's prompts."""
PERIOD_S = 0.05
LIMIT_S = 900.0


@dataclass(frozen=True)
class Bars:
    """Which shapes, and between which ratios of estimate to measurement it holds."""

    shapes: Sequence[str]
    low: float
    high: float


FULL = Bars(shapes=("llama-3.2-1b", "olmo-1b"), low=0.8, high=1.3)
QUICK = Bars(shapes=("llama-3.2-1b",), low=0.6, high=1.6)


def settings_of(kind: EngineKind, shape: str) -> Settings:
    budget = BUDGET if kind == "vllm" else None
    return Settings(
        model=ModelSpec(shape=shape, weights="dummy"),
        engine=EngineSpec(
            kind=kind, dtype="float32", compile=False, graphs=False, max_batched_tokens=budget
        ),
        workload=WorkloadSpec(
            batching="static", batch_size=BATCH, input_tokens=INPUT, output_tokens=OUTPUT
        ),
    )


def estimated_bytes(kind: EngineKind, shape: str) -> float:
    settings = settings_of(kind, shape)
    return memory(settings, shape_of_model(settings.model), gpu("H100"), SIZES).needed_bytes


def run_once(kind: EngineKind, shape: str) -> None:
    """Load, and run one batch."""
    settings = settings_of(kind, shape)
    vocabulary = shape_of_model(settings.model).vocab
    requests = [
        Request(place, [(31 * place + 7 * at) % vocabulary for at in range(INPUT)], OUTPUT)
        for place in range(BATCH)
    ]
    with closing(engine_class(kind)(settings, SIZES, (), RealClock())) as engine:
        engine.load()
        finished = [e for e in engine.generate(requests, settings) if e.kind == "finished"]
        assert len(finished) == BATCH
        # Whoever looks from outside has a last look.
        time.sleep(4 * PERIOD_S)


def taken_bytes(kind: EngineKind, shape: str) -> float:
    """The most that each process of a run ever held, added up.

    Raises:
        RuntimeError: the run failed.
    """
    command = [sys.executable, "-m", "benchmarks.memory_estimate", "--one", kind, shape]
    peaks: dict[tuple[int, int], int] = {}
    with Guardian(lease_s=LIMIT_S) as guardian:
        environment = guardian.environment({**os.environ, "PYTHONPATH": str(ROOT)})
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
        while child.poll() is None:
            for process in members(processes(), guardian.token):
                if (peak := _peak_bytes(process.pid)) is not None:
                    peaks[process.pid, process.started] = peak
            time.sleep(PERIOD_S)
    if child.returncode != 0:
        raise RuntimeError(f"{kind} with {shape} ended with status {child.returncode}")
    taken = float(sum(peaks.values()))
    print(f"{kind} {shape}: {taken / 1e9:.2f} GB", file=sys.stderr, flush=True)
    return taken


def _peak_bytes(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None


def figures(
    taken: Mapping[tuple[EngineKind, str], float],
    estimated: Mapping[tuple[EngineKind, str], float],
    bars: Bars,
) -> dict[str, Any]:
    """Of every engine and shape: taken and estimated beyond the constant, and their ratio."""
    rows: list[dict[str, Any]] = []
    for kind in ENGINES:
        for shape in bars.shapes:
            taken_b = taken[kind, shape] - taken[kind, CONSTANT]
            estimated_b = estimated[kind, shape] - estimated[kind, CONSTANT]
            row = {"engine": kind, "shape": shape, "taken_bytes": taken_b}
            row |= {"estimated_bytes": estimated_b, "constant_bytes": taken[kind, CONSTANT]}
            rows.append({**row, "ratio": estimated_b / taken_b})
    held = [bars.low <= row["ratio"] <= bars.high for row in rows]
    return {"rows": rows, "low": bars.low, "high": bars.high, "ok": all(held)}


def table(found: Mapping[str, Any]) -> str:
    lines = [
        f"batch {BATCH}, {INPUT} tokens in, {OUTPUT} out, float32; beyond a {CONSTANT} model",
        f"{'engine':<14}{'shape':<15}{'taken':>10}{'estimated':>12}{'ratio':>8}{'constant':>12}",
    ]
    for row in found["rows"]:
        taken, estimated, constant = (
            f"{row[name] / 1e9:.2f} GB"
            for name in ("taken_bytes", "estimated_bytes", "constant_bytes")
        )
        of = f"{row['engine']:<14}{row['shape']:<15}"
        lines.append(f"{of}{taken:>10}{estimated:>12}{row['ratio']:>8.3f}{constant:>12}")
    verdict = "holds" if found["ok"] else "DOES NOT HOLD"
    lines.append(f"{verdict}: a ratio of {found['low']} to {found['high']}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one shape, wider bars")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    parser.add_argument("--one", nargs=2, metavar=("ENGINE", "SHAPE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one is not None:
        run_once(*asked.one)
        return 0
    bars = QUICK if asked.quick else FULL
    every = [(kind, shape) for kind in ENGINES for shape in (CONSTANT, *bars.shapes)]
    taken = {each: taken_bytes(*each) for each in every}
    estimated = {each: estimated_bytes(*each) for each in every}
    found = figures(taken, estimated, bars)
    print(table(found))
    if asked.json:
        print(json.dumps(found))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
