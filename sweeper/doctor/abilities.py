"""Which engines run on a node, and which meters work there, with what is missing (pure)."""

from collections.abc import Iterator

from sweeper.doctor.finding import Ability, Facts, Finding
from sweeper.doctor.gpus import measured, nvml_way
from sweeper.engines import CPU_EXTRAS, EXTRAS
from sweeper.spec import EngineKind

LOCKED = "install the exact versions of environments/{} anew"


def engine(kind: EngineKind, facts: Facts) -> tuple[Ability, list[Finding]]:
    """Whether an engine runs on a node, and the way there."""
    found, gpus = facts["engines"][kind], facts["offered"]["gpus"]
    extra = (EXTRAS if gpus else CPU_EXTRAS)[kind]
    if found["missing"]:
        why, way = f"{' and '.join(found['missing'])} not installed", f"pip install '{extra}'"
    elif found["needs_gpu"] and not gpus:
        why = "this build runs on GPUs only"
        way = f"a node with GPUs, or on x86-64 processors pip install '{extra}'"
    elif found["loads"] is None:
        said = "installed; it did not load in the time it was given"
        again = "type the same command again: a first load is slow, and so is a busy machine"
        return Ability(name=kind, works=None, note=said), [
            Finding(kind="advice", what=f"{kind}: {said}", way_out=again)
        ]
    elif not found["loads"]:
        why = f"does not load: {found['said']}"
        way = LOCKED.format("gpu.txt" if gpus else "cpu.txt")
    elif found.get("gpus", gpus) < gpus:
        torch = facts["versions"].get("torch", "")
        why = f"torch {torch} computes on {found['gpus']} of {gpus} GPUs"
        way = f"{LOCKED.format('gpu.txt')}: torch for a CUDA that the driver knows"
    else:
        return Ability(name=kind, works=True, note=""), []
    finding = Finding(kind="missing", what=f"{kind} cannot run: {why}", way_out=way)
    return Ability(name=kind, works=False, note=why), [finding]


def meters(facts: Facts) -> tuple[list[Ability], list[Finding]]:
    """Which counters, logs and estimates work on a node, and the way there.

    What is wrong with single GPUs is said by `gpus.gpu_findings`.
    """
    found = (_nvml(facts), _amd(facts), _rapl(facts), _REPLAY, _codecarbon(facts))
    return [ability for ability, _ in found], [each for _, some in found for each in some]


def _nvml(facts: Facts) -> tuple[Ability, list[Finding]]:
    gpus, working = facts["offered"]["gpus"], measured(facts)
    if gpus:
        note = f"counters of {working} of {gpus} GPUs"
        return Ability(name="nvml", works=working == gpus, note=note), []
    nvml = facts["nvml"]
    why = "no GPU" if nvml["works"] else f"no GPU, and NVML says {nvml['reason']}"
    way = "measure on a node with NVIDIA GPUs of Volta or later"
    if not nvml["works"]:
        way += f"; if there is one here, {nvml_way(facts)}"
    finding = Finding(kind="missing", what=f"no counter of a GPU: {why}", way_out=way)
    return Ability(name="nvml", works=False, note=why), [finding]


def _amd(facts: Facts) -> tuple[Ability, list[Finding]]:
    found = facts["amd"]
    if not (found["present"] or found.get("gpus")):
        return Ability(name="amd", works=False, note="no GPU of AMD's"), []
    if not found["works"]:
        why = f"amdsmi says {found['reason']}: {found['detail']}"
        way = (
            "install ROCm, and the package of the same release: pip install /opt/rocm/share/amd_smi"
        )
    elif found["counters"] == found["gpus"] > 0:
        note = f"counters of {found['gpus']} GPUs; with meter: amd"
        return Ability(name="amd", works=True, note=note), []
    else:
        lost = found["gpus"] - found["counters"]
        why = f"{lost} of {found['gpus']} GPUs tell no energy: {', '.join(found['reasons'])}"
        way = "see amd-smi metric --energy; virtual machines have no such counter"
    finding = Finding(kind="missing", what=f"no counter of AMD's GPUs: {why}", way_out=way)
    return Ability(name="amd", works=False, note=why), [finding]


_REPLAY: tuple[Ability, list[Finding]] = (
    Ability(name="replay", works=None, note="reads the log that a study names (replay.file)"),
    [],
)


def _rapl(facts: Facts) -> tuple[Ability, list[Finding]]:
    zones = [zone for zone in facts["rapl"] if zone["counted"]]
    names = ", ".join(zone["name"] for zone in zones if zone["readable"])
    if names:
        gpus = facts["offered"]["gpus"]
        used = "beside GPUs with resources.exclusive_node: true" if gpus else "with meter: rapl"
        return Ability(name="rapl", works=True, note=f"{names}; {used}"), []
    if zones:
        why = "this user cannot read /sys/class/powercap"
        way = "sudo chmod a+r /sys/class/powercap/intel-rapl*:*/energy_uj, after every boot"
    else:
        why = "no /sys/class/powercap/intel-rapl:*"
        way = "sudo modprobe intel_rapl_msr on the machine itself; virtual machines have none"
    finding = Finding(
        kind="missing", what=f"no counter of the processors: {why}", way_out=f"{way} (RAPL)"
    )
    return Ability(name="rapl", works=False, note=why), [finding]


def _codecarbon(facts: Facts) -> tuple[Ability, list[Finding]]:
    found = facts["estimate"]
    if found is None:
        return Ability(name="codecarbon", works=False, note="leaves out GPUs, so not used here"), []
    if found["works"]:
        note = "processor and memory; an ESTIMATE, NOT A MEASUREMENT"
        return Ability(name="codecarbon", works=True, note=note), []
    why = f"{found['reason']}: {found['detail']}"
    finding = Finding(
        kind="fault",
        what=f"CodeCarbon estimates nothing: {why}",
        way_out=LOCKED.format("base.txt"),
    )
    return Ability(name="codecarbon", works=False, note=why), [finding]


def engines(facts: Facts) -> tuple[list[Ability], list[Finding]]:
    """All engines that need libraries, and whether there is one that runs."""
    found = [engine(kind, facts) for kind in EXTRAS]
    abilities = [ability for ability, _ in found]
    findings = [each for _, some in found for each in some]
    return abilities, [*_none(abilities), *findings]


def _none(abilities: list[Ability]) -> Iterator[Finding]:
    if all(ability.works is False for ability in abilities):
        names = " nor ".join(ability.name for ability in abilities)
        yield Finding(
            kind="fault",
            what=f"no engine runs here, neither {names}",
            way_out="get one of them, as said below",
        )
