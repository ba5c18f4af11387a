"""A launch in a child process of its own group: a guardian, a log, limits on silence and memory."""

import base64
import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from sweeper.results.attachments import pack_log
from sweeper.trial.assignment import Assignment
from sweeper.trial.bench import KEPT, attachment
from sweeper.trial.guardian import Guardian
from sweeper.trial.memory import MemoryWatch

Event = dict[str, Any]

LEASE_S = 20.0
"""The launch is killed when its supervisor has not asked for events for so long."""
LOAD_LIMIT_S = 1800.0
"""Loading tells of no steps: it may read weights for that long."""
SILENCE_LIMIT_S = 180.0
"""An engine that has done no step for so long, after loading, stands still."""
LOG_TAIL_BYTES = 4000


class ProcessLaunch:
    """Runs a launch in `python -m sweeper.trial.child`."""

    def __init__(
        self,
        assignment: Assignment,
        scratch: Path,
        load_limit_s: float = LOAD_LIMIT_S,
        silence_limit_s: float = SILENCE_LIMIT_S,
        memory_reserve_bytes: int | None = None,
    ) -> None:
        """`memory_reserve_bytes`: what the launch may not take of the node's memory by growing."""
        self._assignment = assignment
        self._log = scratch / f"{assignment.name}.log"
        self._limits_s = {"load": load_limit_s, "other": silence_limit_s}
        self._guardian = Guardian(lease_s=LEASE_S)
        self._memory = MemoryWatch(self._guardian.token, memory_reserve_bytes)
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._child: subprocess.Popen[bytes] | None = None
        self._phase: Event = {"phase": "start", "point": None}
        self._steps = -1
        self._moved_s = 0.0
        self.finished = False

    @property
    def token(self) -> str:
        """The mark that every process of this launch carries."""
        return self._guardian.token

    @property
    def pid(self) -> int:
        """The child's process id.

        Raises `RuntimeError` before `start`.
        """
        return self._running().pid

    def start(self) -> None:
        """Start the guardian, then the child."""
        self._guardian.start()
        read_end, write_end = os.pipe()
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "sweeper.trial.child", str(write_end)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                process_group=0,
                env=self._environment(),
            )
        os.close(write_end)
        self._moved_s = time.monotonic()
        threading.Thread(target=self._read, args=(read_end,), daemon=True).start()
        self._tell(base64.b64encode(pickle.dumps(self._assignment)))

    def events(self, timeout_s: float) -> list[Event]:
        """Events since the last call; a `death` when the child ended early or stood still."""
        self._guardian.renew()
        try:
            event = self._events.get(timeout=timeout_s)
        except queue.Empty:
            return self._watched()
        if event is None:
            return self._over()
        if event["kind"] == "progress":
            if event["steps"] != self._steps:
                self._steps, self._moved_s = event["steps"], time.monotonic()
            return self._watched()
        self._moved_s = time.monotonic()
        if event["kind"] == "phase":
            if self._phase["phase"] == "load":
                self._guardian.look()
                self._memory.loaded()
            self._phase = event
        if event["kind"] in ("death", "launched"):
            return self._end(event)
        return [event]

    def kept(self, events: list[Event]) -> None:
        """Let the child go on."""
        self._guardian.renew()
        for event in events:
            if event["kind"] in KEPT:
                self._tell(b"kept")

    def hang_up(self) -> None:
        """Close the line to the child, as the death of this process would."""
        pipe = self._running().stdin
        with contextlib.suppress(BrokenPipeError):
            if pipe is not None:
                pipe.close()

    def kill(self) -> None:
        """Kill the child's group and whatever carries this launch's mark."""
        if self._child is not None and self._child.poll() is None:
            # Its group carries its number as long as it has not been waited for.
            os.killpg(self._child.pid, signal.SIGKILL)
            self._child.wait()
        if self._child is not None:
            self.hang_up()
        self._guardian.release()

    def _environment(self) -> dict[str, str]:
        environment = {
            **os.environ,
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "CUDA_VISIBLE_DEVICES": ",".join(self._assignment.devices),
            **self._assignment.settings.engine.env,
        }
        if not self._assignment.devices:
            # Threads that spin while they wait take the processor from those they wait for.
            environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # With it, every engine process would compile its imports anew.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return self._guardian.environment(environment)

    def _tell(self, line: bytes) -> None:
        pipe = self._running().stdin
        # A child that has ended is told of by the reader, with a reason.
        with contextlib.suppress(BrokenPipeError, ValueError):
            if pipe is not None:
                pipe.write(line + b"\n")
                pipe.flush()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None:
            raise RuntimeError("the launch was not started")
        return self._child

    def _read(self, descriptor: int) -> None:
        with os.fdopen(descriptor) as lines:
            for line in lines:
                if line.endswith("\n"):
                    self._events.put(json.loads(line))
        self._events.put(None)

    def _watched(self) -> list[Event]:
        """Nothing was told: does it stand still, or grow?"""
        if leak := self._memory.leak():
            return self._end({"kind": "death", "reason": leak})
        limit_s = self._limits_s["load" if self._loading else "other"]
        silent_s = time.monotonic() - self._moved_s
        if silent_s < limit_s:
            return []
        return self._end({"kind": "death", "reason": f"hang: no step for {silent_s:.0f} s, killed"})

    @property
    def _loading(self) -> bool:
        return self._phase["phase"] in ("start", "gate", "load")

    def _over(self) -> list[Event]:
        if self.finished:
            return []
        status = self._running().wait()
        told = f"signal {-status}" if status < 0 else f"status {status}"
        return self._end({"kind": "death", "reason": f"died: the engine process ended with {told}"})

    def _end(self, event: Event) -> list[Event]:
        self.finished = True
        self.kill()
        if event["kind"] == "death":
            event = {
                **event,
                "phase": self._phase["phase"],
                "point": self._phase["point"],
                "log_tail": self._log_tail(),
            }
        packed = pack_log(self._log.read_bytes())
        log = attachment(f"{self._log.name}.gz", self._assignment.launch, "engine_log", packed)
        return [{"kind": "attachment", **log}, event]

    def _log_tail(self) -> str:
        with self._log.open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")
