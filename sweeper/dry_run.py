"""`--dry-run`: what a study will come to, as text or JSON."""

import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sweeper.answers.table import brief
from sweeper.blocks import comparisons, promise
from sweeper.forecast import Forecast, forecast, parse_pool
from sweeper.plan import Plan, by_configuration, plan
from sweeper.search.announced import budget_words
from sweeper.spec import Point, Study
from sweeper.study import unavailable

WIDTH = 100
SHOWN = 8
"""Configurations that do not fit, at most."""


def dry_run(study: Study, pool: str, *, as_json: bool) -> str:
    """The plan of `study`, and on a `pool` such as `2x8:H200` what fits, time and energy.

    Raises:
        StudyError: the pool is written wrongly, or the study cannot be planned on it.
    """
    expected = forecast(study, parse_pool(pool)) if pool else None
    whole = expected.plan if expected else plan(study)
    if as_json:
        return json.dumps(_object(study, pool, whole, expected))
    return "\n".join([*_plan_lines(study, whole), *_pool_lines(study, pool, expected)])


def _object(study: Study, pool: str, whole: Plan, expected: Forecast | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "study": study.name,
        "points": len(whole.points),
        "excluded": whole.excluded,
        "launches": len(whole.launches),
        "trials": len(whole.trials),
        "blocks": len(comparisons(whole.points)) * study.settings.measure.finalists.blocks,
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
            "blocks": expected.blocks and asdict(expected.blocks),
        }
    return found


def _plan_lines(study: Study, whole: Plan) -> list[str]:
    widths = Counter(trial.gpus for trial in whole.trials)
    by_width = ", ".join(
        f"{count} of {_many(gpus, 'GPU')}" for gpus, count in sorted(widths.items())
    )
    points, launches = len(whole.points), len(whole.launches)
    lines = [
        f"{study.name}: {_many(points, 'point')} in {_many(launches, 'launch', 'launches')}",
        f"  trials      {by_width}",
    ]
    if (then := promise(study, whole.points)) is not None:
        lines += _wrapped("  and         ", f"{then}, chosen when the rest is measured")
    if whole.excluded:
        lines.append(f"  excluded    {_many(whole.excluded, 'combination')}")
    for fault in unavailable(study):
        lines += _wrapped("  not yet     ", fault)
    return lines


def _pool_lines(study: Study, pool: str, expected: Forecast | None) -> list[str]:
    if expected is None:
        return ["  add a pool for fit, time and energy, such as --dry-run 1x8:H100"]
    found = list(_unfit(expected))
    lines = [line for configuration in found[:SHOWN] for line in configuration]
    if len(found) > SHOWN:
        lines.append(f"  cannot run  {_many(len(found) - SHOWN, 'further configuration')}")
    return [
        *lines,
        f"  on {pool}, expected by the roofline and not measured:",
        f"    time      {duration(expected.makespan_s)}",
        f"    GPUs      {expected.gpu_seconds / 3600:.2f} GPU-hours",
        f"    energy    {expected.energy_j / 3.6e6:.2f} kWh ({expected.energy_j:.3g} J)",
        *_blocks_lines(study, expected),
    ]


def _blocks_lines(study: Study, expected: Forecast) -> list[str]:
    """What of it the blocks take, which no budget of a search holds back."""
    part = expected.blocks
    if part is None:
        return []
    said = (
        f"{_many(part.trials, 'block')}: {duration(part.makespan_s)}, "
        f"{part.gpu_seconds / 3600:.2f} GPU-hours, {part.energy_j / 3.6e6:.2f} kWh of these, if "
        "the finalists are those that the roofline expects"
    )
    if budget_words(study.search.budget) is not None:
        said += "; not part of the search's budget"
    return _wrapped("    blocks    ", said)


def _unfit(expected: Forecast) -> Iterator[list[str]]:
    """For each configuration that does not fit as a whole: how much of it, and the first reason."""
    reasons = dict(expected.unfit)
    for trial in expected.plan.trials:
        if trial.id in expected.wide:
            ids = (point.id for launch in trial.launches for point in launch.points)
            reasons |= dict.fromkeys(ids, expected.wide[trial.id])
    for points in by_configuration(expected.plan.points):
        unfit = [point for point in points if point.id in reasons]
        if unfit:
            common = _common(points)
            part = "all" if len(unfit) == len(points) else str(len(unfit))
            rest = {key: value for key, value in _moved(unfit[0]).items() if key not in common}
            alike = part == "all" and len({reasons[point.id] for point in unfit}) == 1
            first = "" if alike or not rest else f"{brief(rest)}: "
            name = f"{brief(common)}: " if common else ""
            said = f"{name}{part} of {_many(len(points), 'point')}: {first}{reasons[unfit[0].id]}"
            yield _wrapped("  cannot run  ", said)


def _moved(point: Point) -> dict[str, Any]:
    return {**point.condition, **point.chosen}


def _common(points: Sequence[Point]) -> dict[str, Any]:
    """What was chosen alike for all of them."""
    return {
        key: value
        for key, value in _moved(points[0]).items()
        if all(_moved(point).get(key) == value for point in points)
    }


def _wrapped(lead: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _many(count: int, name: str, plural: str | None = None) -> str:
    return f"{count} {name if count == 1 else plural or name + 's'}"


def duration(seconds: float) -> str:
    """Minutes, or hours where there are more than ninety of them."""
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
