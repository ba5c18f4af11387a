"""Savings against the baseline, and the price of the limits, on the page (pure)."""

from collections.abc import Sequence

from sweeper.answers.best import Answer, target_of
from sweeper.answers.change import MIN_BLOCKS, Adjustment, Change
from sweeper.answers.change_words import basis_text, change_text, claim_text, percent
from sweeper.answers.limit_price import LimitPrice, Step, limit_prices
from sweeper.answers.markup import Html, element, join
from sweeper.answers.page_words import (
    badge,
    column,
    data_table,
    folded_table,
    limit_text,
    named,
    title_of,
)
from sweeper.answers.savings import Saving
from sweeper.answers.table import doubt
from sweeper.answers.units import digits, exponent, label, quantity
from sweeper.spec import Study


def savings_section(answer: Answer, study: Study, name: str) -> Html | None:
    """A row for each result that differs from the baseline in its axes alone."""
    if not study.baseline:
        return None
    group = answer.group
    target = target_of(answer.objectives, answer.limits)
    metrics = sorted(answer.objectives, key=lambda metric: metric != target)
    against = named(study.baseline)
    heading = element("h3", f"Against the baseline, {against}", " ", badge(group.provenance))
    shown = [saving for saving in answer.savings if saving.changes]
    if not shown:
        why = "no result has the baseline's choices with all other axes equal"
        return element("div", heading, element("p", f"There are no comparisons: {why}."))
    head: list[object] = ["point"]
    for metric in metrics:
        said = badge(doubt(group, metric))
        head += [
            join(f"{label(metric)}, change ", said),
            join("ratio ", said),
            join("what may be claimed ", said),
        ]
    head.append("against")
    bases = {_basis(saving) for saving in shown}
    if len(bases) > 1:
        head.append("how")
    first_seen = {id(each) for each in (answer.best, *answer.front)}
    rows = [
        (
            element(
                "tr",
                element("th", title_of(saving.result), scope="row"),
                [_cells(saving, metric) for metric in metrics],
                element(
                    "td", element("a", saving.baseline.id, href=f"#{name}-{saving.baseline.id}")
                ),
                element("td", _basis(saving), class_="prose") if len(bases) > 1 else None,
                class_="best" if saving.result is answer.best else None,
            ),
            id(saving.result) in first_seen,
        )
        for saving in shown
    ]
    notes = "All other axes are equal; a negative change is less than the baseline."
    if len(bases) == 1:
        notes += f" How they were compared: {bases.pop()}."
    notes = " ".join([notes, *_notes([c for each in shown for c in each.changes.values()])])
    return element(
        "div",
        heading,
        folded_table(
            "Change from the result that differs in nothing else",
            head,
            rows,
            f"{name}-savings",
            [1 + 3 * place + cell for place in range(len(metrics)) for cell in (0, 1)],
        ),
        element("p", notes, class_="notes"),
    )


def _notes(changes: Sequence[Change]) -> list[str]:
    """What a reader must know of these changes, and of no others."""
    intervals = [each for each in changes if each.low is not None]
    notes = []
    if not intervals:
        notes.append("One launch on a side gives no interval: nothing is said of the uncertainty.")
    else:
        notes.append("In brackets the 95 % interval of the change, over launches.")
    if any(not each.paired for each in intervals):
        notes.append(
            "Unpaired: the two sides come from different leases, and the interval carries the "
            "variance between boards as far as launches on several of them show it."
        )
    if claims := _families(changes, "Holm"):
        notes.append(
            f"Significant or not is said of pairs in at least {MIN_BLOCKS} blocks, which hold all "
            f"together: p is adjusted by Holm over {claims}, and significant is at most 0.05."
        )
    if screened := _families(changes, "Benjamini-Hochberg"):
        notes.append(
            f"Screening, by Benjamini-Hochberg over {screened}, says where to look and claims "
            f"nothing: a claim needs {MIN_BLOCKS} blocks on the same GPUs "
            "(measure.finalists.blocks)."
        )
    notes += [
        f"±{100 * gain:g} % is the gain error of the boards on each side. It is the same in every "
        "launch on a board: it cancels on the same GPUs alone, and stands beside a ratio where too "
        "few boards were used to show it."
        for gain in sorted({each.systematic for each in changes if each.systematic is not None})
    ]
    return notes


def _families(changes: Sequence[Change], adjustment: Adjustment) -> str:
    """Over how many comparisons each p was adjusted; empty where none was."""
    sizes = sorted({each.family for each in changes if each.adjustment == adjustment})
    if not sizes:
        return ""
    named = " or ".join(map(str, sizes))
    return f"{named} comparison{'s' * (sizes != [1])} of a metric"


def _basis(saving: Saving) -> str:
    """How the first of its changes was measured; another that differs says so itself."""
    return basis_text(next(iter(saving.changes.values())))


def _cells(saving: Saving, metric: str) -> Html:
    change = saving.changes.get(metric)
    if change is None:
        return join([element("td", "not known", class_="number")] * 2, element("td", ""))
    differs = basis_text(change) != _basis(saving)
    text = change_text(change) + (f" ({basis_text(change)})" if differs else "")
    return join(
        element("td", text, class_="number"),
        element("td", digits(change.ratio), class_="number"),
        element("td", claim_text(change), class_="prose"),
    )


def price_section(answer: Answer, study: Study, name: str) -> Html | None:
    """What each limit costs, as the recommendations that it passes through."""
    prices = limit_prices(answer, study)
    if not prices:
        return None
    parts = [
        _price(price, answer, f"{name}-price{index}") for index, price in enumerate(prices, start=1)
    ]
    return element(
        "div",
        element("h3", "The price of the limits", " ", badge(answer.group.provenance)),
        parts,
    )


def _price(price: LimitPrice, answer: Answer, name: str) -> Html:
    group = answer.group
    if not price.steps:
        return element(
            "p", f"{limit_text(price.limit)}: no result could be recommended, whatever its value."
        )
    power = exponent([step.value for step in price.steps], price.target)
    sign = "≤" if price.limit.upper else "≥"
    head: list[object] = [
        f"{label(price.limit.metric)} {sign}",
        "best",
        column(price.target, power, group),
        join("change ", badge(doubt(group, price.target))),
        "the limit stands",
    ]
    rows = [
        element(
            "tr",
            element("th", quantity(step.bound, price.limit.metric), scope="row"),
            element("td", title_of(step.best), class_="title"),
            element("td", digits(step.value, power), class_="number"),
            element("td", _against_now(step, price), class_="number"),
            element("td", "here" if index == price.now else ""),
            class_="best" if index == price.now else None,
        )
        for index, step in enumerate(price.steps)
    ]
    return join(
        element("p", _sentence(price, answer)),
        data_table(
            f"Best as the limit on {label(price.limit.metric)} moves, the others kept",
            head,
            rows,
            name,
            (2, 3),
        ),
    )


def _against_now(step: Step, price: LimitPrice) -> str:
    if price.now is None:
        return ""
    now = price.steps[price.now].value
    return percent(100 * (step.value / now - 1)) if now else ""


def _sentence(price: LimitPrice, answer: Answer) -> str:
    """What the next step would save."""
    limit = limit_text(price.limit)
    if not price.relaxed:
        return f"{limit}: relaxing it alone saves nothing."
    step = price.relaxed[0]
    kind = doubt(answer.group, price.target)
    value = quantity(step.value, price.target) + (f" ({kind})" if kind else "")
    bound = quantity(step.bound, price.limit.metric)
    if price.now is None:
        lead = f"{limit}: nothing meets it together with the others; at {bound} the best is"
        return f"{lead} {title_of(step.best)}, with {value}."
    lead = f"{limit}: relaxing it alone to {bound} makes {title_of(step.best)} the best"
    return f"{lead}, with {value}, a change of {_against_now(step, price)}."
