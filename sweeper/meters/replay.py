"""What another instrument wrote down: a wall-power meter, a BMC, a counter's log.

    meter: replay
    replay: {file: /var/log/wall.csv, clock: utc, scope: node}

The log may be complete, or be written while the launch goes on: a reading waits for the row after
its moment, and is taken between the rows around it.
"""

import time
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError, StudyError
from sweeper.meters import Reading
from sweeper.meters.recording import Recording
from sweeper.schema import Faults, read
from sweeper.spec import Settings

LATE_S = 2.0
"""How much longer than `max_gap_s` a row may take to arrive in the file."""
LOOK_S = 0.02
STEP_S = 0.05
SLEW = 1e-3
"""A wall clock that is slewed goes wrong by at most 500 ppm (adjtimex); what goes further between
two readings was stepped."""


@dataclass(frozen=True, kw_only=True)
class Log:
    """The study's key `replay`.

    `file`: on the node that measures, from `/`. `clock`: what its times are on, `utc` (seconds
    since 1970, or dates) or `monotonic` (CLOCK_MONOTONIC of that node; of a virtual clock, its
    own). `scope`: `node` adds up all of its devices; `gpu` takes those that are named by the
    launch's GPUs. `max_gap_s`: rows further apart leave no number. `systematic`: the instrument's
    relative gain error, where its maker states one.
    """

    file: str
    clock: Literal["utc", "monotonic"] = "utc"
    scope: Literal["node", "gpu"] = "node"
    max_gap_s: float = field(default=3.0, metadata={"above": 0})
    systematic: float | None = field(default=None, metadata={"above": 0, "max": 1})


def read_log(settings: Settings) -> Log:
    """The key `replay` of a study with `meter: replay`.

    Raises:
        StudyError: it is missing or wrong, all at once.
    """
    if settings.replay is None:
        raise StudyError("replay: missing: {file: /path/of/a.csv}, which meter replay reads")
    faults = Faults()
    log = read(Log, settings.replay, "replay", faults)
    if log is not None and not log.file.startswith("/"):
        faults.add("replay.file", f"{log.file} is read on the node that measures: name it from /")
    if faults.found or log is None:
        raise StudyError(f"{where}: {message}" for where, message in faults.found)
    return log


class ReplayMeter:
    """Reads a `Log`; `log` is the study's key, checked when it was loaded."""

    source = "replay"
    measured = True
    method = "log"
    scope = "node"
    systematic: float | None = None
    min_window_s = 5.0
    waits = True

    def __init__(
        self,
        devices: Sequence[str],
        clock: Clock,
        engine: Engine | None = None,
        log: Mapping[str, Any] | None = None,
    ) -> None:
        self._devices = tuple(devices)
        self._clock = clock
        self._given = log
        self._log = Log(file="")
        self._recording: Recording | None = None
        self._tracked: tuple[str, ...] = ()
        self._live = True
        self._offset_s = 0.0
        self._last_s = 0.0

    def open(self) -> Mapping[str, Any]:
        """Which devices the log tells of, and in which unit.

        Raises:
            MeterError: `log_missing`, `log_damaged`, `device_unknown` for a GPU that the log does
                not name, or `clock_not_real` for dates beside a virtual clock.
        """
        self.close()
        if self._given is None:
            raise MeterError("log_missing", "the study names no log (replay)")
        self._log = Log(**self._given)
        self._live = self.waits = _goes_by_itself(self._clock)
        if self._log.clock == "utc" and not self._live:
            raise MeterError(
                "clock_not_real", "replay.clock: utc beside a virtual clock: use monotonic"
            )
        self.scope, self.systematic = self._log.scope, self._log.systematic
        self._recording = Recording(Path(self._log.file), self._log.max_gap_s)
        self._recording.more()
        self.method = {"joules": "counter log", "watts": "power log"}.get(
            self._recording.unit, "log"
        )
        self._tracked = self._wanted(self._recording)
        self._last_s = self._clock.now()
        self._offset_s = self._offset()
        return {
            "gpus": [{"uuid": uuid} for uuid in self._devices],
            "log": {"file": self._log.file, "unit": self._recording.unit},
            "tracked": list(self._tracked),
        }

    def _wanted(self, recording: Recording) -> tuple[str, ...]:
        if self._log.scope == "node":
            if not recording.tracks:
                raise MeterError("log_damaged", f"{self._log.file} has no rows yet")
            return tuple(sorted(recording.tracks))
        if not self._devices:
            raise MeterError("no_devices", "replay.scope: gpu, and the launch holds no GPU")
        unknown = sorted(set(self._devices) - recording.tracks.keys())
        if unknown:
            raise MeterError("device_unknown", f"not in {self._log.file}: {', '.join(unknown)}")
        return self._devices

    def read(self) -> Reading:
        """Every device at this moment; waits for the rows after it, where time goes by itself.

        Raises:
            MeterError: `not_bracketed` where no row comes after it, `sample_gap` where rows are
                missing now or were since the last reading, `counter_reset`, `clock_step`,
                `log_damaged`, `wrong_gpu_count` where the log tells of a new device.
        """
        if self._recording is None:
            raise MeterError("not_open", "the meter was closed, or never opened")
        since_s, t_s = self._last_s, self._clock.now()
        self._last_s = t_s
        self._follow(since_s, t_s)
        at_s = t_s + self._offset_s
        self._await(self._recording, at_s)
        return Reading(t_s=t_s, energy_j=self._joules(self._recording, since_s, at_s))

    def _joules(self, recording: Recording, since_s: float, at_s: float) -> dict[str, float]:
        new = sorted(recording.tracks.keys() - set(self._tracked))
        if self._log.scope == "node" and new:
            raise MeterError("wrong_gpu_count", f"new in {self._log.file}: {', '.join(new)}")
        joules = {}
        for device in self._tracked:
            track = recording.tracks[device]
            joules[device] = track.at(at_s, self._log.max_gap_s)
            # A gap that was there at the last reading was told by it.
            first = bisect_left(track.gaps, since_s + self._offset_s, key=lambda gap: gap[0])
            if first < bisect_right(track.gaps, at_s, key=lambda gap: gap[0]):
                raise track.gaps[first][1]
        return joules

    def _await(self, recording: Recording, at_s: float) -> None:
        deadline_s = time.monotonic() + self._log.max_gap_s + LATE_S
        while True:
            recording.more()
            behind = [name for name in self._tracked if recording.tracks[name].times_s[-1] < at_s]
            if not behind:
                return
            if not self._live or time.monotonic() > deadline_s:
                raise MeterError(
                    "not_bracketed", f"{self._log.file} ends before it, for {', '.join(behind)}"
                )
            time.sleep(LOOK_S)

    def _offset(self) -> float:
        """What the log's clock is ahead of the launch's."""
        return time.time() - self._clock.now() if self._log.clock == "utc" else 0.0

    def _follow(self, since_s: float, t_s: float) -> None:
        """Follow a wall clock that is slewed.

        Raises:
            MeterError: `clock_step` where it was set.
        """
        before_s, self._offset_s = self._offset_s, self._offset()
        moved_s = self._offset_s - before_s
        if abs(moved_s) > STEP_S + SLEW * (t_s - since_s):
            raise MeterError("clock_step", f"the wall clock was set by {moved_s:+.3f} s")

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """Nothing: a log says nothing of processes."""
        return {}

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        """None is kept: the log is there already."""
        return ()

    def close(self) -> None:
        """Let go of the log."""
        self._recording = None


def _goes_by_itself(clock: Clock) -> bool:
    before_s = clock.now()
    time.sleep(0.01)
    return clock.now() - before_s > 0.005
