"""A lease that measures nothing: it holds its devices, tells so, and fails as its trial is named.

Its child leaves its session and has a child of its own, as an engine would; all ids go into the
trial's folder under `SWEEPER_TEST_FOLDER`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.spec import Trial
from sweeper.trial.guardian import Guardian

CHILD = """
import os, subprocess, sys, time
sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
grandchild = subprocess.Popen(sleeper, start_new_session=True)
with open(sys.argv[1] + ".part", "w") as file:
    file.write(f"{os.getpid()} {grandchild.pid}")
os.rename(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""


class FakeLease:
    """Shaped like `sweeper.trial.lease.Lease`.

    `dies-..` ends its first attempt with a death at its second point, `hangs-..` never returns from
    `events`, `killed-..` kills its actor, `forever-..` never ends.
    """

    def __init__(
        self,
        trial: Trial,
        devices: tuple[str, ...],
        study: str,
        scratch: Path,
        place: Mapping[str, Any],
    ) -> None:
        self.trial = trial
        self.about = {"devices": devices, "study": study, **place}
        self.guardian = Guardian(lease_s=20.0)
        self.behaviour = trial.id.partition("-")[0] if trial.attempt == 0 else "good"
        self.unkept: list[dict[str, Any]] = []
        self.todo: list[dict[str, Any]] = []
        self.pids = Path(os.environ["SWEEPER_TEST_FOLDER"], f"{trial.id}.{trial.attempt}")
        assert scratch.is_dir()

    @property
    def finished(self) -> bool:
        return not self.todo and not self.unkept

    def start(self) -> None:
        self.guardian.start()
        subprocess.Popen(
            [sys.executable, "-c", CHILD, str(self.pids)],
            env=self.guardian.environment(),
            start_new_session=True,
        )
        while not self.pids.exists():
            time.sleep(0.02)
        self.todo = [{"kind": "phase", "phase": "load", "point": None, **self.about}]
        for launch in self.trial.launches:
            for index, point in enumerate(launch.points):
                self.todo.append({"kind": "phase", "phase": "pass", "point": point.id})
                if index == 1 and self.behaviour != "good":
                    self.todo.append({"kind": self.behaviour, "point": point.id, "reason": "test"})
                of = {"id": point.id, "launch": launch.number, "stage": launch.stage}
                self.todo.append({"kind": "record", **of, "status": "ok"})
            self.todo.append({"kind": "launched"})

    def events(self, timeout_s: float) -> list[dict[str, Any]]:
        assert not self.unkept, "acknowledged before it is asked again"
        self.guardian.renew()
        time.sleep(0.05)
        event = {**self.todo.pop(0), "at_s": time.time()}
        match event["kind"]:
            case "dies":
                event["kind"] = "death"
                self.todo.clear()
            case "hangs":
                time.sleep(600)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "forever":
                self.todo.insert(0, {"kind": "forever"})
                time.sleep(timeout_s)
                return []
        self.unkept = [event]
        return self.unkept

    def acknowledge(self) -> None:
        self.unkept = []

    def kill(self) -> None:
        self.todo.clear()
        self.guardian.release()
