"""Words and numbers of the page: what every part of it says alike (pure)."""

import re
from collections.abc import Collection, Mapping, Sequence

from sweeper.answers.best import Answer
from sweeper.answers.criteria import Limit, judge
from sweeper.answers.front import Group
from sweeper.answers.markup import Html, element, join
from sweeper.answers.results import Provenance, Result
from sweeper.answers.table import brief, doubt, plain
from sweeper.answers.units import bracketed, digits, exponent, label, prefixed, quantity
from sweeper.results.metrics import METRICS
from sweeper.spec import Values

TIMES = "\N{MULTIPLICATION SIGN}"
BANNERS: Mapping[Provenance, str] = {
    "measured": "",
    "estimate": (
        "The joules on this page are estimates. No instrument measured them: they follow from a "
        "model of the machine's power, and must not be quoted as measurements or compared with any."
    ),
    "simulation": (
        "The numbers on this page are simulated. No machine did this work: they follow from a "
        "model, and must not be quoted as measurements or compared with them."
    ),
}
"""What the top of a page says of numbers that no instrument gave."""


def named(values: Values) -> str:
    """Choices as a reader says them, such as `tensor_parallel 2, batch_size 16`."""
    return ", ".join(f"{key.rpartition('.')[2]} {plain(value)}" for key, value in values.items())


def title_of(result: Result) -> str:
    """What a result is called: its choices, else its id."""
    return named(result.chosen) or result.id


def limit_text(limit: Limit) -> str:
    """A limit as a reader says it, such as `TPOT p99 ≤ 40.0 ms`."""
    sign = "≤" if limit.upper else "≥"
    return f"{label(limit.metric)} {sign} {quantity(limit.bound, limit.metric)}"


def sentence(text: str) -> str:
    """A reason with labels for the names of metrics, as a sentence."""
    said = _METRIC.sub(lambda found: label(found[0]), text)
    said = said.replace("<=", "≤").replace(">=", "≥")
    return f"{said[:1].upper()}{said[1:]}."


_METRIC = re.compile(rf"\b(?:{'|'.join(sorted(METRICS, key=len, reverse=True))})\b")


def heading_of(group: Group, answers: Sequence[Answer]) -> str:
    """A group by its condition, and by what else tells it from the other groups."""
    words = [brief(group.condition) or "The answer"]
    alike = [each.group for each in answers if each.group.condition == group.condition]
    if len({each.convention for each in alike}) > 1:
        words.append(f"{group.convention} windows")
    if len({(each.source, each.scope, each.provenance) for each in alike}) > 1:
        words.append(f"energy by {group.source or 'no meter'}")
    return ", ".join(words)


def badge(kind: str | None) -> Html | None:
    """A label beside numbers that no instrument gave."""
    return element("span", kind, class_="badge") if kind and kind != "measured" else None


def column(metric: str, power: int, group: Group) -> Html:
    """The heading of a metric's numbers: name, unit, and what they are if not measured."""
    return join(
        element("span", label(metric)),
        " ",
        element("span", unit, class_="unit") if (unit := bracketed(metric, power)) else None,
        " ",
        badge(doubt(group, metric)),
    )


def breakable(name: str) -> Html:
    """A name of several words that may be folded between them."""
    first, *rest = name.split("_")
    return join(first, [("_", element("wbr"), each) for each in rest])


def figure_of(result: Result, metric: str, group: Group) -> str:
    """A number with its unit, half interval, and what it is if not measured."""
    value = result.value(metric)
    if value is None:
        return "not known"
    interval = result.interval(metric)
    text = quantity(value, metric)
    if interval is not None:
        power = exponent([value], metric)
        half = digits((interval[1] - interval[0]) / 2, power, significant=2)
        text = f"{digits(value, power)} ±{half} {prefixed(metric, power)}"
    if metric in result.undersampled:
        text += " (too few samples)"
    kind = doubt(group, metric)
    return f"{text} ({kind})" if kind else text


def misses(result: Result, answer: Answer) -> dict[Limit, str]:
    """The limits that a result does not meet, and why if it is not by its value."""
    verdicts = {limit: judge(result, limit) for limit in answer.limits}
    why = {"missing": " (not known)", "undersampled": " (too few samples)"}
    return {limit: why.get(each.basis, "") for limit, each in verdicts.items() if not each.ok}


LONG = 30
"""A table with more rows is in two parts, of which the second unfolds."""


def folded_table(
    caption: str,
    head: Sequence[object],
    rows: Sequence[tuple[Html, bool]],
    name: str,
    numbers: Collection[int] = (),
) -> Html:
    """A table of which, where it is long, only the rows that are marked stand open."""
    chosen = [row for row, first in rows if first]
    others = [row for row, first in rows if not first]
    if len(rows) <= LONG or not chosen:
        return data_table(caption, head, [row for row, _ in rows], name, numbers)
    if not others:
        return data_table(caption, head, chosen, name, numbers)
    lead = f"{caption}: the front"
    rest = f"{caption}: what is not on the front"
    return join(
        data_table(lead, head, chosen, name, numbers),
        element(
            "details",
            element("summary", f"The other {len(others)}"),
            data_table(rest, head, others, f"{name}-others", numbers),
        ),
    )


def data_table(
    caption: object,
    head: Sequence[object],
    rows: Sequence[Html],
    name: str,
    numbers: Collection[int] = (),
) -> Html:
    """A table that scrolls by itself where the page is narrow; `numbers` are columns of numbers."""
    heads = [
        element("th", each, scope="col", class_="number" if index in numbers else None)
        for index, each in enumerate(head)
    ]
    return element(
        "div",
        element(
            "table",
            element("caption", element("span", caption), id=f"{name}-caption"),
            element("thead", element("tr", heads)),
            element("tbody", rows),
        ),
        class_="scroll",
        role="group",
        tabindex=0,
        aria_labelledby=f"{name}-caption",
    )
