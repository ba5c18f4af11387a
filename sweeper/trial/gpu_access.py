"""Whether a node's GPUs can be set as a study asks, found out before any of them is held.

Nothing is changed: the way in is tried by setting a limit to what it is.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import chain

from sweeper.errors import MeterError
from sweeper.meters import nvml
from sweeper.meters.inspection import offered
from sweeper.spec import GpuSpec, Settings
from sweeper.trial.gpu_guardian import Held
from sweeper.trial.gpu_settings import UNASKED

WITHOUT = "or leave the gpu keys out of the study"


def faults(asked: Sequence[Settings]) -> list[str]:
    """What stands against setting this node's GPUs so, each reason once; none if nothing is asked.

    The GPUs are those of `CUDA_VISIBLE_DEVICES`, or all.
    """
    real = [each for each in asked if each.engine.kind != "simulated" or each.meter == "nvml"]
    wanted = list(dict.fromkeys(each.gpu for each in real if each.gpu != UNASKED))
    if not wanted:
        return []
    try:
        with nvml.session():
            return list(dict.fromkeys(_of_node(wanted)))
    except MeterError as error:
        return [f"gpu: is set through NVML, which does not answer here ({error}): {WITHOUT}"]


def _of_node(wanted: Sequence[GpuSpec]) -> Iterator[str]:
    rows = nvml.each_gpu(nvml.facts_of)
    known = [{"uuid": ""} if isinstance(row, MeterError) else row for row in rows]
    places = offered(known, os.environ.get("CUDA_VISIBLE_DEVICES"), len(known))
    uuids = [str(known[place]["uuid"]) for place in places if known[place]["uuid"]]
    if not uuids:
        yield f"gpu: is set through NVML, which knows no GPU here: {WITHOUT}"
    for uuid in uuids:
        handle = nvml.handle_of(uuid)
        name = str(nvml.facts_of(handle).get("name", uuid))
        yield from chain.from_iterable(_of_board(handle, name, each) for each in wanted)
        yield from _permission(uuid)


def _of_board(handle: nvml.Handle, name: str, asked: GpuSpec) -> Iterator[str]:
    """Values that the board does not take; what it does not tell is not judged."""
    watts, mhz = asked.power_limit_w, asked.clock_mhz
    if watts is not None:
        try:
            least_w, most_w = nvml.power_range_w(handle)
        except MeterError as error:
            yield f"gpu.power_limit_w: {name} has no limit that could be set ({error}): {WITHOUT}"
        else:
            if not least_w <= watts <= most_w:
                yield f"gpu.power_limit_w: {watts:g} W; {name} takes {least_w:g} to {most_w:g} W"
    clocks = nvml.sm_clocks_mhz(handle) if mhz is not None else ()
    if mhz is not None and clocks and mhz not in clocks:
        near = sorted(sorted(clocks, key=lambda each: abs(each - mhz))[:2])
        yield (
            f"gpu.clock_mhz: {mhz} MHz; {name} takes {clocks[0]} to {clocks[-1]} MHz in steps, "
            f"near it {' and '.join(map(str, near))}"
        )


def _permission(uuid: str) -> Iterator[str]:
    """Both settings are root's; only of the limit can it be tried without a change."""
    try:
        held = Held(uuid, patience_s=0.0)
    except MeterError as error:
        if error.code != "gpu_not_free":
            yield f"gpu: {error}"
        # A GPU that another launch of ours has set can be set.
        return
    try:
        held.restore()
        nvml.set_power_limit(held.handle, nvml.power_limit_w(held.handle))
    except MeterError as error:
        if error.code == "no_permission":
            yield (
                "gpu: this user may not set power limits or clocks (no_permission): run Ray's "
                "nodes as root (in a container with --cap-add SYS_ADMIN), " + WITHOUT
            )
        elif error.code != "not_supported":
            yield f"gpu: {error}"
    finally:
        held.close()
