"""Studies with synthetic journals, for tests of the page."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sweeper.results.contents import Contents
from sweeper.results.record import Energy, Record
from sweeper.spec import Axis, EngineSpec, MeasureSpec, ModelSpec, Settings, Study, WorkloadSpec
from tests.records import ESTIMATED, MEASURED, SIMULATED, make_record, make_window

WIDTH, SIZE, LENGTH = "engine.tensor_parallel", "workload.batch_size", "workload.input_tokens"
WIDTHS, SIZES = (1, 2, 4), (1, 4, 16, 64, 256)
ENVIRONMENT = {
    "host": "node-1",
    "platform": "Linux-6.8",
    "cpu_model": "AMD EPYC 9654",
    "versions": {"python": "3.12.4", "sweeper": "0.1.0", "vllm": "0.32.0"},
}


def study(name: str = "tp_study", *, limits: Any = None, conditions: Sequence[int] = ()) -> Study:
    return Study(
        name=name,
        settings=Settings(
            model=ModelSpec(id="meta-llama/Llama-3.1-8B-Instruct"),
            engine=EngineSpec(kind="vllm"),
            workload=WorkloadSpec(input_tokens=512, output_tokens=64),
            measure=MeasureSpec(launches=3 if limits else 1),
        ),
        axes=tuple(
            Axis(label=key, choices=tuple({key: value} for value in values))
            for key, values in ((WIDTH, WIDTHS), (SIZE, SIZES))
        ),
        conditions=(
            (Axis(label=LENGTH, choices=tuple({LENGTH: each} for each in conditions)),)
            if conditions
            else ()
        ),
        baseline={WIDTH: 1},
        limits=limits or {},
    )


def record(
    width: int,
    size: int,
    launch: int = 0,
    *,
    length: int | None = None,
    energy: Energy | None = MEASURED,
    kind: str = "vllm",
    **fields: Any,
) -> Record:
    """A launch of a point whose energy falls and whose latency grows with the batch."""
    wobble = 1 + 0.02 * math.sin(7 * launch + width + 3 * math.log2(size))
    scale = 1.0 if length is None else length / 512
    step_s = (0.012 + 0.00022 * size * scale) / width**0.6 * wobble
    joules = (240 + 95 * width + 1.1 * size * width**0.3) * 30 * wobble
    tokens = round(30 / step_s * size)
    requests = max(1, tokens // 64)
    window = make_window(
        energy_j=joules,
        output_tokens=tokens,
        input_tokens=8 * tokens,
        requests=requests,
        samples={
            "latency_s": [64 * step_s * (1 + 0.001 * i) for i in range(600)],
            "ttft_s": [0.02 * scale + 2 * step_s * (1 + 0.001 * i) for i in range(600)],
            "tpot_s": [step_s * (1 + 0.0004 * i) for i in range(600)],
        },
        devices=[f"GPU-{i}" for i in range(width)],
        gpus=width,
    )
    gpus = [{"uuid": f"GPU-{i}", "name": "NVIDIA H100 80GB HBM3"} for i in range(width)]
    of = "" if length is None else f"-{length}"
    chosen = {WIDTH: width, SIZE: size}
    settings = {
        "engine.kind": kind,
        "model.id": "meta-llama/Llama-3.1-8B-Instruct",
        LENGTH: 512,
        "workload.output_tokens": 64,
        "workload.batching": "continuous",
        "workload.arrival": {"kind": "closed"},
    }
    return make_record(
        f"tp{width}-b{size}{of}",
        launch=launch,
        config={**settings, **({} if length is None else {LENGTH: length})},
        chosen=chosen,
        condition={} if length is None else {LENGTH: length},
        gpus=width,
        windows=[window],
        energy=energy,
        study="tp_study",
        trial_id=f"trial-{width}-{launch}{of}",
        environment={**ENVIRONMENT, "devices": {"driver": "580.65", "gpus": gpus}},
        started_at=f"2026-01-0{launch + 2}T03:04:05+00:00",
        ended_at=f"2026-01-0{launch + 2}T05:{size % 60:02}:05+00:00",
        launch_command=(
            "vllm serve meta-llama/Llama-3.1-8B-Instruct --dtype bfloat16 "
            f"--tensor-parallel-size {width} --max-num-seqs {size} --no-enable-prefix-caching"
        ),
        **fields,
    )


def contents(records: Sequence[Record]) -> Contents:
    environment = {"versions": ENVIRONMENT["versions"], "drivers": ["580.65"]}
    newer = {**environment, "drivers": ["590.12"]}
    return Contents(
        journal="0123456789abcdef",
        records=tuple(records),
        studies=({"kind": "study", "text": "name: tp_study\nlimits: {tpot_p99_s: 0.05}\n"},),
        sittings=(
            _sitting("2026-01-02T03:00:00.000+00:00", "aaaa", environment),
            _sitting("2026-01-03T03:00:00.000+00:00", "bbbb", newer),
        ),
        ended=({"kind": "ended", "trial_id": "trial-1-0", "gpu_seconds": 54000.0},),
    )


def _sitting(at: str, mark: str, environment: Any) -> dict[str, Any]:
    return {"kind": "sitting", "started_at": at, "fingerprint": mark, "environment": environment}


def measured() -> tuple[Study, Contents]:
    """Three launches of every point, limits on two metrics, and some that did not work out."""
    records = [
        record(width, size, launch) for width in WIDTHS for size in SIZES for launch in range(3)
    ]
    lost = record(1, 256).chosen
    records = [each for each in records if each.chosen != lost]
    records += [
        make_record(
            "tp1-b256",
            launch=launch,
            status="infeasible",
            reason="out of memory: 81.2 GiB wanted, 79.6 GiB there",
            chosen=lost,
            energy=None,
            trial_id=f"trial-1-{launch}",
        )
        for launch in range(3)
    ]
    records.append(
        make_record(
            "tp8-b1",
            status="failed",
            reason="the engine was silent for 300 s",
            chosen={WIDTH: 8, SIZE: 1},
            energy=None,
        )
    )
    return study(limits={"latency_mean_s": 2.0, "tpot_p99_s": 0.03}), contents(records)


def estimated() -> tuple[Study, Contents]:
    """One launch of each point, with joules that no instrument gave."""
    records = [record(width, size, energy=ESTIMATED) for width in (1, 2) for size in SIZES]
    return study("an_estimate"), contents(records)


def simulated() -> tuple[Study, Contents]:
    """Two conditions on a simulated engine."""
    records = [
        record(width, size, length=length, energy=SIMULATED, kind="simulated")
        for length in (128, 2048)
        for width in WIDTHS
        for size in SIZES
    ]
    return study("a_simulation", conditions=(128, 2048)), contents(records)


def many() -> tuple[Study, Contents]:
    """Five hundred points: 125 under each of four conditions."""
    lengths = (128, 512, 2048, 8192)
    records = [
        record(width, size, length=length)
        for length in lengths
        for width in (1, 2, 4, 8, 16)
        for size in range(4, 104, 4)
    ]
    asked = study("many", limits={"latency_mean_s": 2.0}, conditions=lengths)
    return asked, contents(records)


def hostile(name: str) -> tuple[Study, Contents]:
    """A measured study that is full of a name that means harm."""
    asked, journal = measured()
    first, *rest = journal.records
    records = [
        replace(
            each,
            chosen={**each.chosen, "engine.attention": name},
            condition={"workload.task": name},
            launch_command=f"run {name}",
            environment={**each.environment, "host": name, "versions": {name: name}},
        )
        for each in rest
    ]
    failed = replace(first, status="failed", reason=name, chosen={name: name}, id=name)
    return replace(asked, name=name, baseline={"engine.attention": name}), replace(
        journal,
        records=(failed, *records),
        studies=({"kind": "study", "text": name},),
        deaths=({"kind": "death", "trial_id": "t", "reason": name},),
    )
