"""Synthetic records for tests: numbers that hang together, from the few that a test is about."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.results.metrics import record_metrics, window_metrics
from sweeper.results.record import Check, Energy, Phase, Record, Window

MEASURED = Energy(source="nvml", measured=True, method="counter", scope="gpu", systematic=0.05)
ESTIMATED = Energy(source="codecarbon", measured=False, method="estimate", scope="node")
SIMULATED = Energy(source="simulated", measured=False, method="model", scope="gpu")


def make_window(
    index: int = 0,
    *,
    started_s: float = 100.0,
    duration_s: float = 30.0,
    energy_j: float | None = 3000.0,
    reasons: Sequence[str] = (),
    requests: int = 10,
    input_tokens: int = 1000,
    output_tokens: int = 500,
    latency_s: Sequence[float] = (2.0, 3.0),
    samples: Mapping[str, Sequence[Any]] | None = None,
    devices: Sequence[str] = ("GPU-0",),
    convention: str = "steady",
    gpus: int = 1,
    components: Mapping[str, Mapping[str, float] | str] | None = None,
    phase: Phase = "all",
) -> Window:
    """`components` are joules of each one's devices, or the reason why the second edge has none."""
    kept = dict(samples) if samples is not None else {"latency_s": list(latency_s)}
    share = 0.0 if energy_j is None else energy_j / len(devices)
    readings = [
        {"t_s": started_s, "energy_j": dict.fromkeys(devices, 5000.0)},
        {"t_s": started_s + duration_s, "energy_j": dict.fromkeys(devices, 5000.0 + share)},
    ]
    if components:
        sides = [components_at(started_s + at_s, components) for at_s in (0.0, duration_s)]
        for reading, side in zip(readings, sides, strict=True):
            reading["components"] = side
    readings = readings if energy_j is not None else readings[:1]
    return Window(
        index=index,
        convention=convention,
        phase=phase,
        started_s=started_s,
        ended_s=started_s + duration_s,
        requests=requests,
        requests_failed=0,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        energy_j=energy_j,
        reasons=tuple(reasons or (("window_too_short: test",) if energy_j is None else ())),
        readings=readings,
        samples=kept,
        metrics=window_metrics(
            duration_s=duration_s,
            energy_j=energy_j,
            requests=requests,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            samples=kept,
            gpus=gpus,
            readings=readings,
        ),
    )


def components_at(
    t_s: float, components: Mapping[str, Mapping[str, float] | str]
) -> dict[str, dict[str, Any]]:
    """Components of constant power since the moment 100, as a reading carries them."""
    return {
        name: {"reason": spent}
        if isinstance(spent, str)
        else {
            "t_s": t_s + 0.001,
            "energy_j": {device: 7e4 + joules * (t_s > 100.0) for device, joules in spent.items()},
        }
        for name, spent in components.items()
    }


def make_record(
    id: str = "point",  # noqa: A002
    *,
    launch: int = 0,
    stage: str = "full",
    status: str = "ok",
    reason: str | None = None,
    config: Mapping[str, Any] | None = None,
    chosen: Mapping[str, Any] | None = None,
    condition: Mapping[str, Any] | None = None,
    convention: str = "steady",
    gpus: int = 1,
    windows: Sequence[Window] | None = None,
    metrics: Mapping[str, float] | None = None,
    undersampled: Sequence[str] | None = None,
    energy: Energy | None = MEASURED,
    **fields: Any,
) -> Record:
    """A record; its metrics follow from `windows` unless they are given.

    With `metrics` alone it has no windows, and nothing is undersampled unless named.
    """
    if windows is None:
        measured = status in {"ok", "energy_invalid"} and metrics is None
        windows = [make_window(gpus=gpus, convention=convention)] if measured else []
    found, tails = record_metrics(windows, gpus)
    chosen = dict(chosen or {})
    condition = dict(condition or {})
    return Record(
        id=id,
        configuration=fields.pop("configuration", f"configuration-{id}"),
        launch=launch,
        stage=stage,
        study=fields.pop("study", "a_study"),
        trial_id=fields.pop("trial_id", f"trial-{id}-{launch}-{stage}"),
        attempt=fields.pop("attempt", 0),
        status=status,  # type: ignore[arg-type]
        reason=reason,
        config={"engine.kind": "vllm", **condition, **chosen, **(config or {})},
        chosen=chosen,
        condition=condition,
        convention=convention,
        gpus=gpus,
        environment=fields.pop("environment", {"host": "node-1"}),
        started_at=fields.pop("started_at", "2026-01-02T03:04:05+00:00"),
        ended_at=fields.pop("ended_at", "2026-01-02T03:06:05+00:00"),
        load_s=fields.pop("load_s", 12.5),
        windows=tuple(windows),
        metrics=dict(found if metrics is None else metrics),
        undersampled=tuple(
            undersampled if undersampled is not None else tails if metrics is None else ()
        ),
        energy=energy,
        checks=fields.pop("checks", (Check(name="gpu_free", ok=True, detail="0 processes"),)),
        launch_command=fields.pop("launch_command", "vllm serve some/model"),
        **fields,
    )


def two_objectives(energy: float, latency: float, **more: float) -> dict[str, float]:
    """The metrics of the default objectives, and others."""
    return {"energy_per_output_token_j": energy, "latency_mean_s": latency, **more}
