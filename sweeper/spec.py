"""The study and its parts as frozen data: what may be asked for, in which unit.

The names are the keys of a study file. Nothing here reads a file or knows a default of an engine;
`None` always means "left to whoever knows better", never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

EngineKind = Literal["vllm", "transformers", "endpoint", "simulated"]
MeterKind = Literal["auto", "nvml", "rapl", "amd", "codecarbon", "replay", "simulated"]
Convention = Literal["steady", "whole"]
Direction = Literal["min", "max"]
Stage = Literal["screen", "full", "final"]
Values = Mapping[str, Any]
"""Dotted keys of a study file and what they are set to, such as `{"engine.dtype": "float16"}`."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Which model, and where its weights come from."""

    id: str | None = None
    revision: str | None = None
    shape: str | None = None
    weights: Literal["auto", "dummy", "dummy_zeros", "dummy_engine"] = "auto"
    trust_remote_code: bool = False


@dataclass(frozen=True, kw_only=True)
class EngineSpec:
    """What generates tokens, and every setting that needs an engine start.

    `simulates` is the engine that a simulated one stands for, where it stands for one.
    """

    kind: EngineKind = "vllm"
    simulates: Literal["vllm", "transformers"] | None = None
    mode: Literal["offline", "online"] = "offline"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    tensor_parallel: int = field(default=1, metadata={"min": 1})
    pipeline_parallel: int = field(default=1, metadata={"min": 1})
    data_parallel: int = field(default=1, metadata={"min": 1})
    graphs: bool = True
    compile: bool = True
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    speculative: Mapping[str, Any] | None = None
    chunked_prefill: bool | None = None
    prefix_caching: bool = False
    attention: str | None = None
    max_batched_tokens: int | None = field(default=None, metadata={"min": 1})
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def gpus(self) -> int:
        """Whole GPUs that one launch holds."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel


@dataclass(frozen=True, kw_only=True)
class GpuSpec:
    """Studied settings of the GPU itself, restored whatever happens."""

    power_limit_w: float | None = field(default=None, metadata={"above": 0})
    clock_mhz: int | None = field(default=None, metadata={"min": 1})


@dataclass(frozen=True, kw_only=True)
class WorkloadSpec:
    """Which requests, how many at a time, and when."""

    kind: Literal["fixed", "tasks", "trace"] = "fixed"
    input_tokens: int = field(default=512, metadata={"min": 1})
    output_tokens: int = field(default=64, metadata={"min": 1})
    requests: int | Literal["auto"] = field(default="auto", metadata={"min": 1})
    batching: Literal["static", "continuous"] = "continuous"
    batch_size: int = field(default=32, metadata={"min": 1})
    arrival: Mapping[str, Any] = field(default_factory=lambda: {"kind": "closed"})
    decoding: Mapping[str, Any] = field(default_factory=lambda: {"kind": "greedy"})
    seed: int = field(default=0, metadata={"min": 0, "max": 2**32 - 1})
    task: str | None = None
    trace: str | None = None
    columns: Mapping[str, str] | None = None
    bins: Mapping[str, Any] | None = None
    time_scale: float | None = field(default=None, metadata={"above": 0})
    sample: int | None = field(default=None, metadata={"min": 1})

    @property
    def streams(self) -> bool:
        """Whether tokens stand as they come: a beam search knows its text when it has ended."""
        return self.decoding.get("kind") != "beam"


TEMPERATURE_S = 5.0
"""A device's temperature is steady when it has not moved for so long: no visit settles for less."""


@dataclass(frozen=True, kw_only=True)
class WarmupSpec:
    """Bounds on the batches that run before anything counts."""

    min_batches: int = field(default=4, metadata={"min": 0})
    max_batches: int = field(default=20, metadata={"min": 1})


@dataclass(frozen=True, kw_only=True)
class FinalistsSpec:
    """How many of the best are launched again, in how many blocks, before one is named."""

    count: int = field(default=3, metadata={"min": 1})
    blocks: int = field(default=0, metadata={"min": 0})


@dataclass(frozen=True, kw_only=True)
class MeasureSpec:
    """How a point is measured.

    `goodput` are limits that each request must meet to count in `goodput_rps`: of `ttft_s`,
    `tpot_s` and `latency_s`.
    """

    warmup: WarmupSpec = field(default_factory=WarmupSpec)
    window: Literal["auto", "steady", "whole"] = "auto"
    min_window_s: float = field(default=30.0, metadata={"above": 0})
    repeats: int = field(default=3, metadata={"min": 1})
    launches: int = field(default=1, metadata={"min": 1})
    finalists: FinalistsSpec = field(default_factory=FinalistsSpec)
    phases: bool = False
    goodput: Mapping[str, float] | None = None

    @property
    def windows(self) -> int:
        """Windows of a point and launch, those of prefill alone included."""
        return self.repeats * (2 if self.phases else 1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that decides what one point is: the part of a study that axes may move.

    `replay` says which log a `meter: replay` reads.
    """

    model: ModelSpec = field(default_factory=ModelSpec)
    engine: EngineSpec = field(default_factory=EngineSpec)
    gpu: GpuSpec = field(default_factory=GpuSpec)
    workload: WorkloadSpec = field(default_factory=WorkloadSpec)
    measure: MeasureSpec = field(default_factory=MeasureSpec)
    meter: MeterKind = "auto"
    replay: Mapping[str, Any] | None = None

    @property
    def convention(self) -> Convention:
        """Which tokens and joules belong to a window: `auto` resolved."""
        if self.measure.window != "auto":
            return self.measure.window
        return "whole" if self.workload.batching == "static" else "steady"


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One direction of a study: `choices` are the values it takes, in the order written.

    A choice sets one key, or several that move together.
    """

    label: str
    choices: tuple[Values, ...]


@dataclass(frozen=True, kw_only=True)
class DemandSpec:
    """What a service must sustain, and the GPUs it may use."""

    requests_per_s: float = field(metadata={"above": 0})
    gpus: int = field(metadata={"min": 1})


@dataclass(frozen=True, kw_only=True)
class BudgetSpec:
    """Where a search stops; what is not given does not bind."""

    gpu_hours: float | None = field(default=None, metadata={"above": 0})
    launches: int | None = field(default=None, metadata={"min": 1})
    joules: float | None = field(default=None, metadata={"above": 0})
    wall_s: float | None = field(default=None, metadata={"above": 0})


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """How configurations are chosen."""

    kind: Literal["grid", "random", "optuna", "guided"] = "grid"
    budget: BudgetSpec = field(default_factory=BudgetSpec)
    seed: int = field(default=0, metadata={"min": 0, "max": 2**32 - 1})


@dataclass(frozen=True, kw_only=True)
class ExpectSpec:
    """A published claim to judge: `metric` changes by `change` from `against` to `when`.

    What `against` does not name is as in `when`. The forms of `change` are those of
    `published.py`; `tolerance_points` is how many points of per cent it may be missed by.
    """

    when: Values
    against: Values
    metric: str
    change: str
    source: str
    tolerance_points: float = field(default=0.0, metadata={"min": 0})


@dataclass(frozen=True, kw_only=True)
class QualitySpec:
    """A scorer run once per configuration; below `min` a configuration is not recommended.

    `command` is for a shell; `trial/scoring.py` says what it finds and prints.
    """

    command: str
    min: float
    timeout_s: float = field(default=3600.0, metadata={"above": 0})


@dataclass(frozen=True, kw_only=True)
class ResourcesSpec:
    """What a trial asks of the cluster beside its GPUs."""

    cpus: int | Literal["auto"] = field(default="auto", metadata={"min": 1})
    accelerator: str | None = None
    exclusive_node: bool = False
    max_gpus: int | None = field(default=None, metadata={"min": 1})


@dataclass(frozen=True, kw_only=True)
class ClusterSpec:
    """`auto` joins a running Ray cluster, else starts one here; `local` starts one here."""

    address: str = "auto"


@dataclass(frozen=True, kw_only=True)
class TrackingSpec:
    """Where MLflow's records go; `None` is SQLite under `mlruns/`."""

    uri: str | None = None


@dataclass(frozen=True, kw_only=True)
class Study:
    """One study file, validated and frozen."""

    name: str
    settings: Settings
    axes: tuple[Axis, ...] = ()
    exclude: tuple[Values, ...] = ()
    conditions: tuple[Axis, ...] = ()
    baseline: Values = field(default_factory=dict)
    objectives: Mapping[str, Direction] = field(
        default_factory=lambda: {"energy_per_output_token_j": "min", "latency_mean_s": "min"}
    )
    limits: Mapping[str, float] = field(default_factory=dict)
    demand: DemandSpec | None = None
    search: SearchSpec = field(default_factory=SearchSpec)
    expect: tuple[ExpectSpec, ...] = ()
    quality: QualitySpec | Literal["unchecked_ok"] | None = None
    resources: ResourcesSpec = field(default_factory=ResourcesSpec)
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    tracking: TrackingSpec = field(default_factory=TrackingSpec)


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a launch must know beforehand, over all points of its configuration in the study.

    `beams` is the widest beam search of any.
    """

    max_model_len: int
    max_batch_size: int
    batch_sizes: tuple[int, ...]
    beams: int = 1

    @property
    def sequences(self) -> int:
        """The most that an engine decodes together: each request's beams."""
        return self.max_batch_size * self.beams


@dataclass(frozen=True, kw_only=True)
class Point:
    """A configuration, a batch size and a condition: one dot on a plot.

    `id` hashes what is measured and how, never why (limits, objectives, search, tracking).
    `configuration` is the hash of what needs an engine start. `condition` names the traffic: the
    values of the study's conditions that this point was made with.
    """

    id: str
    configuration: str
    condition: Values
    chosen: Values
    settings: Settings


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One start of one configuration, measuring its points.

    `number` counts the independent launches of a configuration, from 0; `stage` says what for.
    `min_requests` is what the percentiles that the study asks for need, over the windows of a
    point. `seed` shuffles the passes. `quality` is the scorer that runs before it.
    """

    number: int
    stage: Stage
    sizes: Sizes
    points: tuple[Point, ...]
    min_requests: int = 1
    seed: int = 0
    quality: QualitySpec | None = None

    @property
    def gpus(self) -> int:
        """Whole GPUs that it runs on; its trial may hold more."""
        return self.points[0].settings.engine.gpus


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One lease of `gpus` whole GPUs of one node for its launches, in order.

    A launch holds the first of these GPUs that it needs. `expected_s` is the roofline's estimate of
    how long the lease is held and only ever orders trials.
    """

    id: str
    gpus: int
    launches: tuple[Launch, ...]
    expected_s: float
    attempt: int = 0

    @property
    def block(self) -> bool:
        """Whether its launches are compared: they count together, from one lease, or not at all."""
        return any(launch.stage == "final" for launch in self.launches)
