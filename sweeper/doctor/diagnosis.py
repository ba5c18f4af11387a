"""From the facts of a cluster to what its nodes can measure and run, and what is missing (pure)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sweeper.doctor.abilities import engines, meters
from sweeper.doctor.finding import Ability, Facts, Finding, FindingKind
from sweeper.doctor.gpus import gpu_findings

KINDS: tuple[FindingKind, ...] = ("fault", "missing", "advice")
OPEN_FILES = 4096
"""An engine's sockets and Ray's connections come to hundreds; many systems allow 1024."""
CACHE_BYTES = 20e9
"""Weights of 8 billion parameters in 16 bits, and some room."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """What belongs to the cluster as a whole, and to the machine that the command is typed on.

    `unequal` are lines about versions that differ between nodes, `unwritable` the reasons why a
    study's records could not be kept; `tracking_uri` is without credentials.
    """

    address: str | None
    unequal: tuple[str, ...]
    unwritable: tuple[str, ...]
    tracking_uri: str


@dataclass(frozen=True, kw_only=True)
class NodeDiagnosis:
    """One node. `used` says whether studies use it: nodes without GPUs are left beside others."""

    facts: Facts
    used: bool
    engines: tuple[Ability, ...]
    meters: tuple[Ability, ...]
    findings: tuple[Finding, ...]

    @property
    def usable(self) -> bool:
        """Whether some engine and some meter work there, and nothing stands against it."""
        return not any(finding.kind == "fault" for finding in self.findings)

    @property
    def estimated(self) -> bool:
        """Whether the joules of a study there are an estimate."""
        return not self.facts.get("silence") and not self.facts["offered"]["gpus"]


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A whole cluster."""

    place: Place
    findings: tuple[Finding, ...]
    nodes: tuple[NodeDiagnosis, ...]

    @property
    def ok(self) -> bool:
        """Whether a study can run on every node that studies use."""
        used = [node for node in self.nodes if node.used]
        faults = any(finding.kind == "fault" for finding in self.findings)
        return bool(used) and not faults and all(node.usable for node in used)

    @property
    def estimated(self) -> bool:
        """Whether joules would be estimates on some of those nodes."""
        return any(node.estimated for node in self.nodes if node.used)

    def as_object(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "ok": self.ok,
            "estimated": self.estimated,
            "cluster": asdict(self.place),
            "findings": [asdict(finding) for finding in self.findings],
            "nodes": [
                {
                    "host": node.facts["host"],
                    "node_id": node.facts["node_id"],
                    "used": node.used,
                    "usable": node.usable,
                    "engines": {each.name: _ability(each) for each in node.engines},
                    "meters": {each.name: _ability(each) for each in node.meters},
                    "findings": [asdict(finding) for finding in node.findings],
                    "facts": node.facts,
                }
                for node in self.nodes
            ],
        }


def diagnose(place: Place, nodes: Sequence[Facts]) -> Diagnosis:
    """What the facts of a cluster mean."""
    equipped = any(facts["offered"]["gpus"] for facts in nodes)
    return Diagnosis(
        place=place,
        findings=tuple(_of_cluster(place, nodes)),
        nodes=tuple(
            _of_node(facts, used=bool(facts["offered"]["gpus"]) or not equipped) for facts in nodes
        ),
    )


def _of_cluster(place: Place, nodes: Sequence[Facts]) -> Iterator[Finding]:
    if not nodes:
        yield Finding(
            kind="fault",
            what="no node has a CPU or a GPU to offer",
            way_out="start one: ray start --address=HOST:PORT, with --num-cpus and --num-gpus",
        )
    for line in place.unequal:
        yield Finding(
            kind="fault",
            what=f"the nodes differ in {line}",
            way_out="install the same versions on all nodes, from one file of environments/",
        )
    for reason in place.unwritable:
        yield Finding(
            kind="fault", what="a study's records cannot be kept from here", way_out=reason
        )
    drivers = sorted({str(facts["nvml"]["driver"]) for facts in nodes if _has_driver(facts)})
    if len(drivers) > 1:
        yield Finding(
            kind="advice",
            what=f"the nodes have several drivers: {', '.join(drivers)}",
            way_out="install one driver on all nodes: it changes speed and power",
        )
    types = sorted({facts["gpu_type"] for facts in nodes if facts["gpu_type"]})
    if len(types) > 1:
        yield Finding(
            kind="advice",
            what=f"there are several types of GPU: {', '.join(types)}",
            way_out=f"name the one to measure in each study: resources.accelerator={types[0]}",
        )


def _has_driver(facts: Facts) -> bool:
    return bool(facts.get("nvml", {}).get("driver"))


def _of_node(facts: Facts, used: bool) -> NodeDiagnosis:
    if facts.get("silence"):
        silent = Finding(
            kind="fault",
            what=f"cannot be asked: {facts['silence']}",
            way_out="see `ray status`; start Ray there anew: ray stop, ray start --address=..",
        )
        return NodeDiagnosis(facts=facts, used=used, engines=(), meters=(), findings=(silent,))
    running, of_engines = engines(facts)
    measuring, of_meters = meters(facts)
    findings = [*gpu_findings(facts), *of_engines, *of_meters, *_surroundings(facts)]
    return NodeDiagnosis(
        facts=facts,
        used=used,
        engines=tuple(running),
        meters=tuple(measuring),
        findings=tuple(sorted(findings, key=lambda finding: KINDS.index(finding.kind))),
    )


def _surroundings(facts: Facts) -> Iterator[Finding]:
    if facts["niceness"] > 0:
        yield Finding(
            kind="advice",
            what=f"Ray's workers, and the engines that they start, run at nice {facts['niceness']}",
            way_out="start Ray on every node with it set: RAY_worker_niceness=0 ray start ..",
        )
    if not facts["bytecode"]:
        yield Finding(
            kind="advice",
            what="PYTHONDONTWRITEBYTECODE is set: workers and engines take twice as long to start",
            way_out="unset PYTHONDONTWRITEBYTECODE where Ray is started",
        )
    limit = facts["open_files_limit"]
    if limit is not None and limit < OPEN_FILES:
        yield Finding(
            kind="advice",
            what=f"a process may open {limit} files only",
            way_out="ulimit -n 65536 where Ray is started",
        )
    yield from _hub(facts["hub"])


def _hub(hub: Mapping[str, Any]) -> Iterator[Finding]:
    if not hub["writable"]:
        yield Finding(
            kind="missing",
            what=f"no model can be downloaded: {hub['cache']} cannot be written",
            way_out="set HF_HOME to a folder that can be, where Ray is started",
        )
    elif hub["free_bytes"] is not None and hub["free_bytes"] < CACHE_BYTES:
        yield Finding(
            kind="advice",
            what=f"{hub['free_bytes'] / 1e9:.0f} GB are free for models in {hub['cache']}; "
            "8 billion parameters take 16 GB",
            way_out="free some, or set HF_HOME to a folder on a larger disk, where Ray is started",
        )
    if not hub["token"]:
        yield Finding(
            kind="missing",
            what="no HF_TOKEN: models behind a licence cannot be downloaded",
            way_out="set HF_TOKEN where Ray is started, or hf auth login there",
        )
    if hub["offline"]:
        yield Finding(
            kind="missing",
            what=f"{' and '.join(hub['offline'])} set: only models that are in the cache",
            way_out=f"unset {' '.join(hub['offline'])} where Ray is started, or get models first: "
            "hf download ID",
        )


def _ability(ability: Ability) -> dict[str, Any]:
    return {"works": ability.works, "note": ability.note}
