"""How far each GPU drifted within its launches, on the page (pure)."""

from collections.abc import Sequence

from sweeper.answers.change_words import percent
from sweeper.answers.drift import Drift, drifts
from sweeper.answers.markup import Html, element, join
from sweeper.answers.page_words import badge, data_table
from sweeper.results.contents import Contents

HEAD = [
    *("GPU", "controls"),
    *("energy per token, median", "energy per token, furthest"),
    *("TPOT, median", "TPOT, furthest"),
]


def drift_part(contents: Contents) -> Html | None:
    """A table of the controls of each GPU; nothing where no launch had one."""
    records = contents.standing()
    rows = []
    for each in drifts(records):
        energy, tpot = each.ratios.get("energy_drift_ratio"), each.ratios.get("tpot_drift_ratio")
        name = " ".join(filter(None, (each.host, each.name, each.gpu)))
        controls = max(found.controls for found in each.ratios.values())
        cells = [str(controls), *_cells(energy), *_cells(tpot)]
        rows.append(
            element(
                "tr",
                element("th", name, scope="row", class_="wrap"),
                [element("td", cell, class_="number") for cell in cells],
            )
        )
    if not rows:
        return None
    simulated = any(record.config.get("engine.kind") == "simulated" for record in records)
    return join(
        element("h3", "Drift"),
        element(
            "p",
            "The point that a launch measures first is its control, which it visits once more at "
            "the end: here is the last window against the first. That visit is in no mean. Joules "
            "of a launch on several GPUs are of all of them together. ",
            badge("simulation") if simulated else None,
        ),
        data_table("Drift of each GPU within its launches", HEAD, rows, "drift", range(1, 6)),
    )


def _cells(found: Drift | None) -> Sequence[str]:
    if found is None:
        return "not known", "not known"
    return percent(100 * (found.median - 1)), percent(100 * (found.extreme - 1))
