"""One condition on the page: its plot, the recommendation, all its results (pure)."""

from collections.abc import Sequence

from sweeper.answers.beside import component_metrics
from sweeper.answers.best import Answer, target_of
from sweeper.answers.markup import Html, element, join
from sweeper.answers.page_plot import plots
from sweeper.answers.page_savings import price_section, savings_section
from sweeper.answers.page_words import (
    badge,
    breakable,
    column,
    figure_of,
    folded_table,
    heading_of,
    limit_text,
    misses,
    sentence,
    title_of,
)
from sweeper.answers.panel import axes_of, place_of
from sweeper.answers.results import Result
from sweeper.answers.table import (
    EXPLAINED,
    TIED_WORDS,
    UNKNOWN,
    cell,
    gains_of,
    levers,
    mark,
    ranked,
    shown_metrics,
)
from sweeper.answers.units import CAVEAT, exponent, label
from sweeper.spec import Study


def answer_section(answer: Answer, answers: Sequence[Answer], study: Study) -> Html:
    """Everything that a study says of one group of comparable results."""
    name = f"c{_place_among(answer, answers) + 1}"
    group = answer.group
    heading = element(
        "h2", heading_of(group, answers), " ", badge(group.provenance), id=f"{name}-title"
    )
    if not group.results:
        return element(
            "section",
            heading,
            element("p", sentence(answer.why), class_="why"),
            aria_labelledby=f"{name}-title",
        )
    return element(
        "section",
        heading,
        element("p", _facts(answer), class_="facts"),
        recommendation(answer, name),
        _figure(answer, name),
        savings_section(answer, study, name),
        price_section(answer, study, name),
        results_table(answer, study, name),
        id=name,
        aria_labelledby=f"{name}-title",
    )


def _place_among(answer: Answer, answers: Sequence[Answer]) -> int:
    return next(index for index, each in enumerate(answers) if each is answer)


def _facts(answer: Answer) -> str:
    group = answer.group
    count = len(group.results)
    facts = [f"{count} result{'s' * (count != 1)}", f"{group.convention} windows"]
    if group.source is not None:
        of = f" (scope: {group.scope})" if group.scope else ""
        gain = "".join(f", {each}" for each in gains_of(group.results))
        facts.append(f"energy by {group.source}{of}{gain}")
    if answer.limits:
        facts.append("limits: " + " and ".join(limit_text(limit) for limit in answer.limits))
    if CAVEAT[group.provenance]:
        facts.append(CAVEAT[group.provenance])
    return "; ".join(facts)


def recommendation(answer: Answer, name: str) -> Html:
    """The best with its numbers, reasons, ties and launch command; else the nearest miss."""
    best = answer.best
    if best is None:
        return _nothing(answer)
    metrics = list(dict.fromkeys([*answer.objectives, *(each.metric for each in answer.limits)]))
    target = target_of(answer.objectives, answer.limits)
    metrics.sort(key=lambda metric: metric != target)
    ties = [
        element(
            "li", _link(each, name), f": {figure_of(each, target, answer.group)}, {_gpus(each)}"
        )
        for each in answer.ties
    ]
    return element(
        "div",
        element("h3", "Recommended: ", _link(best, name)),
        element("dl", [_number(best, metric, answer) for metric in metrics], class_="numbers"),
        element("p", sentence(answer.why), class_="why"),
        join(element("p", "Tied with it:"), element("ul", ties)) if ties else None,
        _launching(best, name),
        class_="card",
    )


def _nothing(answer: Answer) -> Html:
    miss = answer.nearest_miss
    near = None
    if miss is not None:
        metrics = list(
            dict.fromkeys([*answer.objectives, *(each.metric for each in answer.limits)])
        )
        near = join(
            element(
                "p",
                "Nearest miss: ",
                element("strong", title_of(miss.result)),
                f" ({miss.result.id})",
            ),
            element(
                "dl", [_number(miss.result, metric, answer) for metric in metrics], class_="numbers"
            ),
        )
    return element(
        "div",
        element("h3", "Nothing is recommended"),
        element("p", sentence(answer.why), class_="why"),
        near,
        class_="card none",
    )


def _number(result: Result, metric: str, answer: Answer) -> Html:
    return element(
        "div",
        element("dt", label(metric)),
        element("dd", figure_of(result, metric, answer.group)),
    )


def _launching(best: Result, name: str) -> Html | None:
    command = (best.launch_command or "").strip()
    if not command:
        return None
    lines = command.count("\n") + 1
    code = element(
        "pre",
        element("code", command, id=f"{name}-command"),
        tabindex=0,
        role="group",
        aria_label="Launch command" if lines == 1 else "Launch script",
    )
    if lines == 1:
        return element("div", element("h4", "Launch it"), code, class_="command line")
    return element(
        "details",
        element("summary", f"The script that launches it ({lines} lines)"),
        element("div", code, class_="command"),
    )


def _link(result: Result, name: str) -> Html:
    return element("a", title_of(result), href=f"#{name}-{result.id}")


def _gpus(result: Result) -> str:
    return f"{result.gpus} GPU{'s' * (result.gpus != 1)}"


def _figure(answer: Answer, name: str) -> Html:
    drawn = plots(answer, name, f"{name}-figure")
    metrics = axes_of(answer)
    if drawn is None or metrics is None:
        missing = " and ".join(label(metric) for metric in answer.objectives)
        return element("p", f"No plot: no result has {missing}.")
    x, y = metrics
    hidden = [each for each in answer.group.results if place_of(each, x, y) is None]
    caveat = CAVEAT[answer.group.provenance]
    words = [f"{label(y)[0].upper()}{label(y)[1:]} against {label(x)}"]
    words += [f" ({caveat})"] if caveat else []
    text = "Each mark is one result; the thin line joins results that differ in one choice only."
    if any(each.launches > 1 for each in answer.group.results):
        text += " Bars are 95 % intervals over launches."
    else:
        text += " One launch each: there are no intervals."
    if hidden:
        text += f" Not drawn, for want of a metric: {len(hidden)}."
    return element(
        "figure",
        element(
            "figcaption",
            element("h3", words, id=f"{name}-figure"),
            element("p", text),
            element(
                "p",
                "Point at a mark, or tab to the plot and press the arrow keys, for its numbers.",
                class_="hint",
            ),
        ),
        drawn,
    )


def results_table(answer: Answer, study: Study, name: str) -> Html:
    """All results of an answer, the best first."""
    rows = ranked(answer)
    group = answer.group
    keys = levers(rows)
    metrics = list(dict.fromkeys([*shown_metrics(answer), *component_metrics(answer)]))
    powers = {
        metric: exponent([v for each in rows if (v := each.value(metric)) is not None], metric)
        for metric in metrics
    }
    head: list[object] = [
        "point",
        *(breakable(key) for key, _ in keys),
        *(column(metric, powers[metric], group) for metric in metrics),
        "GPUs",
        "launches",
        "what it is",
    ]
    body: list[tuple[Html, bool]] = []
    signs = ""
    first_seen = {id(each) for each in (answer.best, *answer.ties, *answer.front)}
    for index, result in enumerate(rows):
        cells = [cell(result, metric, powers[metric], answer) for metric in metrics]
        signs += "".join(cells)
        row = element(
            "tr",
            element("th", result.id, scope="row"),
            [element("td", column_cells[index]) for _, column_cells in keys],
            [element("td", _spoken(each), class_="number") for each in cells],
            element("td", str(result.gpus), class_="number"),
            element("td", str(result.launches), class_="number"),
            element("td", _what(result, study, answer), class_="roles"),
            id=f"{name}-{result.id}",
            class_="best" if result is answer.best else None,
        )
        body.append((row, id(result) in first_seen))
    notes = [text for sign, text in EXPLAINED.items() if sign in signs]
    notes += [TIED_WORDS] if any(answer.front_ties) else []
    notes += [f"{each}, not in the intervals" for each in gains_of(rows)]
    caption = f"By {label(next(iter(answer.objectives)))}, the best first"
    if CAVEAT[group.provenance]:
        caption += f" ({CAVEAT[group.provenance]})"
    first = 1 + len(keys)
    numbers = range(first, first + len(metrics) + 2)
    return element(
        "div",
        element("h3", "All results", " ", badge(group.provenance)),
        folded_table(caption, head, body, f"{name}-results", numbers),
        element("p", "; ".join(notes), ".", class_="notes") if notes else None,
    )


def _what(result: Result, study: Study, answer: Answer) -> Html:
    beyond = [f"{label(limit.metric)}{why}" for limit, why in misses(result, answer).items()]
    words = mark(result, study, answer)
    ties = [
        each.id
        for shown, tied in zip(answer.front, answer.front_ties, strict=True)
        for each in tied
        if shown is result
    ]
    words += f" with {', '.join(ties)}" if ties else ""
    return join(
        element("strong", words) if result is answer.best else words,
        element("span", f"{'; ' if words else ''}misses {', '.join(beyond)}") if beyond else None,
    )


def _spoken(text: str) -> str:
    return "not known" if text == UNKNOWN else text
