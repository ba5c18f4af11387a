"""`--dry-run`: what a study will come to, as text or JSON."""

import json
from collections import Counter
from typing import Any

from sweeper.forecast import Forecast, forecast, parse_pool
from sweeper.plan import Plan, plan
from sweeper.spec import Study
from sweeper.study import unavailable

SHOWN_REASONS = 8


def dry_run(study: Study, pool: str, *, as_json: bool) -> str:
    """The plan of `study`, and on a `pool` such as `2x8:H200` what fits, time and energy.

    Raises:
        StudyError: the pool is written wrongly, or the study cannot be planned on it.
    """
    expected = forecast(study, parse_pool(pool)) if pool else None
    whole = expected.plan if expected else plan(study)
    if as_json:
        return json.dumps(_object(study, pool, whole, expected))
    return "\n".join([*_plan_lines(study, whole), *_pool_lines(pool, expected)])


def _object(study: Study, pool: str, whole: Plan, expected: Forecast | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "study": study.name,
        "points": len(whole.points),
        "excluded": whole.excluded,
        "launches": len(whole.launches),
        "trials": len(whole.trials),
        "unavailable": unavailable(study),
    }
    if expected is not None:
        found["expected"] = {
            "pool": pool,
            "unfit": expected.unfit,
            "too_wide": expected.wide,
            "gpu_seconds": expected.gpu_seconds,
            "energy_j": expected.energy_j,
            "makespan_s": expected.makespan_s,
        }
    return found


def _plan_lines(study: Study, whole: Plan) -> list[str]:
    widths = Counter(trial.gpus for trial in whole.trials)
    by_width = ", ".join(
        f"{count} of {gpus} GPU{'s' * (gpus > 1)}" for gpus, count in sorted(widths.items())
    )
    lines = [
        f"{study.name}: {len(whole.points)} points in {len(whole.launches)} launches",
        f"  trials      {by_width}",
    ]
    if whole.excluded:
        lines.append(f"  excluded    {whole.excluded} combinations")
    lines += [f"  not yet     {fault}" for fault in unavailable(study)]
    return lines


def _pool_lines(pool: str, expected: Forecast | None) -> list[str]:
    if expected is None:
        return ["  add a pool for fit, time and energy, such as --dry-run 1x8:H100"]
    lines = []
    reasons = Counter([*expected.unfit.values(), *expected.wide.values()])
    for reason, count in reasons.most_common(SHOWN_REASONS):
        lines.append(f"  cannot run  {count}: {reason}")
    if len(reasons) > SHOWN_REASONS:
        lines.append(f"  cannot run  and {len(reasons) - SHOWN_REASONS} further reasons")
    return [
        *lines,
        f"  on {pool}, expected by the roofline and not measured:",
        f"    time      {_duration(expected.makespan_s)}",
        f"    GPUs      {expected.gpu_seconds / 3600:.2f} GPU-hours",
        f"    energy    {expected.energy_j / 3.6e6:.2f} kWh ({expected.energy_j:.3g} J)",
    ]


def _duration(seconds: float) -> str:
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
