"""Before a launch: are its GPUs really free, and sound?"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeper.engines import Clock
from sweeper.errors import MeterError
from sweeper.meters import Meter
from sweeper.results.record import Check

FREE_SHARE = 0.05
"""Memory in use, relative to the device's, that a free GPU may show (its driver's own)."""
OCCUPANCY = ("compute_pids", "memory_used_bytes", "memory_total_bytes")
PATIENCE_S = 60.0
"""A killed engine's memory comes back within seconds; what stays longer belongs to somebody."""


def wait_until_free(meter: Meter, clock: Clock) -> Sequence[Check]:
    """Wait until no process computes on the devices and their memory is free.

    Devices that tell of neither are not waited for, and leave no check. Memory errors that could
    not be corrected are no reason to wait: a check says of them.

    Raises:
        MeterError: still taken after `PATIENCE_S`, code `gpu_not_free`.
    """
    deadline_s = clock.now() + PATIENCE_S
    while True:
        state = meter.state()
        taken = [fault for device, facts in state.items() if (fault := _taken(device, facts))]
        if not taken:
            return [check for device, facts in state.items() for check in _checks(device, facts)]
        if clock.now() >= deadline_s:
            raise MeterError("gpu_not_free", "; ".join(taken))
        clock.sleep(1.0)


def _taken(device: str, facts: Mapping[str, Any]) -> str | None:
    pids = facts.get("compute_pids")
    if pids:
        return f"{device} is computed on by process {', '.join(map(str, pids))}"
    used, total = facts.get("memory_used_bytes"), facts.get("memory_total_bytes")
    if used is not None and total and used > FREE_SHARE * total:
        return f"{device} has {used / 2**30:.1f} of {total / 2**30:.1f} GiB in use"
    return None


def _checks(device: str, facts: Mapping[str, Any]) -> Iterator[Check]:
    occupied = ", ".join(f"{name} {facts[name]}" for name in OCCUPANCY if name in facts)
    if occupied:
        yield Check(name="gpu_free", ok=True, detail=f"{device}: {occupied}")
    if (errors := facts.get("ecc_uncorrected")) is not None:
        detail = f"{device}: {errors} uncorrected memory errors since the driver was loaded"
        yield Check(name="gpu_memory", ok=errors == 0, detail=detail)
