"""The table that a terminal shows: every result of every condition, and what became of the rest.

Plain text, the same for the same records.
"""

import shlex
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sweeper.answers.beside import component_metrics, missing_components
from sweeper.answers.best import Answer
from sweeper.answers.change import MIN_BLOCKS, Change
from sweeper.answers.change_words import change_text, p_text
from sweeper.answers.claim_words import claims_text
from sweeper.answers.claims import judged
from sweeper.answers.criteria import judge
from sweeper.answers.front import Group
from sweeper.answers.quality import quality_mark
from sweeper.answers.results import Result, settled
from sweeper.answers.units import CAVEAT, bracketed, digits, exponent, label, quantity
from sweeper.results.metrics import is_energy
from sweeper.results.record import Record, Status
from sweeper.spec import Study, Values

UNKNOWN = "-"
WIDTH = 100

EXPLAINED: Mapping[str, str] = {
    "±": "± half of the 95 % interval over launches",
    "?": "? a percentile of too few samples",
    "!": "! beyond a limit",
}
"""The signs of a cell, and what is said of them below a table."""
CHANGE_SIGNS: Mapping[str, str] = {
    "[": "[95 % interval over launches]",
    "*": f"* significant: p at most 0.05 by Holm, paired in {MIN_BLOCKS} blocks or more",
    "~": "~ screening: p by Benjamini-Hochberg, no claim",
    "paired": "paired BLOCKS, unpaired LAUNCHES",
}
"""The signs of a change, and what is said of them."""
TIED, BESIDE = "(tied)", "tied with front"
TIED_WORDS = "tied: intervals overlap in every objective"
_TROUBLE_WORDS: Mapping[Status, str] = {
    "energy_invalid": "without energy",
    "wrong_setting": "not what was asked",
    "infeasible": "infeasible",
    "failed": "failed",
}


def table(study: Study, records: Iterable[Record], answers: Sequence[Answer]) -> str:
    """The answers as text, each with its best and why; then claims, and points without a result."""
    known = list(records)
    homes = {record.id: record.study for record in known}
    parts = [_section(study, answer, homes) for answer in answers]
    parts += [claims_text(judged(study, known), WIDTH)]
    parts += [_troubles(settled(known)), missing(settled(known))]
    return "\n\n".join(filter(None, parts)) + "\n"


def headline(answers: Sequence[Answer]) -> str:
    """The best of each condition in a line, or that there is none."""
    said = []
    for answer in answers:
        where = f"{brief(answer.group.condition)}: " if answer.group.condition else ""
        if answer.best is None:
            said.append(f"{where}no best: {answer.why}")
            continue
        metric = next(iter(answer.objectives))
        value = answer.best.value(metric)
        known = f", {quantity(value, metric)}" if value is not None else ""
        caveat = CAVEAT[answer.group.provenance]
        said.append(
            f"{where}best {brief(answer.best.chosen) or answer.best.id}{known}"
            + (f" ({caveat})" if caveat else "")
        )
    return "; ".join(said) or "nothing was measured"


def brief(values: Values) -> str:
    """Dotted values in a line, by the last word of each key."""
    return ", ".join(f"{key.rpartition('.')[2]}={plain(value)}" for key, value in values.items())


def plain(value: Any) -> str:
    """A setting as it is written in a cell."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        rest = [str(each) for key, each in value.items() if key != "kind"]
        return " ".join([str(value.get("kind", "")), *rest]).strip()
    return "none" if value is None else str(value)


def _section(study: Study, answer: Answer, homes: Mapping[str, str]) -> str:
    group = answer.group
    title = brief(group.condition) or study.name
    if not group.results:
        return f"{title}\n  {answer.why}"
    facts = [f"{group.convention} windows"]
    if group.source is not None:
        facts.append(
            f"energy by {group.source}" + (f" of the {group.scope}" if group.scope else "")
        )
    if CAVEAT[group.provenance]:
        facts.append(CAVEAT[group.provenance].upper())
    if all(str(each.config.get("model.weights")).startswith("dummy") for each in group.results):
        facts.append("random weights")
    lines = [f"{title}  ({'; '.join(facts)})", *_grid(study, answer), *_savings(study, answer), ""]
    lines += _beside(answer)
    verdict = f"best: {answer.best.id if answer.best else 'none'}: {answer.why}"
    lines += textwrap.wrap(
        verdict, WIDTH, initial_indent="  ", subsequent_indent="        ", break_long_words=False
    )
    if answer.best and answer.best.launch_command:
        home = homes.get(answer.best.id, study.name)
        lines.append(f"        {_launching(home, answer.best.id, answer.best.launch_command)}")
    return "\n".join(lines)


def _launching(study: str, point: str, command: str) -> str:
    """The command that launches a point; where it is a script, the command that shows it."""
    if "\n" not in command.strip():
        return f"$ {command.strip()}"
    folder = shlex.quote(f"mlruns/studies/{study}")
    return f"the script that launches it: python -m sweeper show {folder} {point}"


def _grid(study: Study, answer: Answer) -> list[str]:
    rows = ranked(answer)
    columns = [
        ("id", [result.id for result in rows], str.ljust),
        *((key, cells, str.rjust) for key, cells in levers(rows)),
        *((*_column(metric, answer, rows), str.rjust) for metric in shown_metrics(answer)),
        ("launches", [str(result.launches) for result in rows], str.rjust),
        ("", [mark(result, study, answer) for result in rows], str.ljust),
    ]
    lines = _aligned(columns)
    cells = "".join(cell for _, column, _ in columns[1:-2] for cell in column)
    notes = [text for sign, text in EXPLAINED.items() if sign in cells]
    notes += [TIED_WORDS] if any(answer.front_ties) else []
    notes += [f"{each}, not in the intervals" for each in gains_of(rows)]
    return [*lines, *([f"  {'; '.join(notes)}"] if notes else [])]


def _beside(answer: Answer) -> list[str]:
    """The components that are known, in the order of the results above."""
    metrics = component_metrics(answer)
    if not metrics:
        return []
    rows = ranked(answer)
    columns = [
        ("id", [result.id for result in rows], str.ljust),
        *((key, cells, str.rjust) for key, cells in levers(rows)),
        *((*_column(metric, answer, rows), str.rjust) for metric in metrics),
    ]
    return ["  beside the launch's GPUs, and not in the joules above:", *_aligned(columns), ""]


def _savings(study: Study, answer: Answer) -> list[str]:
    """The changes from the baseline, with what may be claimed of each and how it was measured."""
    shown = [each for each in answer.savings if each.changes]
    if not shown:
        return []
    columns: list[tuple[str, list[str], Callable[[str, int], str]]] = [
        ("id", [each.result.id for each in shown], str.ljust),
        ("against", [each.baseline.id for each in shown], str.ljust),
    ]
    for metric in answer.objectives:
        found = [each.changes.get(metric) for each in shown]
        kind = doubt(answer.group, metric)
        title = f"{label(metric)}, change" + (f" ({kind})" if kind else "")
        columns.append(
            (title, [change_text(each) if each else UNKNOWN for each in found], str.rjust)
        )
        if any(each and each.p is not None for each in found):
            columns.append(("p", [_p(each) for each in found], str.ljust))
    columns.append(("how", [_how(next(iter(each.changes.values()))) for each in shown], str.ljust))
    changes = [change for each in shown for change in each.changes.values()]
    said = "".join(cell for _, cells, _ in columns for cell in cells)
    notes = [text for sign, text in CHANGE_SIGNS.items() if sign in said]
    gains = sorted({each.systematic for each in changes if each.systematic is not None})
    notes += [
        f"^ ±{100 * gain:g} % of the boards' gain on each side, not in the interval"
        for gain in gains
    ]
    against = ", ".join(f"{key.rpartition('.')[2]}={plain(v)}" for key, v in study.baseline.items())
    return [
        "",
        f"  against the baseline, {against}",
        *_aligned(columns),
        *textwrap.wrap("; ".join(notes), WIDTH, initial_indent="  ", subsequent_indent="  "),
    ]


def _p(change: Change | None) -> str:
    if change is None or change.p_adjusted is None:
        return UNKNOWN
    sign = {True: "*", False: "", None: "~"}[change.significant]
    return f"{p_text(change.p_adjusted)}{sign}"


def _how(change: Change) -> str:
    ours, theirs = change.launches
    how = f"paired {change.blocks}" if change.paired else f"unpaired {ours}+{theirs}"
    return how + (" ^" if change.systematic is not None else "")


def gains_of(results: Iterable[Result]) -> list[str]:
    """The gain errors of the meters that gave joules, which stand beside them in no interval."""
    gains = {each.energy.systematic for each in results if each.energy}
    return [f"gain error of the meter ±{100 * gain:g} %" for gain in sorted(filter(None, gains))]


def ranked(answer: Answer) -> list[Result]:
    """All results of an answer, the best by its first objective first."""
    (metric, direction), *_ = answer.objectives.items()
    sign = 1.0 if direction == "min" else -1.0

    def place(result: Result) -> tuple[bool, float]:
        value = result.value(metric)
        return (value is None, 0.0 if value is None else sign * value)

    return sorted(answer.group.results, key=place)


def levers(rows: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """The choices that differ between the rows, by the shortest names that tell them apart."""
    keys = list(dict.fromkeys(key for result in rows for key in result.chosen))
    last = [key.rpartition(".")[2] for key in keys]
    found = []
    for key, name in zip(keys, last, strict=True):
        cells = [plain(result.config.get(key, result.chosen.get(key))) for result in rows]
        found.append((name if last.count(name) == 1 else key, cells))
    return [column for column in found if len(set(column[1])) > 1] or found


def shown_metrics(answer: Answer) -> list[str]:
    """The objectives, what limits speak of, and in any case energy per token and throughput."""
    wanted = [*answer.objectives, *(limit.metric for limit in answer.limits)]
    wanted += ["energy_per_output_token_j", "output_tokens_per_s"]
    return list(dict.fromkeys(wanted))


def _column(metric: str, answer: Answer, rows: Sequence[Result]) -> tuple[str, list[str]]:
    values = [value for result in rows if (value := result.value(metric)) is not None]
    power = exponent(values, metric)
    title = " ".join(filter(None, [label(metric), bracketed(metric, power)]))
    cells = [cell(result, metric, power, answer) for result in rows]
    kind = doubt(answer.group, metric)
    return f"{title} ({kind})" if kind else title, cells


def missing(records: Iterable[Record]) -> str:
    """What of the nodes was asked for and is not known; empty where there is nothing."""
    said = missing_components(records)
    lines = [line for why in said for line in textwrap.wrap(why, WIDTH, initial_indent="  ")]
    return "\n".join(["not known beside the GPUs:", *lines]) if lines else ""


def doubt(group: Group, metric: str) -> str | None:
    """What a group's numbers of a metric are where no instrument gave them."""
    kind = group.provenance
    simulated = any(result.simulated for result in group.results)
    return kind if kind != "measured" and (is_energy(metric) or simulated) else None


def cell(result: Result, metric: str, power: int, answer: Answer) -> str:
    """A number with its half interval over a power of ten, and the signs of `EXPLAINED`."""
    value = result.value(metric)
    if value is None:
        return UNKNOWN
    text = digits(value, power)
    interval = result.interval(metric)
    if interval is not None:
        text += f" ±{digits((interval[1] - interval[0]) / 2, power, significant=2)}"
    if metric in result.undersampled:
        text += "?"
    beyond = any(
        not judge(result, limit).ok and judge(result, limit).excess
        for limit in answer.limits
        if limit.metric == metric
    )
    return text + ("!" if beyond else "")


def mark(result: Result, study: Study, answer: Answer) -> str:
    """What a result is among the others, in words."""
    places = [place for place, each in enumerate(answer.front) if each is result]
    tied = any(answer.front_ties[place] for place in places)
    beside = any(result is each for ties in answer.front_ties for each in ties)
    marks = [
        ("best", result is answer.best),
        ("tie", any(result is each for each in answer.ties)),
        ("knee", result is answer.knee),
        ("front", bool(places)),
        (TIED, tied),
        (BESIDE, beside and not places),
        (word := quality_mark(study, result), bool(word)),
    ]
    return " ".join(word for word, holds in marks if holds)


def _aligned(
    columns: Sequence[tuple[str, Sequence[str], Callable[[str, int], str]]],
) -> list[str]:
    """Cells under titles that are folded to their columns' width."""
    titles, widths = [], []
    for title, cells, _ in columns:
        longest = max(len(text) for text in (*title.split(), *cells))
        lines = textwrap.wrap(title, max(longest, 8), break_long_words=False)
        titles.append(lines)
        widths.append(max(longest, *(len(line) for line in lines), 0))
    height = max(len(lines) for lines in titles)
    padded = [[""] * (height - len(lines)) + lines for lines in titles]
    rows = [*zip(*padded, strict=True), *zip(*(cells for _, cells, _ in columns), strict=True)]
    texts = [
        "  "
        + "  ".join(
            align(cell, width)
            for cell, width, (_, _, align) in zip(row, widths, columns, strict=True)
        ).rstrip()
        for row in rows
    ]
    rule = "  " + "  ".join("-" * width for width in widths)
    return [*texts[:height], rule.rstrip(), *texts[height:]]


def troubles(records: Iterable[Record]) -> dict[str, dict[str, list[Record]]]:
    """The points without a result, or without energy: by what became of them, then by reason.

    A record stands for each point, the first that gave the reason; the commonest reason is first.
    """
    known = list(records)
    found: dict[str, dict[str, list[Record]]] = {}
    for status, words in _TROUBLE_WORDS.items():
        reasons: dict[str, dict[str, Record]] = {}
        for record in known:
            if record.status == status:
                reason = (record.reason or "no reason given").strip().splitlines()[0]
                reasons.setdefault(reason, {}).setdefault(record.id, record)
        if reasons:
            ordered = sorted(reasons.items(), key=lambda item: (-len(item[1]), item[0]))
            found[words] = {reason: [*points.values()] for reason, points in ordered}
    return found


def _troubles(records: Sequence[Record]) -> str:
    lines = []
    for words, reasons in troubles(records).items():
        lines.append(f"{words}: {len({each.id for found in reasons.values() for each in found})}")
        for reason, found in reasons.items():
            shown = [f"{each.id} ({brief(each.chosen)})" for each in found[:3]]
            more = f" and {len(found) - 3} more" if len(found) > 3 else ""
            lines += textwrap.wrap(f"{len(found)} x {reason}", WIDTH, initial_indent="  ")
            lines.append(f"      {'; '.join(shown)}{more}")
    return "\n".join(lines)
