"""`python -m tests.gpu_lease FOLDER UUID`: a lease of one GPU that a study sets, until it ends.

Prints the id of its child when that has started. The engine is simulated, in a process of its own
and in real time, and measured through NVML.
"""

import sys
from dataclasses import replace
from pathlib import Path

from sweeper.spec import GpuSpec, Study
from sweeper.trial.lease import Lease
from sweeper.trial.process import ProcessLaunch
from tests.studies import one_trial, simulated

LIMIT_W, MHZ = 400.0, 1005


def study() -> Study:
    plain = simulated(isolated=True, load_s=0.5, helpers=1, meter="nvml", batch_sizes=(1,))
    settings = replace(plain.settings, gpu=GpuSpec(power_limit_w=LIMIT_W, clock_mhz=MHZ))
    return replace(plain, settings=settings)


def main() -> None:
    folder, uuid = sys.argv[1:]
    lease = Lease(one_trial(study()), (uuid,), "s", Path(folder), {"node_id": "n", "host": "h"})
    lease.start()
    assert isinstance(lease._running, ProcessLaunch)
    print(lease._running.pid, flush=True)
    while not lease.finished:
        for event in lease.events(0.5):
            if event["kind"] == "death":
                print(event["reason"], file=sys.stderr)
        lease.acknowledge()
    lease.kill()


if __name__ == "__main__":
    main()
