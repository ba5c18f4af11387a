"""The windows that were discarded, and the answer with them included, on the page (pure)."""

from collections.abc import Sequence

from sweeper.answers.best import Answer, answers, target_of
from sweeper.answers.discards import Effect, discards, effects, with_discards
from sweeper.answers.markup import Html, element
from sweeper.answers.page_cost import windows_of
from sweeper.answers.page_words import badge, data_table, figure_of, heading_of, title_of
from sweeper.results.contents import Contents
from sweeper.results.reasons import REASONS
from sweeper.spec import Study


def discards_section(study: Study, contents: Contents, found: Sequence[Answer]) -> Html:
    """Discarded windows by reason, each with its remedy, and what they would change."""
    counted = discards(windows_of(contents))
    if not counted.windows:
        parts: list[Html] = [element("p", "Every window has energy: none was discarded.")]
    else:
        rows = [
            element(
                "tr",
                element("th", element("code", code), scope="row"),
                element("td", str(count), class_="number"),
                element("td", _meaning(code), class_="prose"),
                element("td", _remedy(code), class_="prose"),
            )
            for code, count in counted.codes.items()
        ]
        of = len(windows_of(contents))
        said = (
            f"{counted.windows} of {of} windows gave no energy. A window with several reasons "
            f"counts under each. In {counted.usable} of them the readings still tell joules, "
            "which are in no number above."
        )
        head = ["reason", "windows", "what it means", "what to do"]
        parts = [
            element("p", said),
            data_table("Discarded windows", head, rows, "discarded", (1,)),
            _included(study, contents, found) if counted.usable else _NOTHING_TO_INCLUDE,
        ]
    return element(
        "section",
        element("h2", "Windows that were discarded", id="discards-title"),
        parts,
        aria_labelledby="discards-title",
    )


_NOTHING_TO_INCLUDE = element("p", "None of them can be included: there are no joules to count.")


def _included(study: Study, contents: Contents, found: Sequence[Answer]) -> Html:
    again = answers(with_discards(contents.standing()), study)
    judged = effects(found, again)
    rows = [
        _row(each, heading_of(answer.group, again if each.included else found), answer)
        for each in judged
        if (answer := each.included or each.without)
    ]
    return data_table(
        "The answer if the windows that still tell joules counted",
        ["condition", "recommended", "with the discards", "front"],
        rows,
        "with-discards",
    )


def _row(effect: Effect, heading: str, answer: Answer) -> Html:
    return element(
        "tr",
        element("th", heading, " ", badge(answer.group.provenance), scope="row"),
        element("td", _best(effect.without)),
        element("td", _best(effect.included) if effect.best_changes else _same(effect)),
        element("td", _front(effect), class_="prose"),
    )


def _best(answer: Answer | None) -> str:
    if answer is None or answer.best is None:
        return "nothing"
    target = target_of(answer.objectives, answer.limits)
    return f"{title_of(answer.best)}: {figure_of(answer.best, target, answer.group)}"


def _same(effect: Effect) -> str:
    return (
        "the same, nothing"
        if _best(effect.included) == "nothing"
        else (f"the same: {_best(effect.included)}")
    )


def _front(effect: Effect) -> str:
    if not effect.front_changes:
        return "the same points"
    before, after = (_titles(each) for each in (effect.without, effect.included))
    joined = [title for name, title in after.items() if name not in before]
    left = [title for name, title in before.items() if name not in after]
    said = [("joined by", joined), ("without", left)]
    return "; ".join(f"{word} {' and '.join(titles)}" for word, titles in said if titles)


def _titles(answer: Answer | None) -> dict[str, str]:
    return {each.id: title_of(each) for each in answer.front} if answer else {}


def _meaning(code: str) -> str:
    return REASONS[code].meaning if code in REASONS else "not known to this version"


def _remedy(code: str) -> str:
    return REASONS[code].remedy if code in REASONS else ""
