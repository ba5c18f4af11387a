"""Studied settings of a launch's GPUs: asked for, proven, and given back by a guardian.

The launch owns the guardian (`gpu_guardian.py`): when it closes its end of the pipe, or dies, the
GPUs are set back.
"""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sweeper.errors import EngineError, MeterError, WrongSetting
from sweeper.spec import GpuSpec
from sweeper.trial.guardian import VARIABLE

APPLY_LIMIT_S = 120.0
RESTORE_LIMIT_S = 60.0
UNASKED = GpuSpec()
SAME_W = 1.0
"""Limits that differ by less are the same: NVML counts in milliwatts, boards may round."""
STEP_MHZ = 15.0
"""Clocks of NVIDIA's boards lie so far apart."""


class GpuSettings:
    """What a study asks of a launch's GPUs; of nothing, unless it says more."""

    def __init__(self, asked: GpuSpec = UNASKED, devices: Sequence[str] = ()) -> None:
        self.asked = asked
        self._devices = tuple(devices)
        self._pipes: tuple[int, int] | None = None
        self._buffer = b""

    def apply(self) -> Mapping[str, Any]:
        """Set what is asked on exactly these GPUs: `asked`, `found` before and `in_force` now.

        Empty where nothing is asked. `left_behind` is what an earlier guardian had not restored.

        Raises:
            WrongSetting: a board refuses, or takes something else.
            MeterError: the boards cannot be set now: another launch keeps them, NVML is silent.
        """
        if self.asked == UNASKED:
            return {}
        to, back = self._pipes = _start()
        request = {"devices": self._devices, "asked": asdict(self.asked)}
        # It sets nothing before it has read this, and then it is nobody's child.
        os.write(to, json.dumps(request).encode() + b"\n")
        answer = self._answer(back, APPLY_LIMIT_S)
        if answer is None:
            raise MeterError("nvml_timeout", "the guardian of the GPUs does not answer")
        if said := answer.get("wrong"):
            raise WrongSetting(_of_setting(said, self.asked))
        if said := answer.get("failed"):
            raise MeterError(answer["code"] or "nvml_error", said)
        return {"asked": {key: each for key, each in asdict(self.asked).items() if each}, **answer}

    def check(self, evidence: Mapping[str, Any]) -> None:
        """Hold what a window's glances tell against what is asked.

        Raises:
            WrongSetting: a board had another limit, or ran faster than it is locked to.
        """
        for name in ("before", "after"):
            glance = evidence.get(name) or {"devices": {}}
            for device, state in glance["devices"].items():
                self._check(device, state, f"{name} a window")

    def _check(self, device: str, state: Mapping[str, Any], when: str) -> None:
        watts, limit_w = self.asked.power_limit_w, state.get("power_limit_w")
        if watts is not None and limit_w is not None and abs(limit_w - watts) > SAME_W:
            said = f"asked {watts:g}, {device} had {limit_w:g} {when}"
            raise WrongSetting(f"gpu.power_limit_w: {said}")
        mhz, sm_mhz = self.asked.clock_mhz, state.get("sm_clock_mhz")
        if mhz is not None and sm_mhz is not None and sm_mhz > mhz + STEP_MHZ:
            raise WrongSetting(f"gpu.clock_mhz: asked {mhz}, {device} ran at {sm_mhz:g} {when}")

    def close(self) -> None:
        """Have the GPUs set back, and return when they are; may be called twice.

        Raises:
            EngineError: some are not.
        """
        if self._pipes is None:
            return
        to, back = self._pipes
        os.close(to)
        try:
            answer = self._answer(back, RESTORE_LIMIT_S)
        finally:
            self._pipes = None
            os.close(back)
        why = ["its guardian does not answer"] if answer is None else answer["not_restored"]
        if why:
            said = "; ".join(why)
            raise EngineError(f"gpu: settings are not restored: {said}; see nvidia-smi -q -d POWER")

    def _answer(self, back: int, limit_s: float) -> dict[str, Any] | None:
        """The guardian's next line; `None` where none comes."""
        deadline_s = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            left_s = max(deadline_s - time.monotonic(), 0.0)
            if not select.select([back], [], [], left_s)[0]:
                return None
            got = os.read(back, 65536)
            if not got:
                return None
            self._buffer += got
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found


def _start() -> tuple[int, int]:
    """A guardian that is there: where it reads, and where it answers."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    there, to = os.pipe()
    back, answers = os.pipe()
    command = [sys.executable, "-m", "sweeper.trial.gpu_guardian"]
    parent = subprocess.Popen(
        command, stdin=there, stdout=answers, env=environment, start_new_session=True
    )
    parent.wait()
    os.close(there)
    os.close(answers)
    return to, back


def _of_setting(said: str, asked: GpuSpec) -> str:
    """A refusal under the keys that it is about."""
    if said.startswith("gpu."):
        return said
    keys = [f"gpu.{key} {each}" for key, each in asdict(asked).items() if each is not None]
    return f"{' and '.join(keys)}: {said}"
