"""How a judged claim is said, and as plain data (pure)."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.answers.change_words import basis_text, change_text, gain_text
from sweeper.answers.claims import Judgement


def claims_text(found: Sequence[Judgement], width: int) -> str:
    """Every claim with its verdict, for a terminal; empty where there is none."""
    if not found:
        return ""
    lines = ["claims of others, judged by these results"]
    for each in found:
        lines += textwrap.wrap(
            f"{each.verdict}: {stated(each)}; {measured(each)}",
            width,
            initial_indent="  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def stated(judgement: Judgement) -> str:
    """What was published, by whom."""
    claim = judgement.claim
    slack = f" (±{claim.tolerance_points:g} points)" if claim.tolerance_points else ""
    return (
        f"{claim.metric} {claim.change}{slack} with {settings_text(claim.when)} "
        f"against {settings_text(claim.against)}{under(judgement)} ({claim.source})"
    )


def measured(judgement: Judgement) -> str:
    """What the results say instead, and why that is the verdict."""
    change = judgement.change
    if change is None:
        return judgement.why
    said = [f"here {change_text(change)}", basis_text(change), gain_text(change), judgement.why]
    if judgement.pairs > 1:
        said.insert(1, f"the one of {judgement.pairs} pairs that decides")
    return ", ".join(filter(None, said))


def under(judgement: Judgement) -> str:
    """The traffic that a claim was judged under, where the study has several."""
    condition = judgement.condition
    return f", under {settings_text(condition)}" if condition else ""


def settings_text(values: Mapping[str, Any]) -> str:
    """Dotted settings in a line, by the last word of each key."""
    return ", ".join(f"{key.rpartition('.')[2]}={_plain(value)}" for key, value in values.items())


def claim_object(judgement: Judgement) -> dict[str, Any]:
    """A judged claim as `--json` prints it; the change is there only where there is one."""
    claim, change = judgement.claim, judgement.change
    found: dict[str, Any] = {
        "when": dict(claim.when),
        "against": dict(claim.against),
        "metric": claim.metric,
        "published": claim.change,
        "tolerance_points": claim.tolerance_points,
        "source": claim.source,
        "condition": dict(judgement.condition),
        "verdict": judgement.verdict,
        "why": judgement.why,
        "pairs": judgement.pairs,
        "id": judgement.result.id if judgement.result else None,
        "baseline": judgement.against.id if judgement.against else None,
    }
    if change is not None:
        found |= {"ratio": change.ratio, "paired": change.paired, "blocks": change.blocks}
        found |= {"launches": list(change.launches), "systematic": change.systematic}
        if change.low is not None:
            found |= {"ci95_low": change.low, "ci95_high": change.high}
    return found


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return " ".join(str(each) for each in value.values())
    return "none" if value is None else str(value)
