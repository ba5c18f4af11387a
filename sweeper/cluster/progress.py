"""A study under way, in plain lines: what is done, what it cost, what is left, the best so far."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from sweeper.answers.best import answers
from sweeper.answers.units import quantity
from sweeper.plan import Plan
from sweeper.results.contents import Contents
from sweeper.results.record import Record
from sweeper.spec import Study, Trial

Say = Callable[[str], None]
SHOWN = ("energy_per_output_token_j", "latency_mean_s", "output_tokens_per_s")


class Progress:
    """Says a line whenever something is worth knowing."""

    def __init__(self, study: Study, plan: Plan, before: Contents, say: Say) -> None:
        self._study = study
        self._say = say
        self._total = len(plan.points) * study.settings.measure.launches
        self._left = sum(len(launch.points) for launch in plan.launches)
        self._launches = len(plan.launches)
        self._expected_s = sum(trial.gpus * trial.expected_s for trial in plan.trials)
        self._records = list(before.accepted().values())
        self._statuses: Counter[str] = Counter()
        self._done = 0
        self._gpu_seconds = 0.0
        self._energy_j = 0.0
        self._started_s = time.monotonic()

    def begin(self) -> None:
        """What there is to do."""
        have = self._total - self._left
        known = f", {have} measured before" if have else ""
        self._say(
            f"{self._study.name}: {self._total} points{known}; {self._left} to measure in "
            f"{self._launches} launches"
        )

    def event(self, trial: Trial, event: Mapping[str, Any]) -> None:
        """An event that is no record."""
        if event["kind"] == "phase" and event["phase"] == "load":
            gpus = f"{trial.gpus} GPU{'s' * (trial.gpus > 1)}"
            self._say(f"  {trial.id}: loading on {gpus}, attempt {trial.attempt + 1}")
        elif event["kind"] == "death":
            self._say(f"  {trial.id}: {event['reason']}")
        elif event["kind"] == "ended":
            self._gpu_seconds += event.get("gpu_seconds") or 0.0
            self._energy_j += event.get("energy_j") or 0.0

    def record(self, record: Record) -> None:
        """A point has its verdict, or was given up."""
        self._done += 1
        self._statuses[record.status] += 1
        self._records.append(record)
        self._say(f"  [{self._done}/{self._left}] {_choice(record)}: {_numbers(record)}")
        if best := self._best():
            self._say(f"  best so far {best}{self._time_left()}")

    def _best(self) -> str | None:
        for answer in answers(self._records, self._study):
            if answer.best is not None:
                return _choice(answer.best)
        return None

    def _time_left(self) -> str:
        spent_s = time.monotonic() - self._started_s
        left_s = spent_s / self._done * (self._left - self._done)
        return f"; about {left_s / 60:.0f} min left" if left_s >= 60 else ""


def _choice(record: Any) -> str:
    shown = {**record.condition, **record.chosen}
    return " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in shown.items()) or "point"


def _numbers(record: Record) -> str:
    if record.status in ("infeasible", "failed", "wrong_setting"):
        return f"{record.status}: {record.reason}"
    shown = [
        quantity(record.metrics[metric], metric) for metric in SHOWN if metric in record.metrics
    ]
    label = "" if record.energy is None or record.energy.measured else " (energy is an estimate)"
    return f"{record.status} {', '.join(shown)}{label}"
