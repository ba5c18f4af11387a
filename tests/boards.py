"""GPUs of the NVML stand-in that are set, by processes that own what they set."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sweeper.trial.gpu_guardian import NOTES
from tests.nvml_standin import Board, Gpu, boards_of

OWNER = """
import json, sys, time
from sweeper.spec import GpuSpec
from sweeper.trial.gpu_settings import GpuSettings
settings = GpuSettings(GpuSpec(**json.loads(sys.argv[1])), sys.argv[2:])
settings.apply()
print("set", flush=True)
time.sleep(600)
"""


def until(condition: Callable[[], bool], limit_s: float = 30.0) -> bool:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.02)
    return True


class World:
    """GPUs with names of their own, so that no other test waits for them."""

    def __init__(self, path: Path, gpus: tuple[Gpu, ...]) -> None:
        self.path = path
        self.uuids = tuple(gpu.uuid for gpu in gpus)

    @property
    def boards(self) -> list[Board]:
        return boards_of(self.path)

    def owner(self, *uuids: str, **asked: float) -> subprocess.Popen[bytes]:
        """A process that has set GPUs and does no more."""
        command = [sys.executable, "-c", OWNER, json.dumps(asked), *uuids]
        owner = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"set\n"
        return owner

    def forget(self) -> None:
        """Take away what a guardian has noted."""
        for uuid in self.notes():
            (NOTES / f"sweeper-gpus-{os.getuid()}" / uuid).unlink()

    def notes(self) -> list[str]:
        folder = NOTES / f"sweeper-gpus-{os.getuid()}"
        return [uuid for uuid in self.uuids if (folder / uuid).exists()]
