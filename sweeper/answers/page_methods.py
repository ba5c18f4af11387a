"""Where a study ran and how its numbers were made, on the page (pure)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sweeper.answers.beside import component_metrics
from sweeper.answers.best import Answer
from sweeper.answers.change import MIN_BLOCKS
from sweeper.answers.markup import Html, element, join
from sweeper.answers.page_drift import drift_part
from sweeper.answers.page_words import TIMES, data_table
from sweeper.answers.table import shown_metrics
from sweeper.answers.units import label, unit
from sweeper.results.addresses import without_credentials
from sweeper.results.contents import Contents
from sweeper.results.metrics import METRICS, MIN_TAIL
from sweeper.results.record import Record
from sweeper.spec import Study
from sweeper.trial.environment import changes

CONVENTIONS: Mapping[str, str] = {
    "steady": (
        "steady: from all slots filled to the start of the drain, starts staggered so that prefill "
        "and decode are mixed as the workload mixes them; a window whose ratio of input to output "
        "tokens is more than 2 % off the workload's gives no energy"
    ),
    "whole": (
        "whole: from the first submission to the last token, whole batches, so that everything "
        "submitted is finished inside"
    ),
}
METHODS: Mapping[str, str] = {
    "counter": "the difference of two readings of a cumulative hardware counter",
    "counter log": "the difference of two moments of a counter that another instrument logged",
    "power log": "the integral, sample to sample, of a power that another instrument logged",
    "estimate": "an estimate from a model of power, without hardware counters",
    "model": "what the simulated engine's model says its devices used",
}


def environment_section(contents: Contents) -> Html:
    """Versions, GPUs, hosts, and what changed between the sittings."""
    records = contents.standing()
    versions = _versions(records, contents)
    hosts = _hosts(records)
    parts: list[Html | None] = []
    if hosts:
        rows = [
            element(
                "tr",
                element("th", host, scope="row"),
                [
                    element("td", ", ".join(values) or "not known", class_="prose")
                    for values in said
                ],
            )
            for host, said in hosts.items()
        ]
        head = ["host", "GPUs", "GPU driver", "processor", "system"]
        parts.append(data_table("Hosts", head, rows, "hosts"))
    if versions:
        rows = [
            element("tr", element("th", name, scope="row"), element("td", ", ".join(numbers)))
            for name, numbers in versions.items()
        ]
        parts.append(data_table("Versions", ["package", "version"], rows, "versions"))
    parts += [drift_part(contents), _sittings(contents)]
    return element(
        "section",
        element("h2", "Environment", id="environment-title"),
        parts,
        aria_labelledby="environment-title",
    )


def methods_section(contents: Contents, study: Study, answers: Sequence[Answer]) -> Html:
    """Windows, statistics, what each meter covers, and the definitions of the metrics."""
    records = contents.standing()
    measure = study.settings.measure
    conventions = sorted({record.convention for record in records})
    windows = [
        *(CONVENTIONS.get(each, each) for each in conventions),
        (
            f"at least {measure.min_window_s:g} s a window, {measure.repeats} windows a point and "
            f"launch, {measure.launches} launch{'es' * (measure.launches != 1)} of each "
            "configuration; points are shuffled in every pass"
        ),
        *_finalists(study),
        (
            f"warm-up of {measure.warmup.min_batches} to {measure.warmup.max_batches} batches, "
            "until the rate is steady; nothing of it is counted"
        ),
        "results of different conventions never share a front",
    ]
    statistics = [
        "a launch's metrics are ratios of sums over its windows; percentiles are of all samples",
        (
            "a result is the mean over launches; its interval is the 95 % interval of that mean by "
            "Student's t with launches - 1 degrees of freedom; one launch gives no interval"
        ),
        f"a percentile with fewer than {MIN_TAIL} samples beyond it is marked: too few samples",
        (
            "changes against the baseline are ratios of geometric means, their intervals and p by "
            "Student's t on logarithms: paired, of one ratio for each block (a lease that holds "
            "both sides, on the same GPUs), else unpaired by Welch's approximation"
        ),
        (
            f"significance is claimed of pairs in at least {MIN_BLOCKS} blocks alone, with p "
            "adjusted by Holm over the comparisons of a condition and metric; whatever else has a "
            "p screens, adjusted by Benjamini-Hochberg, and is no claim"
        ),
        (
            "the gain error of boards cancels in a ratio where both sides ran on the same GPUs, "
            "and is in its interval where each side ran on several; else it stands beside the ratio"
        ),
        "results whose intervals overlap in every objective are tied, whatever their order here",
        (
            "a limit is met when the worse end of the interval meets it, with one launch by "
            "value; best is the least of the first objective among the results that meet every "
            "limit; ties, whose intervals overlap, go to fewer GPUs"
        ),
        "a reading that failed gives no number: unknown is never zero",
    ]
    return element(
        "section",
        element("h2", "Methods", id="methods-title"),
        element("h3", "Windows"),
        element("ul", [element("li", each) for each in windows]),
        element("h3", "Energy"),
        element("ul", [element("li", each) for each in _meters(records)]),
        element("h3", "Statistics"),
        element("ul", [element("li", each) for each in statistics]),
        _definitions(answers),
        _study_text(contents),
        aria_labelledby="methods-title",
    )


def _finalists(study: Study) -> list[str]:
    """A sentence on the blocks, where there are any."""
    asked = study.settings.measure.finalists
    if not asked.blocks:
        return []
    return [
        (
            f"of each condition the {asked.count} best, and what their savings are stated "
            f"against, are launched again in {asked.blocks} blocks: each block is one lease that "
            "launches all of them on the first GPUs it holds, in an order of chance that puts "
            "each of them at every place equally often; a block that was cut is measured again as "
            "a whole, and finalists are judged by their blocks alone"
        )
    ]


def _meters(records: Iterable[Record]) -> list[str]:
    """A sentence for each meter that gave joules."""
    found: dict[str, None] = {}
    for record in records:
        energy = record.energy
        if energy is None:
            continue
        method = METHODS.get(energy.method, energy.method)
        kind = "measured" if energy.measured else "NOT MEASURED"
        gain = (
            f"; gain error ±{100 * energy.systematic:g} %, which stands beside absolute joules and "
            "is in no interval"
            if energy.systematic
            else "; its systematic error is not known"
        )
        said = (
            f"{energy.source}: {method}, of the {energy.scope}, gross (idle power included); {kind}"
        )
        found[said + gain] = None
    return sorted(found) or ["no meter gave joules"]


def _definitions(answers: Sequence[Answer]) -> Html:
    shown = [metric for each in answers for metric in shown_metrics(each)]
    shown += [metric for each in answers for metric in component_metrics(each)]
    metrics = list(dict.fromkeys(shown))
    rows = [
        element(
            "tr",
            element("th", label(metric), scope="row"),
            element("td", element("code", metric)),
            element("td", unit(metric)),
            element("td", METRICS.get(metric, "not defined"), class_="prose"),
        )
        for metric in metrics
    ]
    head = ["metric", "name in files", "unit", "definition"]
    return join(
        element("h3", "Definitions"),
        data_table("What the metrics of this page mean", head, rows, "metrics"),
    )


def _study_text(contents: Contents) -> Html | None:
    """The study file as resolved, so that the page alone says what was asked."""
    if not contents.studies:
        return None
    text = without_credentials(str(contents.studies[-1]["text"]))
    return element(
        "details",
        element("summary", "The study file, as resolved"),
        element(
            "pre",
            element("code", text.strip()),
            tabindex=0,
            role="group",
            aria_label="The study file, as resolved",
        ),
    )


def _versions(records: Iterable[Record], contents: Contents) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {}
    environments = [
        *(line.get("environment") or {} for line in contents.sittings),
        *(record.environment for record in records),
    ]
    for environment in environments:
        for name, number in (environment.get("versions") or {}).items():
            found.setdefault(str(name), {})[str(number)] = None
    return {name: [*numbers] for name, numbers in found.items()}


def _hosts(records: Iterable[Record]) -> dict[str, tuple[list[str], ...]]:
    """GPUs, drivers, processors and systems by host."""
    found: dict[str, tuple[dict[str, str], set[str], set[str], set[str]]] = {}
    for record in records:
        environment = record.environment
        gpus, drivers, processors, systems = found.setdefault(
            str(environment.get("host", "not known")), ({}, set(), set(), set())
        )
        devices = environment.get("devices") or {}
        for gpu in devices.get("gpus") or ():
            gpus[str(gpu.get("uuid"))] = str(gpu.get("name") or "of unknown type")
        _add(drivers, devices.get("driver"))
        _add(processors, environment.get("cpu_model") or devices.get("cpu_model"))
        _add(systems, environment.get("platform"))
    return {
        host: (_counted(gpus), sorted(drivers), sorted(processors), sorted(systems))
        for host, (gpus, drivers, processors, systems) in sorted(found.items())
    }


def _counted(gpus: Mapping[str, str]) -> list[str]:
    names = sorted(gpus.values())
    return [f"{names.count(name)} {TIMES} {name}" for name in dict.fromkeys(names)] or ["none used"]


def _add(found: set[str], value: Any) -> None:
    if value:
        found.add(str(value))


def _sittings(contents: Contents) -> Html:
    """When a driver worked, and what of the environment changed since the sitting before."""
    if not contents.sittings:
        return element("p", "When the study was worked on was not written down.")
    items = []
    before: Mapping[str, Any] | None = None
    for line in contents.sittings:
        environment = line.get("environment") or {}
        said = (
            f"{_when(line.get('started_at'))}, fingerprint {line.get('fingerprint', 'not known')}"
        )
        if before is not None:
            changed = changes(before, environment)
            said += f"; changed: {'; '.join(changed)}" if changed else "; nothing changed"
        items.append(element("li", said))
        before = environment
    return join(
        element("h3", "Sittings"),
        element(
            "p",
            "A fingerprint is of packages, driver, GPU model and model revision. The study was "
            f"worked on {len(items)} time{'s' * (len(items) != 1)}:",
        ),
        element("ol", items),
    )


def _when(text: object) -> str:
    return f"{str(text)[:16].replace('T', ' ')} UTC" if text else "at an unknown time"
