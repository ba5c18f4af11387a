"""What could be measured on this node: each GPU's counter tried for a few seconds, RAPL, estimates.

Everything is plain data. What does not work has `works: false` with a reason code and a detail.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from sweeper.clocks import RealClock
from sweeper.errors import MeterError
from sweeper.meters import nvml
from sweeper.meters.comparison import COMPARED_S, compare
from sweeper.meters.powercap import POWERCAP, zones

KFD = Path("/dev/kfd")
"""What AMD's driver shows where there is a GPU to compute on."""


def refusal(error: MeterError) -> dict[str, Any]:
    """An error as plain data."""
    return {
        "works": False,
        "reason": error.code,
        "detail": str(error).removeprefix(f"{error.code}: "),
    }


def nvml_of_node(
    visible: str | None, count: int, seconds: float = COMPARED_S
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Whether NVML works on this node, and its GPUs with what their counters are worth.

    `visible` is the `CUDA_VISIBLE_DEVICES` that Ray was started with here, of which it hands out
    the first `count`: those are `offered`, and only they are tried, all at once.
    """
    try:
        with nvml.session():
            answers = nvml.each_gpu(_facts)
            rows = [
                {
                    "index": index,
                    **({"counter": refusal(row)} if isinstance(row, MeterError) else row),
                }
                for index, row in enumerate(answers)
            ]
            chosen = offered(rows, visible, count)
            for position, row in enumerate(rows):
                row["offered"] = position in chosen
            tried = [rows[position] for position in chosen if "counter" not in rows[position]]
            with ThreadPoolExecutor(max(len(tried), 1)) as threads:
                counters = list(threads.map(partial(counter, seconds=seconds), tried))
            for row, found in zip(tried, counters, strict=True):
                row["counter"] = found
    except MeterError as error:
        return refusal(error), []
    return {"works": True, "driver": nvml.driver_version()}, rows


def _facts(handle: nvml.Handle) -> dict[str, Any]:
    return {**nvml.facts_of(handle), **nvml.state_of(handle)}


def offered(rows: Sequence[Mapping[str, Any]], visible: str | None, count: int) -> list[int]:
    """The positions of the GPUs that Ray hands out, in NVML's order.

    CUDA takes indices, UUIDs and how those begin, and stops at a name that it does not know.
    """
    if visible is None:
        return list(range(len(rows)))[:count]
    found: list[int] = []
    for name in filter(None, (word.strip() for word in visible.split(","))):
        places = [
            position
            for position, row in enumerate(rows)
            if name == str(row.get("index"))
            or (not name.isdigit() and str(row.get("uuid", "")).startswith(name))
        ]
        if len(places) != 1:
            break
        found += places
    return sorted(found[:count])


def counter(gpu: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What one GPU's energy counter is worth (see `comparison.Comparison`), or why there is none.

    `ratio` is absent where the counter covers a whole module, which the power does not.
    """
    uuid = str(gpu.get("uuid"))
    try:
        handle = nvml.handle_of(uuid)
        method = nvml.power_method(handle)
        found = compare(
            {uuid: partial(nvml.energy_j, uuid, handle)},
            {uuid: nvml.power_reader(handle)},
            RealClock(),
            seconds,
        )[uuid]
    except MeterError as error:
        return refusal(error)
    module = any(part in str(gpu.get("name", "")) for part in nvml.MODULE_NAMES)
    return {
        "works": True,
        "scope": "module" if module else "gpu",
        "period_s": found.period_s,
        "duration_s": found.duration_s,
        "counter_j": found.counter_j,
        "power_j": found.power_j,
        "power_method": method,
    } | ({} if module or found.ratio is None else {"ratio": found.ratio})


def rapl_zones(powercap: Path = POWERCAP) -> list[dict[str, Any]]:
    """The processors' energy counters that the kernel shows, and whether they can be read here.

    `counted` are those that make up the energy of processors and memory; the others are in them.
    """
    rows: list[dict[str, Any]] = []
    for zone in zones(powercap):
        row = {
            "zone": zone.folder.name,
            "name": zone.name,
            "counted": zone.component in {"cpu", "dram"},
        }
        try:
            zone.raw_uj()
        except MeterError as error:
            rows.append({**row, "readable": False, "reason": error.code})
        else:
            rows.append({**row, "readable": True})
    return rows


def amd_of_node(kfd: Path = KFD) -> dict[str, Any]:
    """Whether AMD's library tells energy here, of how many GPUs.

    `present` is whether the kernel has a device for AMD's GPUs at all.
    """
    from sweeper.meters import amd

    try:
        with amd.session() as library, amd.explained("the list of GPUs"):
            handles = library.amdsmi_get_processor_handles()
            joules = [_counted(amd.energy_j, handle) for handle in handles]
    except MeterError as error:
        return {"present": kfd.exists(), **refusal(error)}
    working = sum(each is None for each in joules)
    reasons = sorted({each for each in joules if each is not None})
    return {
        "present": kfd.exists(),
        "works": True,
        "gpus": len(handles),
        "counters": working,
        "reasons": reasons,
    }


def _counted(energy_j: Callable[[str, Any], float], handle: Any) -> str | None:
    """`None` for a counter that can be read, else the reason code."""
    try:
        energy_j("a GPU", handle)
    except MeterError as error:
        return error.code
    return None


def estimate() -> dict[str, Any]:
    """Whether CodeCarbon tells joules of this machine's processor and memory."""
    try:
        from sweeper.meters.codecarbon import CodeCarbonMeter

        meter = CodeCarbonMeter((), RealClock())
        try:
            facts = meter.open()
            meter.read()
        finally:
            meter.close()
    except MeterError as error:
        return refusal(error)
    except Exception as error:  # Whatever CodeCarbon raises on a machine that it does not know.
        return refusal(MeterError("estimate_failed", f"{type(error).__name__}: {error}"))
    return {"works": True, "cpu_model": facts["cpu_model"]}
