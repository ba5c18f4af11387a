"""Claims of others beside what the study found, on the page (pure)."""

from collections.abc import Sequence

from sweeper.answers.change_words import basis_text, change_text, gain_text
from sweeper.answers.claim_words import settings_text, under
from sweeper.answers.claims import Judgement
from sweeper.answers.markup import Html, element
from sweeper.answers.page_words import data_table
from sweeper.answers.units import label


def claims_section(found: Sequence[Judgement]) -> Html | None:
    """A row for each claim under each traffic; nothing where the study has no claims."""
    if not found:
        return None
    head = ["claim", "published", "here", "verdict", "why", "source"]
    return element(
        "section",
        element("h2", "Claims of others", id="claims-title"),
        element("p", _READ),
        data_table(
            "Published changes beside those found here", head, [*map(_row, found)], "claims"
        ),
        aria_labelledby="claims-title",
    )


_READ = (
    "A claim agrees where its value lies in the 95 % interval found here, or within the tolerance "
    "that it states; a bound or a range where the whole interval lies in it. Nothing that is "
    "simulated or estimated agrees or differs. Another model, GPU or version than the source's "
    "may explain a difference."
)


def _row(each: Judgement) -> Html:
    claim, change = each.claim, each.change
    said = (
        f"{label(claim.metric)} with {settings_text(claim.when)} against "
        f"{settings_text(claim.against)}{under(each)}"
    )
    slack = f" (±{claim.tolerance_points:g} points)" if claim.tolerance_points else ""
    here = "not known"
    if change is not None:
        parts = (change_text(change), basis_text(change), gain_text(change))
        here = "; ".join(filter(None, parts))
    if each.pairs > 1:
        here += f"; of {each.pairs} pairs the one that decides"
    return element(
        "tr",
        element("th", said, scope="row"),
        element("td", claim.change + slack),
        element("td", here),
        element("td", element("strong", each.verdict)),
        element("td", each.why, class_="prose"),
        element("td", claim.source, class_="prose"),
    )
