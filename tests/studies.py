"""Small studies with the simulated engine, for tests that run a launch, a lease or a driver."""

from pathlib import Path
from typing import Any

from sweeper.plan import plan
from sweeper.spec import (
    Axis,
    EngineSpec,
    Launch,
    MeasureSpec,
    ModelSpec,
    Settings,
    Study,
    Trial,
    WarmupSpec,
    WorkloadSpec,
)

MEASURE = MeasureSpec(warmup=WarmupSpec(min_batches=1, max_batches=2), min_window_s=5.0, repeats=2)


def simulated(
    *,
    batch_sizes: tuple[int, ...] = (1, 4),
    tensor_parallel: int = 1,
    meter: str = "auto",
    measure: MeasureSpec = MEASURE,
    **options: Any,
) -> Study:
    return Study(
        name="simulated",
        settings=Settings(
            model=ModelSpec(shape="tiny", weights="dummy"),
            engine=EngineSpec(kind="simulated", tensor_parallel=tensor_parallel, options=options),
            workload=WorkloadSpec(input_tokens=32, output_tokens=8, batching="static"),
            measure=measure,
            meter=meter,  # type: ignore[arg-type]
        ),
        axes=(
            Axis(
                label="workload.batch_size",
                choices=tuple({"workload.batch_size": size} for size in batch_sizes),
            ),
        ),
    )


def one_trial(study: Study) -> Trial:
    [trial] = plan(study).trials
    return trial


def one_launch(study: Study) -> Launch:
    return one_trial(study).launches[0]


YAML = """\
name: {name}
model: {{shape: tiny, weights: dummy}}
engine: {{kind: simulated, options: {options}}}
workload: {{input_tokens: 32, output_tokens: 8, batching: static}}
measure: {{warmup: {{min_batches: 1, max_batches: 2}}, min_window_s: 5, repeats: 2}}
axes: {{workload.batch_size: {batch_sizes}}}
objectives: {{energy_per_output_token_j: min, latency_mean_s: min}}
cluster: {{address: {address}}}
"""


def write(
    folder: Path,
    *,
    name: str = "little",
    options: str = "{}",
    batch_sizes: str = "[1, 4]",
    address: str = "local",
) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(
        YAML.format(name=name, options=options, batch_sizes=batch_sizes, address=address)
    )
    return path
