"""Before a launch: are its GPUs really free?"""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.engines import Clock
from sweeper.errors import MeterError
from sweeper.meters import Meter
from sweeper.results.record import Check

FREE_SHARE = 0.05
"""Memory in use, relative to the device's, that a free GPU may show (its driver's own)."""
OCCUPANCY = frozenset({"compute_pids", "memory_used_bytes"})
PATIENCE_S = 60.0
"""A killed engine's memory comes back within seconds; what stays longer belongs to somebody."""


def wait_until_free(meter: Meter, clock: Clock) -> Sequence[Check]:
    """Wait until no process computes on the devices and their memory is free.

    Devices that tell of neither are not waited for, and leave no check.

    Raises:
        MeterError: still taken after `PATIENCE_S`, code `gpu_not_free`.
    """
    deadline_s = clock.now() + PATIENCE_S
    while True:
        state = meter.state()
        taken = [fault for device, facts in state.items() if (fault := _taken(device, facts))]
        if not taken:
            return [
                Check(name="gpu_free", ok=True, detail=f"{device}: {_detail(facts)}")
                for device, facts in state.items()
                if OCCUPANCY & facts.keys()
            ]
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


def _detail(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in sorted(facts.items()))
