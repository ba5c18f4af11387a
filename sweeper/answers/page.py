"""One self-contained HTML page of a study, made from its journal alone (pure but for `save`).

It loads nothing: style and script stand in it, and its content security policy forbids the rest.
The same journal gives the same page.
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from sweeper.answers.best import Answer, target_of
from sweeper.answers.change_words import basis_text, change_text, gain_text, verdict_text
from sweeper.answers.claims import judged
from sweeper.answers.markup import Html, element, join
from sweeper.answers.page_answer import answer_section
from sweeper.answers.page_claims import claims_section
from sweeper.answers.page_cost import cost_section, troubles_section
from sweeper.answers.page_discards import discards_section
from sweeper.answers.page_methods import environment_section, methods_section
from sweeper.answers.page_words import (
    BANNERS,
    TIMES,
    badge,
    data_table,
    figure_of,
    heading_of,
    named,
    title_of,
)
from sweeper.answers.results import Provenance
from sweeper.answers.summary import counts, launches
from sweeper.answers.table import doubt, plain
from sweeper.answers.units import label
from sweeper.results.contents import Contents
from sweeper.results.files import write_whole, writing
from sweeper.spec import Study

FILE, FIGURES = "report.html", "figures"
_HERE = Path(__file__).parent
_SEVERITY: Sequence[Provenance] = ("simulation", "estimate")


def save(text: str, figures: Mapping[str, bytes], folder: Path) -> Path:
    """Write the page of a study and its plots into its folder; where the page is.

    Raises:
        PlaceError: the folder cannot be written.
    """
    path = folder / FILE
    with writing(folder):
        write_whole(path, text.encode())
        for name, data in figures.items():
            write_whole(folder / FIGURES / name, data)
    return path


def page(study: Study, contents: Contents, found: Sequence[Answer]) -> str:
    """The page as text."""
    kinds = doubts(found)
    sections = [answer_section(each, found, study) for each in found]
    if not sections:
        sections = [element("section", element("h2", "No results"), element("p", _NOTHING))]
    script = _read("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    caveat = "".join(f" ({kind.upper()}, NOT MEASURED)" for kind in kinds)
    return Template(_read("page.html")).substitute(
        title=join(f"{study.name}: latency against energy{caveat}"),
        style=_read("plot.css") + _read("page.css"),
        script=script,
        script_hash=f"sha256-{digest}",
        banner=join([_banner(kind, found) for kind in kinds]),
        header=_header(study, contents, found),
        sections=join(sections),
        claims=join([claims_section(judged(study, contents.standing()))]),
        troubles=troubles_section(contents),
        discards=discards_section(study, contents, found),
        cost=cost_section(contents),
        environment=environment_section(contents),
        methods=methods_section(contents, study, found),
        footer=_footer(contents),
    )


def doubts(found: Sequence[Answer]) -> list[Provenance]:
    """What numbers of the answers are where no instrument gave them, the gravest first."""
    kinds = {each.group.provenance for each in found if each.group.results}
    return [kind for kind in _SEVERITY if kind in kinds]


_NO_PARTNER = "the baseline has no result here"
_NOTHING = "Nothing was measured: no point has a result."


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _banner(kind: Provenance, found: Sequence[Answer]) -> Html:
    only = all(each.group.provenance == kind for each in found if each.group.results)
    where = "" if only else " It concerns the parts of the page that carry the same word."
    return element(
        "div",
        element("strong", f"{kind.upper()}, NOT MEASURED"),
        element("p", BANNERS[kind] + where),
        class_="banner",
        role="note",
    )


def _header(study: Study, contents: Contents, found: Sequence[Answer]) -> Html:
    facts = [
        ("when", _dates(contents)),
        ("model", _model(study, contents)),
        ("engine", ", ".join(_values(contents, "engine.kind")) or "not known"),
        ("traffic", _traffic(study, contents)),
        ("on", _hardware(contents)),
        ("extent", _extent(contents)),
    ]
    return join(
        element("h1", study.name),
        element("p", _question(study), class_="question"),
        element("dl", [element("div", element("dt", k), element("dd", v)) for k, v in facts]),
        _glance(study, found),
        _elsewhere(claims=bool(study.expect)),
    )


def _elsewhere(*, claims: bool) -> Html:
    """Links to what stands behind the conditions."""
    links = {
        **({"claims": "claims of others"} if claims else {}),
        "troubles": "what could not be measured",
        "discards": "windows that were discarded",
        "cost": "what the study cost",
        "environment": "environment",
        "methods": "methods",
    }
    items = [
        element("li", element("a", text, href=f"#{name}-title")) for name, text in links.items()
    ]
    return element("nav", "Also here: ", element("ul", items), aria_label="On this page")


def _question(study: Study) -> str:
    """What the study asks, in a sentence."""
    axes = [f"{axis.label.rpartition('.')[2]} ({len(axis.choices)})" for axis in study.axes]
    (first, direction), *others = study.objectives.items()
    word = "least" if direction == "min" else "most"
    said = f"Which {f' {TIMES} '.join(axes)} gives" if axes else "What gives"
    said += f" the {word} {label(first)}"
    if study.limits:
        bounds = [f"{label(metric)}" for metric in study.limits]
        said += f" within the limits on {' and '.join(bounds)}"
    if others:
        said += f", and at what {' and '.join(label(metric) for metric, _ in others)}"
    return f"{said}?"


def _glance(study: Study, found: Sequence[Answer]) -> Html | None:
    """A row for each condition: what to take, what it costs and what it saves."""
    shown = [each for each in found if each.group.results]
    if not shown:
        return None
    rows = []
    for number, answer in enumerate(found, start=1):
        if not answer.group.results:
            continue
        target = target_of(answer.objectives, answer.limits)
        metrics = [target, *(each for each in answer.objectives if each != target)]
        best = answer.best
        saving = _NO_PARTNER if study.baseline else "no baseline is set"
        if best is not None:
            for each in answer.savings:
                if each.result is best and target in each.changes:
                    change = each.changes[target]
                    said = [basis_text(change), verdict_text(change), gain_text(change)]
                    saving = f"{change_text(change)} ({'; '.join(filter(None, said))})"
            if saving == _NO_PARTNER and _is_baseline(study, best.config):
                saving = "is the baseline"
        numbers = [figure_of(best, metric, answer.group) if best else "none" for metric in metrics]
        heading = element("a", heading_of(answer.group, found), href=f"#c{number}")
        rows.append(
            element(
                "tr",
                element("th", heading, " ", badge(answer.group.provenance), scope="row"),
                element("td", title_of(best) if best else "nothing meets the limits"),
                [element("td", each) for each in numbers],
                element("td", saving),
            )
        )
    answer = shown[0]
    target = target_of(answer.objectives, answer.limits)
    metrics = [target, *(each for each in answer.objectives if each != target)]
    against = f"{label(target)} against {named(study.baseline) or 'a baseline'}"

    def heads(metric: str) -> list[Html | None]:
        kinds = dict.fromkeys(doubt(each.group, metric) for each in shown)
        return [badge(kind) for kind in kinds]

    head = [
        "condition",
        "recommended",
        *(join(label(metric), " ", heads(metric)) for metric in metrics),
        join(against, " ", heads(target)),
    ]
    return data_table("The answer in short", head, rows, "glance")


def _is_baseline(study: Study, config: object) -> bool:
    return isinstance(config, dict) and all(
        config.get(key) == value for key, value in study.baseline.items()
    )


def _dates(contents: Contents) -> str:
    moments = sorted(
        [record.started_at for record in contents.records]
        + [record.ended_at for record in contents.records]
    )
    if not moments:
        return "no record yet"
    first, last = (f"{each[:10]} {each[11:16]}" for each in (moments[0], moments[-1]))
    return f"{first} to {last[11:] if last[:10] == first[:10] else last} UTC"


def _model(study: Study, contents: Contents) -> str:
    names = _values(contents, "model.id") or _values(contents, "model.shape")
    model = study.settings.model
    name = ", ".join(names) or model.id or model.shape or "not known"
    weights = ", ".join(_values(contents, "model.weights")) or model.weights
    return name if weights == "auto" else f"{name} (weights: {weights})"


def _traffic(study: Study, contents: Contents) -> str:
    """What is the same for all points; what differs is a condition or an axis."""
    workload = study.settings.workload
    said = []
    for key, name in (
        ("workload.input_tokens", "input tokens"),
        ("workload.output_tokens", "output tokens"),
    ):
        values = _values(contents, key) or [str(getattr(workload, key.rpartition(".")[2]))]
        said.append(f"{' or '.join(values)} {name}")
    batching = " or ".join(_values(contents, "workload.batching")) or workload.batching
    arrival = " or ".join(_values(contents, "workload.arrival")) or str(workload.arrival["kind"])
    return f"{', '.join(said)}; {batching} batching, {arrival} arrivals"


def _values(contents: Contents, key: str) -> list[str]:
    """The values of a setting over all records, as text; unset ones left out."""
    found = {
        plain(value)
        for record in contents.standing()
        if (value := record.config.get(key)) is not None
    }
    return sorted(found, key=lambda text: (len(text), text))


def _hardware(contents: Contents) -> str:
    boards: dict[str, str] = {}
    processors = set()
    for record in contents.standing():
        devices = record.environment.get("devices") or {}
        for gpu in devices.get("gpus") or ():
            boards[str(gpu.get("uuid"))] = str(gpu.get("name") or "GPU")
        if record.environment.get("cpu_model"):
            processors.add(str(record.environment["cpu_model"]))
    if _values(contents, "engine.kind") == ["simulated"]:
        return "no hardware: the engine is simulated"
    names = sorted(boards.values())
    if names:
        return ", ".join(f"{names.count(name)} {TIMES} {name}" for name in dict.fromkeys(names))
    return ", ".join(sorted(processors)) or "not known"


def _extent(contents: Contents) -> str:
    records = contents.standing()
    counted = counts(records)
    words = {
        "ok": "with results",
        "energy_invalid": "without energy",
        "wrong_setting": "not what was asked",
        "infeasible": "infeasible",
        "failed": "failed",
    }
    said = [f"{counted[status]} {word}" for status, word in words.items() if counted[status]]  # type: ignore[index]
    points = f"{sum(counted.values())} points ({', '.join(said)})"
    starts = launches(contents.records or records)
    return f"{points}, {starts} launch{'es' * (starts != 1)}"


def _footer(contents: Contents) -> Html:
    versions = sorted(
        {
            str(record.environment.get("versions", {}).get("sweeper", ""))
            for record in contents.records
        }
        - {""}
    )
    made = f"Made by sweeper {', '.join(versions)}".strip()
    journal = f" from journal {contents.journal}" if contents.journal else ""
    torn = math.fsum([contents.torn_bytes])
    lost = f"; {torn:.0f} bytes of a line cut short were not read" if torn else ""
    return element("p", f"{made}{journal}{lost}. This page loads nothing from any network.")
