"""A study under way, in plain lines: what is done, what it cost, what is left, the best so far."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sweeper.answers.best import answers
from sweeper.answers.results import Result
from sweeper.answers.table import brief
from sweeper.answers.units import quantity
from sweeper.plan import Plan
from sweeper.results.attachments import file_name
from sweeper.results.contents import Contents
from sweeper.results.journal import ATTACHMENTS
from sweeper.results.metrics import is_energy
from sweeper.results.record import Record
from sweeper.spec import Study, Trial

Say = Callable[[str], None]
SHOWN = ("energy_per_output_token_j", "latency_mean_s", "output_tokens_per_s")
LONGEST_REASON = 200


class Progress:
    """Says a line or two whenever something is worth knowing.

    `folder` is the study's. What is counted is this sitting's; joules are those of its windows.
    """

    def __init__(
        self,
        study: Study,
        plan: Plan,
        before: Contents,
        folder: Path,
        say: Say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._study = study
        self._folder = folder
        self._say = say
        self._clock = clock
        self._total = len(plan.points) * study.settings.measure.launches
        self._left = sum(len(launch.points) for launch in plan.launches)
        self._launches = len(plan.launches)
        self._records = list(before.accepted().values())
        self._statuses: Counter[str] = Counter()
        self._held: dict[str, tuple[float, int]] = {}
        self._logs: dict[str, str] = {}
        self._gpu_seconds = 0.0
        self._energies_j: list[float] = []
        self._caveats: set[str] = set()
        self._started_s = clock()

    def begin(self) -> None:
        """What there is to do."""
        have = self._total - self._left
        known = f", {have} measured before" if have else ""
        self._say(
            f"{self._study.name}: {_many(self._total, 'point')}{known}; {self._left} to measure in "
            f"{_many(self._launches, 'launch', 'launches')}"
        )

    def event(self, trial: Trial, event: Mapping[str, Any]) -> None:
        """An event that is no record."""
        match event["kind"]:
            case "trial":
                self._let_go(trial)
                self._held[trial.id] = (self._clock(), len(event["devices"]))
            case "phase" if event["phase"] == "load":
                _, gpus = self._held.get(trial.id, (0.0, trial.gpus))
                where = _many(gpus, "GPU") if gpus else "the CPU"
                again = f", attempt {trial.attempt + 1}" if trial.attempt else ""
                self._say(f"  {trial.id}: loading on {where}{again}")
            case "window" if event["energy_j"] is not None:
                self._energies_j.append(event["energy_j"])
            case "attachment" if event["role"] == "engine_log":
                name = file_name(event["name"])
                self._logs[trial.id] = str(self._folder / ATTACHMENTS / name)
            case "death":
                self._say(f"  {trial.id}: {_first_line(event['reason'])}{self._log(trial.id)}")
            case "ended":
                self._let_go(trial, event.get("gpu_seconds"))

    def record(self, record: Record) -> None:
        """A point has its verdict, or was given up."""
        self._statuses[record.status] += 1
        self._records.append(record)
        if record.windows and (caveat := _caveat(record)):
            self._caveats.add(caveat)
        done = self._statuses.total()
        log = self._log(record.trial_id) if record.status == "failed" else ""
        self._say(f"  [{done}/{self._left}] {_moved(record)}: {_numbers(record)}{log}")
        self._say(f"      {self._summary()}")

    def _summary(self) -> str:
        done = self._statuses.total()
        parts = [
            f"{done} of {self._left} done",
            f"{self._statuses['failed']} failed",
            f"{self._statuses['infeasible']} infeasible",
        ]
        found = [", ".join(parts), f"{self._gpu_hours():.2f} GPU-hours{self._joules()}"]
        if (left_s := self._left_s()) is not None:
            found.append(f"about {_duration(left_s)} left")
        if (best := self._best()) is not None:
            found.append(f"best so far {best}")
        return "; ".join(found)

    def _joules(self) -> str:
        if not self._energies_j:
            return ""
        caveats = f" ({' and '.join(sorted(self._caveats))})" if self._caveats else ""
        return f", {quantity(math.fsum(self._energies_j), 'energy_j')}{caveats}"

    def _gpu_hours(self) -> float:
        now_s = self._clock()
        held = sum(gpus * (now_s - since_s) for since_s, gpus in self._held.values())
        return (self._gpu_seconds + held) / 3600

    def _let_go(self, trial: Trial, gpu_seconds: float | None = None) -> None:
        since_s, gpus = self._held.pop(trial.id, (0.0, 0))
        spent = gpus * (self._clock() - since_s)
        self._gpu_seconds += spent if gpu_seconds is None else gpu_seconds

    def _log(self, trial_id: str) -> str:
        log = self._logs.get(trial_id)
        return f"; log: {log}" if log is not None else ""

    def _best(self) -> str | None:
        metric = next(iter(self._study.objectives))
        for answer in answers(self._records, self._study):
            if answer.best is not None:
                value = answer.best.value(metric)
                origin = answer.group.provenance
                said = _said(metric, value, None if origin == "measured" else origin)
                return f"{_moved(answer.best)}{f': {said}' if said else ''}"
        return None

    def _left_s(self) -> float | None:
        done = self._statuses.total()
        if done >= self._left:
            return None
        return (self._clock() - self._started_s) / done * (self._left - done)


def _moved(of: Record | Result) -> str:
    return brief({**of.condition, **of.chosen}) or "the point"


def _numbers(record: Record) -> str:
    if record.status in ("infeasible", "failed", "wrong_setting"):
        return f"{record.status}: {_first_line(record.reason or 'no reason given')}"
    caveat = _caveat(record)
    shown = [
        said for metric in SHOWN if (said := _said(metric, record.metrics.get(metric), caveat))
    ]
    if record.status == "energy_invalid":
        shown.append(_first_line(record.reason or "no reason given"))
    return f"{record.status} {', '.join(shown)}"


def _said(metric: str, value: float | None, caveat: str | None) -> str:
    """A number with its unit, and beside joules what they are, where they are not measured."""
    if value is None:
        return ""
    return quantity(value, metric) + (f" ({caveat})" if caveat and is_energy(metric) else "")


def _caveat(record: Record) -> str | None:
    """What the joules of a record are, where they are not measured."""
    if record.config.get("engine.kind") == "simulated":
        return "simulation"
    if record.energy is None or record.energy.measured:
        return None
    return "simulation" if record.energy.source == "simulated" else "estimate"


def _first_line(text: str) -> str:
    line = (text.strip().splitlines() or [""])[0]
    return line if len(line) <= LONGEST_REASON else f"{line[:LONGEST_REASON]} ..."


def _many(count: int, name: str, plural: str | None = None) -> str:
    return f"{count} {name if count == 1 else plural or name + 's'}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
