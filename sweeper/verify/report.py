"""What a verification found, as text and as one JSON object (pure)."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from sweeper.verify import Report
from sweeper.verify.budget import METRIC, PARTS, Budget, Part
from sweeper.verify.tally import RELATIVE

SHOWN = 30
"""Differences that the text lists; the JSON has all."""


def as_object(report: Report) -> dict[str, Any]:
    """The whole report as plain data; parts of a budget are fractions, or `null` and why."""
    tally = report.tally
    return {
        "study": report.study,
        "ok": report.ok,
        "counts": dict(report.counts),
        "compared": dict(sorted(tally.compared.items())),
        "tolerance": RELATIVE,
        "differences": [asdict(each) for each in tally.differences],
        "not_recomputed": dict(tally.left),
        "metric": METRIC,
        "budgets": [_budget_object(each) for each in report.budgets],
    }


def text(report: Report) -> str:
    """The report for a terminal."""
    return "\n".join([*_head(report), *_differences(report), *_budgets(report)])


def _head(report: Report) -> Iterator[str]:
    counts = ", ".join(f"{count} {what}" for what, count in report.counts.items() if count)
    total = sum(report.tally.compared.values())
    yield f"{report.study}: {counts or 'nothing was measured'}"
    yield f"  recomputed      {total:,} comparisons, tolerance {RELATIVE:g}"
    yield from _listed(report.tally.compared)
    if report.tally.left:
        yield "  not recomputed"
        yield from _listed(report.tally.left)


def _listed(counts: Mapping[str, int]) -> Iterator[str]:
    for what, count in sorted(counts.items()):
        yield f"    {count:>9,}  {what}"


def _differences(report: Report) -> Iterator[str]:
    found = report.tally.differences
    if not found:
        yield "  differences     none"
        return
    yield f"  differences     {len(found)}"
    for difference in found[:SHOWN]:
        yield f"    {difference}"
    if len(found) > SHOWN:
        yield f"    and {len(found) - SHOWN} more: --json lists them all"


def _budgets(report: Report) -> Iterator[str]:
    if not report.budgets:
        return
    yield ""
    yield f"uncertainty of {METRIC}, each part relative to it"
    yield "  counter: one period of a window's; board: gain error, systematic; window: sd within a"
    yield "  launch; launch: half of the 95 % interval; drift: last over first window of a launch's"
    yield "  control, or a line through the result's own"
    yield f"  {'id':<14}{'J/token':>12}" + "".join(f"{part:>11}" for part in PARTS)
    unknown: dict[str, list[str]] = {}
    for each in report.budgets:
        shown = [_percent(part, each.parts[part]) for part in PARTS]
        value = "unknown" if each.value is None else f"{each.value:.4g}"
        mark = "" if each.measured else "  not measured"
        yield f"  {each.id:<14}{value:>12}" + "".join(f"{part:>11}" for part in shown) + mark
        for name, part in each.parts.items():
            if isinstance(part, str):
                unknown.setdefault(f"{name} unknown: {part}", []).append(each.id)
    for why, ids in unknown.items():
        of = "all results" if len(ids) == len(report.budgets) else ", ".join(ids)
        yield f"  {why} ({of})"


def _percent(name: str, part: Part) -> str:
    if isinstance(part, str):
        return "unknown"
    sign = {"drift": "", "counter": "≤"}.get(name, "±")
    return f"{sign}{100 * part:{'+' if name == 'drift' else ''}.2g} %"


def _budget_object(budget: Budget) -> dict[str, Any]:
    known = {name: part for name, part in budget.parts.items() if not isinstance(part, str)}
    return {
        "id": budget.id,
        "stage": budget.stage,
        "value": budget.value,
        "measured": budget.measured,
        "parts": {name: known.get(name) for name in budget.parts},
        "unknown": {name: part for name, part in budget.parts.items() if isinstance(part, str)},
    }
