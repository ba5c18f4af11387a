"""Steady windows of large batches, on the simulated engine: prefills come in bursts."""

import pytest

from sweeper.plan import sizes_of
from sweeper.results.record import Record
from sweeper.spec import (
    EngineSpec,
    Launch,
    MeasureSpec,
    ModelSpec,
    Point,
    Settings,
    WarmupSpec,
    WorkloadSpec,
)
from sweeper.trial.assignment import Assignment, bench_for
from sweeper.trial.protocol import run_launch


def record_of(
    batch_size: int, input_tokens: int, output_tokens: int, min_window_s: float
) -> Record:
    settings = Settings(
        model=ModelSpec(shape="llama-3.1-8b", weights="dummy"),
        engine=EngineSpec(kind="simulated"),
        workload=WorkloadSpec(
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            batching="continuous",
            batch_size=batch_size,
        ),
        measure=MeasureSpec(warmup=WarmupSpec(min_batches=2), min_window_s=min_window_s, repeats=2),
    )
    point = Point(id="p", configuration="c", condition={}, chosen={}, settings=settings)
    launch = Launch(
        number=0, stage="full", sizes=sizes_of([point]), points=(point,), min_requests=1, seed=1
    )
    assignment = Assignment(launch=launch, study="s", trial_id="t", attempt=0, devices=(), place={})
    records: list[Record] = []

    def emit(kind: str, fields: dict) -> None:
        if kind == "record":
            records.append(Record.from_json(fields))

    run_launch(launch, bench_for(assignment, emit))
    return records[0]


@pytest.mark.parametrize(
    ("batch_size", "input_tokens", "output_tokens", "min_window_s"),
    [(128, 512, 64, 6.0), (512, 256, 400, 9.0), (512, 512, 64, 30.0)],
)
def test_windows_of_large_batches_hold_their_share_of_prefills(
    batch_size: int, input_tokens: int, output_tokens: int, min_window_s: float
):
    record = record_of(batch_size, input_tokens, output_tokens, min_window_s)
    assert record.status == "ok", record.reason
    assert len(record.windows) == 2
    for window in record.windows:
        turns = window.requests / batch_size
        assert turns == pytest.approx(round(turns), abs=0.05)
        assert round(turns) >= 1
