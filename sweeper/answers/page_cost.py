"""What could not be measured and why, and what the study itself cost, on the page (pure)."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import zip_longest
from typing import Any

from sweeper.answers.beside import missing_components
from sweeper.answers.markup import Html, element
from sweeper.answers.page_words import TIMES, badge, data_table, named
from sweeper.answers.results import Provenance, settled
from sweeper.answers.summary import held_gpu_seconds, launches
from sweeper.answers.table import troubles
from sweeper.answers.units import digits, quantity
from sweeper.results.contents import Contents
from sweeper.results.record import Energy, Record

SHOWN = 5
"""Points named for each reason; the others are counted."""


def troubles_section(contents: Contents) -> Html:
    """The points without a result or without energy, by reason."""
    records = contents.standing()
    rows = []
    for words, reasons in troubles(settled(records)).items():
        for reason, found in reasons.items():
            names = [f"{each.id} ({named(each.chosen) or 'no choices'})" for each in found[:SHOWN]]
            more = [f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else []
            rows.append(
                element(
                    "tr",
                    element("th", words, scope="row"),
                    element("td", str(len(found)), class_="number"),
                    element("td", reason, class_="prose"),
                    element("td", "; ".join([*names, *more]), class_="prose"),
                )
            )
    parts: list[Html] = []
    if rows:
        head = ["what became of it", "points", "why", "which"]
        parts.append(
            data_table("Points without a result, or without energy", head, rows, "why", (1,))
        )
    else:
        parts.append(element("p", "Every point has a result with energy."))
    if lacking := missing_components(settled(records)):
        parts.append(element("p", f"Not known beside the GPUs: {'; '.join(lacking)}."))
    if contents.deaths:
        died = Counter(_first_line(line.get("reason")) for line in contents.deaths)
        said = "; ".join(f"{count} {TIMES} {reason}" for reason, count in _ordered(died))
        parts.append(element("p", f"Launches that died and were tried again or given up: {said}."))
    return element(
        "section",
        element("h2", "What could not be measured, and why", id="troubles-title"),
        parts,
        aria_labelledby="troubles-title",
    )


def cost_section(contents: Contents) -> Html:
    """GPU-hours, joules of the windows, launches and hours of the study itself."""
    records = contents.standing()
    held_s = held_gpu_seconds(contents)
    every = contents.records or records
    rows = [
        _row("GPUs held", f"{_hours(held_s)} GPU-hours"),
        *_blocks(contents),
        *_lease_joules(contents),
        *_joules(contents),
        _row("windows", f"{len(windows_of(contents))}"),
        _row("launches (engine starts)", f"{launches(every)}"),
        _row("sittings", f"{max(1, len(contents.sittings))}"),
        _row("wall time", f"{_hours(wall_s(contents))} hours, from each start to its last record"),
    ]
    return element(
        "section",
        element("h2", "What the study itself cost", id="cost-title"),
        data_table("Cost of the study", ["what", "how much"], rows, "cost"),
        element(
            "p",
            "Joules of whole leases are those of the devices that launches ran on, from before "
            "loading to the end: "
            "loading, warming up and waiting between windows are in them, and so are the windows. "
            "A launch that died tells none.",
            class_="notes",
        ),
        aria_labelledby="cost-title",
    )


def _blocks(contents: Contents) -> list[Html]:
    """A row for the leases that compared finalists, where there were any."""
    blocks = {line["trial_id"] for line in contents.trials if line.get("stage") == "final"}
    leases = [line for line in contents.ended if line["trial_id"] in blocks]
    if not leases:
        return []
    held_s = math.fsum(line.get("gpu_seconds") or 0.0 for line in leases)
    of = "lease" if len(leases) == 1 else "leases"
    said = f"{_hours(held_s)} GPU-hours in {len(leases)} {of}"
    return [_row("of these, blocks of finalists", said)]


def wall_s(contents: Contents) -> float:
    """Seconds of the real clock in which a driver was at work, from each start to a last record."""
    starts = sorted(moment for line in contents.sittings if (moment := _moment(line, "started_at")))
    ends = sorted(datetime.fromisoformat(record.ended_at) for record in contents.records)
    if not starts:
        starts = sorted(datetime.fromisoformat(each.started_at) for each in contents.records)[:1]
    spans = []
    for start, following in zip_longest(starts, starts[1:]):
        inside = [end for end in ends if end >= start and (following is None or end < following)]
        if inside:
            spans.append((inside[-1] - start).total_seconds())
    return math.fsum(spans)


def _lease_joules(contents: Contents) -> list[Html]:
    """A row for each origin of the joules of whole leases, and one for leases that tell none."""
    sums: dict[tuple[Provenance, str], list[float]] = {}
    silent = 0
    for lease in contents.ended:
        told, of = lease.get("energy_j"), lease.get("energy")
        if told is None or of is None:
            silent += 1
            continue
        simulated = of["source"] == "simulated"
        provenance: Provenance = (
            "simulation" if simulated else "measured" if of["measured"] else "estimate"
        )
        sums.setdefault((provenance, f"{of['source']} ({of['scope']})"), []).append(float(told))
    rows = _sums(sums, "energy of whole leases", "lease")
    if silent:
        rows.append(_row("leases whose energy is not known", f"{silent}"))
    return rows


def _joules(contents: Contents) -> list[Html]:
    """A row for each origin of joules: they are never added to each other."""
    sums: dict[tuple[Provenance, str], list[float]] = {}
    for energy, window in _metered(contents):
        if window.get("energy_j") is None:
            continue
        sums.setdefault(_origin(energy, contents.records), []).append(float(window["energy_j"]))
    return _sums(sums, "energy of the windows", "window") or [
        _row("energy of the windows", "not known")
    ]


def _sums(
    sums: Mapping[tuple[Provenance, str], Sequence[float]], what: str, each: str
) -> list[Html]:
    rows = []
    for (provenance, source), joules in sorted(sums.items()):
        total = math.fsum(joules)
        text = f"{quantity(total, 'energy_j')} ({digits(total / 3.6e6)} kWh)"
        of = each if len(joules) == 1 else f"{each}s"
        said = f" ({provenance}, not measured)" if provenance != "measured" else ""
        rows.append(_row(f"{what}, by {source}", f"{text} in {len(joules)} {of}{said}", provenance))
    return rows


def _metered(contents: Contents) -> Iterable[tuple[Energy | None, Mapping[str, Any]]]:
    by_point: dict[str, Energy] = {
        record.id: record.energy for record in contents.records if record.energy is not None
    }
    only = next(iter(by_point.values()), None) if len(set(by_point.values())) == 1 else None
    for window in windows_of(contents):
        yield by_point.get(window["id"], only), window


def windows_of(contents: Contents) -> Sequence[Mapping[str, Any]]:
    """Every window that closed, also those of launches that died later."""
    if contents.windows:
        return contents.windows
    return [
        {"id": record.id, "energy_j": window.energy_j, "reasons": window.reasons}
        for record in contents.records
        for window in record.windows
    ]


def _origin(energy: Energy | None, records: Sequence[Record]) -> tuple[Provenance, str]:
    simulated = any(record.config.get("engine.kind") == "simulated" for record in records)
    if energy is None:
        return ("simulation" if simulated else "measured"), "an unknown meter"
    source = f"{energy.source} ({energy.scope})"
    if simulated or energy.source == "simulated":
        return "simulation", source
    return ("measured" if energy.measured else "estimate"), source


def _ordered(counted: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counted.items(), key=lambda item: (-item[1], item[0]))


def _first_line(reason: object) -> str:
    text = str(reason or "").strip()
    return text.splitlines()[0] if text else "no reason given"


def _row(what: str, how_much: str, provenance: Provenance = "measured") -> Html:
    return element(
        "tr",
        element("th", what, " ", badge(provenance), scope="row", class_="wrap"),
        element("td", how_much),
    )


def _hours(seconds: float) -> str:
    return digits(seconds / 3600, significant=3)


def _moment(line: Mapping[str, Any], key: str) -> datetime | None:
    text = line.get(key)
    return datetime.fromisoformat(text) if isinstance(text, str) else None
