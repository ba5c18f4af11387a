"""A diagnosis as text of 100 columns, node by node, nodes that are alike told of once (pure)."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from sweeper.doctor.diagnosis import Diagnosis, NodeDiagnosis
from sweeper.doctor.finding import Ability, Facts, Finding
from sweeper.doctor.gpus import offered

WIDTH = 100
LABEL = 14
GIB = 2**30
WORKS = {True: "yes", False: "no", None: "unknown"}


def text(diagnosis: Diagnosis) -> str:
    """The cluster, every node, and whether a study can run."""
    place = diagnosis.place
    where = f"joined at {place.address}" if place.address else "Ray, started here"
    count = len(diagnosis.nodes)
    lines = [
        *_line("cluster", f"{where}; {count} node{'s' * (count != 1)}"),
        *_line("records", f"MLflow {place.tracking_uri}"),
    ]
    lines += _findings(diagnosis.findings)
    for nodes in alike(diagnosis.nodes):
        lines += ["", *_node(nodes)]
    return "\n".join([*lines, "", *_verdict(diagnosis)])


def alike(nodes: Iterable[NodeDiagnosis]) -> list[list[NodeDiagnosis]]:
    """The nodes in groups that differ in nothing but names and what changes by the minute."""
    groups: dict[str, list[NodeDiagnosis]] = {}
    for node in nodes:
        groups.setdefault(_signature(node), []).append(node)
    return list(groups.values())


def _signature(node: NodeDiagnosis) -> str:
    facts = node.facts
    if facts.get("silence"):
        return str(facts["node_id"])
    shown = ("platform", "versions", "cpu_model", "cpus", "niceness", "bytecode", "offered")
    return repr(
        (
            [facts[name] for name in shown],
            facts["open_files_limit"],
            round(facts["memory_bytes"] / GIB),
            facts["hub"]["cache"],
            facts["nvml"].get("driver"),
            [_kind_of_gpu(gpu) for gpu in offered(facts)],
            (node.used, node.engines, node.meters, node.findings),
        )
    )


def _node(nodes: Sequence[NodeDiagnosis]) -> Iterator[str]:
    """One group; `nodes` are alike."""
    first, facts = nodes[0], nodes[0].facts
    names = ", ".join(f"{node.facts['host']} ({node.facts['node_id'][:8]})" for node in nodes)
    title = f"node {names}" if len(nodes) == 1 else f"{len(nodes)} nodes alike: {names}"
    yield from textwrap.wrap(title, WIDTH, subsequent_indent="  ")
    if not first.used:
        yield "  studies leave it out, since other nodes have GPUs"
    if not facts.get("silence"):
        yield from _facts([node.facts for node in nodes])
        yield from _abilities("engines", first.engines)
        yield from _abilities("meters", first.meters)
    yield from _findings(first.findings)


def _facts(nodes: Sequence[Facts]) -> Iterator[str]:
    facts = nodes[0]
    yield from _line("versions", ", ".join(f"{n} {v}" for n, v in facts["versions"].items()))
    yield from _line("system", facts["platform"])
    limit = facts["open_files_limit"]
    yield from _line(
        "processors",
        f"{facts['cpus']} of {facts['cpu_model'] or 'an unknown model'}, "
        f"{facts['offered']['cpus']:g} offered; nice {facts['niceness']}; "
        f"{'unlimited' if limit is None else limit} open files",
    )
    free = _range((node["memory_free_bytes"] / GIB for node in nodes), "{:.0f}")
    yield from _line("memory", f"{facts['memory_bytes'] / GIB:.0f} GiB, {free} GiB free")
    yield from _line("models", _models(nodes))
    yield from _gpus(nodes)


def _models(nodes: Sequence[Facts]) -> str:
    hub = nodes[0]["hub"]
    disks = [each["hub"]["free_bytes"] / 1e9 for each in nodes if each["hub"]["free_bytes"]]
    return (
        f"{hub['cache']}, {_range(disks, '{:.0f}') if disks else 'unknown'} GB free; "
        f"HF_TOKEN {'yes' if hub['token'] else 'no'}; "
        f"the hub {'is not' if hub['offline'] else 'may be'} asked"
    )


def _gpus(nodes: Sequence[Facts]) -> Iterator[str]:
    shared = [offered(facts) for facts in nodes]
    if not shared[0]:
        yield from _line("GPUs", "none")
        return
    driver = nodes[0]["nvml"]["driver"]
    kinds: dict[str, list[int]] = {}
    for position, gpu in enumerate(shared[0]):
        kinds.setdefault(_kind_of_gpu(gpu), []).append(position)
    label = "GPUs"
    for kind, positions in kinds.items():
        yield from _line(label, f"{len(positions)} x {kind}; driver {driver}")
        label = ""
        if len(nodes) == 1:
            for position in positions:
                yield from _line("", _one_gpu(shared[0][position]), hanging=2)
        else:
            yield from _line("", _many_gpus([gpus[at] for gpus in shared for at in positions]))


def _kind_of_gpu(gpu: Facts) -> str:
    """What GPUs have in common."""

    def switch(name: str) -> str:
        return {True: "on", False: "off", None: "unknown"}[gpu.get(name)]

    memory, limit = gpu.get("memory_total_bytes"), gpu.get("power_limit_w")
    default = gpu.get("power_limit_default_w")
    parts = [
        gpu.get("name", "a GPU that does not answer"),
        memory and f"{memory / GIB:.0f} GiB",
        limit and f"limit {limit:g} W" + (f" of {default:g} W" if default else ""),
        "vbios" in gpu and f"VBIOS {gpu['vbios']}",
        "name" in gpu
        and f"persistence {switch('persistence')}, ECC {switch('ecc')}, MIG {switch('mig')}",
    ]
    return ", ".join(str(part) for part in parts if part)


def _one_gpu(gpu: Facts) -> str:
    return f"{gpu['index']} {gpu.get('uuid', '(no UUID)')}: " + "; ".join(_state_of([gpu]))


def _many_gpus(gpus: Sequence[Facts]) -> str:
    return f"{len(gpus)} in all: " + "; ".join(_state_of(gpus))


def _state_of(gpus: Sequence[Facts]) -> Iterator[str]:
    heat = [gpu["temperature_c"] for gpu in gpus if "temperature_c" in gpu]
    if heat:
        yield f"{_range(heat, '{:.0f}')} °C"
    pids = [str(pid) for gpu in gpus for pid in gpu.get("compute_pids", ())]
    if pids:
        yield f"computed on by process {', '.join(pids)}"
    counters = [gpu["counter"] for gpu in gpus]
    works = [counter for counter in counters if counter["works"]]
    for counter in counters:
        if not counter["works"]:
            yield f"{counter['reason']}: {counter['detail']}"
    if works:
        period = _range((counter["period_s"] * 1e3 for counter in works), "{:.0f}")
        yield f"{works[0]['scope']} counter ticks every {period} ms"
        ratios = [counter["ratio"] for counter in works if "ratio" in counter]
        if ratios:
            yield f"{_range(ratios, '{:.3f}')} of the {works[0]['power_method']} power"


def _abilities(label: str, abilities: Sequence[Ability]) -> Iterator[str]:
    width = max(len(ability.name) for ability in abilities)
    for ability in abilities:
        note = f": {ability.note}" if ability.note else ""
        yield from _line(
            label,
            f"{ability.name:<{width}}  {WORKS[ability.works]}{note}",
            hanging=width + 2,
        )
        label = ""


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    label = None
    for finding in findings:
        shown = finding.kind if finding.kind != label else ""
        label = finding.kind
        yield from _line(shown, finding.what)
        yield from _line("", f"-> {finding.way_out}", hanging=3)


def _verdict(diagnosis: Diagnosis) -> list[str]:
    if not diagnosis.ok:
        said = "A study cannot run on every node: see the lines marked fault."
    elif diagnosis.estimated:
        said = "A study can run on every node. Its joules would be ESTIMATES, NOT MEASUREMENTS."
    else:
        said = "A study can run on every node, measured by the GPUs' counters."
    return textwrap.wrap(said, WIDTH)


def _line(label: str, said: str, hanging: int = 0) -> list[str]:
    """A line, or as many as it takes; the label stands before the first."""
    return textwrap.wrap(
        said,
        WIDTH,
        initial_indent=f"  {label:<{LABEL - 2}}",
        subsequent_indent=" " * (LABEL + hanging),
        break_on_hyphens=False,
    )


def _range(values: Iterable[float], form: str) -> str:
    """One number, or the least and the most of several."""
    shown = form.format
    known = sorted(values)
    low, high = shown(known[0]), shown(known[-1])
    return low if low == high else f"{low} to {high}"
