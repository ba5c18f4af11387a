"""The process that sets a launch's GPUs, and sets them back whatever becomes of the launch.

    launch --stdin--> one line: what is asked of which GPUs; then nothing, until it closes or dies
    guardian --stdout--> one line: found and in force, or why not; one more when all is restored

What was found is written down, on a file of each GPU that this process keeps locked, before
anything is set. So two launches never take each other's settings for those of the machine, and
what a guardian leaves behind that is killed itself, the next one on that GPU restores first. The
files are in memory, which forgets at a restart of the machine as boards do.

It holds NVML open, without which a board that has no persistence mode forgets what it was set to,
and never a CUDA context. Like the other guardian it is nobody's child and carries no lease's mark.
"""

import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sweeper.errors import MeterError, SweeperError, WrongSetting
from sweeper.meters import nvml
from sweeper.spec import GpuSpec
from sweeper.trial.gpu_settings import SAME_W, STEP_MHZ

NOTES = Path("/dev/shm")
PATIENCE_S = 60.0
"""How long another launch's guardian may take to let go of a GPU."""
SETTLE_S = 2.0
"""How long a board may take to run at a clock that it is locked to."""
RETRIES, RETRY_S = 10, 0.3
POWER, CLOCK = "power_limit_w", "clock_mhz"


class Held:
    """One GPU that this process alone sets, and what is noted of how it was found."""

    def __init__(self, uuid: str, patience_s: float = PATIENCE_S) -> None:
        """Wait for the GPU.

        Raises:
            MeterError: `gpu_not_free` where another launch keeps it for longer than `patience_s`.
        """
        self.uuid = uuid
        self.handle = nvml.handle_of(uuid)
        self._path = _folder() / uuid
        deadline_s = time.monotonic() + patience_s
        while (file := self._locked()) is None:
            if time.monotonic() >= deadline_s:
                raise MeterError("gpu_not_free", f"{uuid}: another launch has set it, and keeps it")
            time.sleep(0.05)
        self._file = file

    def _locked(self) -> int | None:
        """The note, which nobody else has; `None` where somebody does, or took it away just now."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file), self._path.stat()):
                return file
        except OSError:
            pass
        os.close(file)
        return None

    @property
    def noted(self) -> dict[str, Any]:
        """What is to be restored; nothing when all is as it was found."""
        text = os.pread(self._file, 4096, 0)
        try:
            found: dict[str, Any] = json.loads(text) if text else {}
        except ValueError as error:
            said = f"{self._path} is damaged: {text!r}: remove it"
            raise MeterError("reading_failed", said) from error
        return found

    def set(self, asked: GpuSpec) -> dict[str, Any]:
        """Note what is found, then set what is asked; what was found.

        Raises:
            MeterError: NVML refuses.
        """
        found: dict[str, Any] = {}
        if asked.power_limit_w is not None:
            found[POWER] = nvml.power_limit_w(self.handle)
            self._note(found)
            try:
                nvml.set_power_limit(self.handle, asked.power_limit_w)
            except MeterError as error:
                said = str(error).removeprefix(f"{error.code}: ")
                stays = f"{said}; {self.uuid} stays at {found[POWER]:g} W"
                raise MeterError(error.code, stays) from error
        if asked.clock_mhz is not None:
            # NVML tells of no lock that there may have been: what is set back is none.
            self._note({**found, CLOCK: None})
            try:
                nvml.lock_clocks(self.handle, asked.clock_mhz)
            except MeterError:
                self._note(found)
                raise
            found[CLOCK] = None
        return found

    def _note(self, found: Mapping[str, Any]) -> None:
        text = json.dumps(found).encode() if found else b""
        os.pwrite(self._file, text, 0)
        os.ftruncate(self._file, len(text))

    def restore(self) -> None:
        """Set back what is noted, if anything is; may be repeated.

        Raises:
            MeterError: NVML refuses, or the board does not take it.
        """
        noted = self.noted
        if POWER in noted and abs(nvml.power_limit_w(self.handle) - noted[POWER]) > SAME_W:
            nvml.set_power_limit(self.handle, noted[POWER])
            limit_w = nvml.power_limit_w(self.handle)
            if abs(limit_w - noted[POWER]) > SAME_W:
                said = f"{self.uuid}: the power limit stays at {limit_w:g} W, not {noted[POWER]:g}"
                raise MeterError("nvml_error", said)
        if CLOCK in noted:
            nvml.lock_clocks(self.handle, None)
        os.ftruncate(self._file, 0)

    def in_force(self, asked: GpuSpec) -> dict[str, Any]:
        """What the board tells of what was set.

        Raises:
            WrongSetting: it took something else.
        """
        told: dict[str, Any] = {}
        if asked.power_limit_w is not None:
            limit_w = nvml.power_limit_w(self.handle)
            enforced_w = nvml.enforced_limit_w(self.handle)
            told[POWER] = limit_w if enforced_w is None else min(limit_w, enforced_w)
            if abs(told[POWER] - asked.power_limit_w) > SAME_W:
                raise WrongSetting(
                    f"gpu.{POWER}: asked {asked.power_limit_w:g}, {self.uuid} took {told[POWER]:g}"
                )
        if asked.clock_mhz is not None:
            sm_mhz = self._settled(asked.clock_mhz)
            if sm_mhz is not None:
                told["sm_clock_mhz"] = sm_mhz
                if sm_mhz > asked.clock_mhz + STEP_MHZ:
                    raise WrongSetting(
                        f"gpu.{CLOCK}: asked {asked.clock_mhz}, {self.uuid} runs at {sm_mhz:g}"
                    )
        return told

    def _settled(self, mhz: int) -> float | None:
        deadline_s = time.monotonic() + SETTLE_S
        while True:
            sm_mhz = nvml.sm_clock_mhz(self.handle)
            # At rest a board may run slower than it is locked to.
            if sm_mhz is None or sm_mhz <= mhz + STEP_MHZ or time.monotonic() >= deadline_s:
                return sm_mhz
            time.sleep(0.05)

    def close(self) -> None:
        """Let others set the GPU; a note of what is not restored stays."""
        if os.fstat(self._file).st_size == 0:
            self._path.unlink(missing_ok=True)
        os.close(self._file)


def keep(
    devices: list[str], asked: GpuSpec, say: Callable[[Mapping[str, Any]], None], end: Any
) -> list[str]:
    """Set the devices, say what came of it, and set them back when `end` returns; why some are not.

    When this returns, others may set them.
    """
    with ExitStack() as opened:
        held: list[Held] = []
        try:
            opened.enter_context(nvml.session())
            for uuid in sorted(devices):
                held.append(Held(uuid))
                opened.callback(held[-1].close)
            left = {each.uuid: each.noted for each in held if each.noted}
            for each in held:
                each.restore()
            found = {each.uuid: each.set(asked) for each in held}
            force = {each.uuid: each.in_force(asked) for each in held}
            say({"found": found, "in_force": force, **({"left_behind": left} if left else {})})
            end()
        except SweeperError as error:
            code = error.code if isinstance(error, MeterError) else None
            wrong = isinstance(error, WrongSetting) or code in _REFUSED
            say({"wrong" if wrong else "failed": str(error), "code": code})
        finally:
            failed = restore(held)
    return failed


_REFUSED = frozenset({"no_permission", "not_supported", "nvml_error"})
"""Answers to a setting that another attempt would get as well."""


def restore(held: list[Held]) -> list[str]:
    """Set every GPU back, trying again for a while; why some were not."""
    failed: dict[str, str] = {}
    for attempt in range(RETRIES):
        failed = {}
        for each in held:
            try:
                each.restore()
            except MeterError as error:
                failed[each.uuid] = str(error)
        if not failed:
            break
        if attempt + 1 < RETRIES:
            time.sleep(RETRY_S)
    return [f"{uuid}: {why}" for uuid, why in failed.items()]


def _folder() -> Path:
    """Where the notes of this user are.

    Raises:
        MeterError: the folder cannot be had, or is another user's.
    """
    folder = NOTES / f"sweeper-gpus-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = folder.lstat().st_uid
    except OSError as error:
        raise MeterError("reading_failed", f"no place for notes of GPUs: {error}") from error
    if owner != os.getuid() or folder.is_symlink():
        raise MeterError("reading_failed", f"{folder} belongs to somebody else")
    return folder


def main() -> int:
    """Keep what the line on standard input asks, until standard input ends."""
    if os.fork():
        # Whoever waits for this process knows that the guardian is nobody's child.
        os._exit(0)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    line = sys.stdin.buffer.readline()
    if not line:
        return 0
    request = json.loads(line)

    def say(answer: Mapping[str, Any]) -> None:
        try:
            os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")
        except OSError:
            # Nobody listens any more: there is still something to restore.
            return

    asked = GpuSpec(**request["asked"])
    failed = keep(request["devices"], asked, say, sys.stdin.buffer.read)
    say({"not_restored": failed})
    return 0


if __name__ == "__main__":
    sys.exit(main())
