"""What happened in a sitting, put together (pure): events in, a snapshot out.

Moments are of one monotonic clock, that of whoever calls.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sweeper.answers.table import brief
from sweeper.progress.best import BestSoFar
from sweeper.progress.pace import Pace
from sweeper.progress.snapshot import STATUSES, Best, Snapshot, Trouble, UnderWay
from sweeper.progress.words import code, first_code, first_line, origin
from sweeper.results.attachments import file_name
from sweeper.results.journal import ATTACHMENTS
from sweeper.results.record import ACCEPTED, Energy, Key, Record, Status
from sweeper.spec import Study, Trial

TROUBLES = 5
"""The last so many deaths and failures are told with their logs."""


@dataclass
class _Held:
    """A lease under way, of a trial as it went out."""

    trial: Trial
    points: Mapping[Key, str]
    node: str
    gpus: int
    since_s: float
    phase_s: float
    launch: int = 0
    phase: str = "start"
    point: str | None = None


class State:
    """One sitting of a study.

    `kept` are the records that stood when it began, `before` is how many of their verdicts count
    towards what the study asks for. `folder` is the study's.
    """

    def __init__(self, study: Study, kept: Iterable[Record], before: int, folder: Path) -> None:
        self._study = study
        self._attachments = folder / ATTACHMENTS
        self._before = before
        self._asked: set[Key] = set()
        self._launches = 0
        self._more = False
        self._budget: str | None = None
        self._then: str | None = None
        self._verdicts: dict[Key, Status] = {}
        self._held: dict[str, _Held] = {}
        self._spent_gpu_s = 0.0
        self._reckoned_gpu_s: dict[str, float] = {}
        self._leases = 0
        self._deaths: Counter[str] = Counter()
        self._discards: Counter[str] = Counter()
        self._energy_j: dict[str, float] = {}
        self._logs: dict[str, str] = {}
        self._troubles: list[Trouble] = []
        self._pace = Pace()
        self._best = BestSoFar(study)
        self._best.add(kept)

    def planned(
        self,
        trials: Sequence[Trial],
        *,
        more: bool = False,
        budget: str | None = None,
        then: str | None = None,
    ) -> None:
        """Add trials to what there is to do; `more` says that a search may ask for others yet.

        `budget` is where such a search stops, `then` what comes after it, in words.
        """
        self._more, self._budget, self._then = more, budget, then
        for trial in trials:
            self._launches += len(trial.launches)
            self._asked |= _points(trial).keys()
            self._pace.planned(trial)

    def event(self, trial: Trial, event: Mapping[str, Any], now_s: float) -> None:
        """Take an event that is no record."""
        match event["kind"]:
            case "trial":
                self._begin(trial, event, now_s)
            case "phase":
                self._phase(trial, event, now_s)
            case "window":
                self._window(trial, event, now_s)
            case "launched":
                if (held := self._held.get(trial.id)) is not None:
                    held.launch += 1
                    held.phase, held.point, held.phase_s = "start", None, now_s
                self._pace.loading(trial.id, now_s)
            case "attachment" if event["role"] == "engine_log":
                self._logs[trial.id] = str(self._attachments / file_name(event["name"]))
            case "death":
                self._deaths[code(event["reason"])] += 1
                self._trouble(trial.id, event["reason"])
                self._let_go(trial.id, now_s)
            case "ended":
                self._let_go(trial.id, now_s)
                if (told := event.get("gpu_seconds")) is not None:
                    self._spent_gpu_s += told - self._reckoned_gpu_s.pop(trial.id, 0.0)

    def record(self, record: Record, now_s: float) -> None:
        """Take a record: a point has its verdict, or was given up."""
        self._asked.add(record.key)
        if self._verdicts.get(record.key) not in ACCEPTED:
            self._verdicts[record.key] = record.status
        self._pace.verdict(record.key, record.status, now_s)
        self._best.add([record])
        if record.status == "failed":
            self._trouble(record.trial_id, record.reason or "no reason given")

    def log(self, trial_id: str) -> str | None:
        """Where the last engine log of a trial is, if it left one."""
        return self._logs.get(trial_id)

    def best_for(self, record: Record, now_s: float) -> Best | None:
        """The best so far under a record's condition."""
        self._best.now(now_s)
        return self._best.of(record.condition)

    def snapshot(self, now_s: float) -> Snapshot:
        """Everything so far."""
        counted = Counter(self._verdicts.values())
        return Snapshot(
            study=self._study.name,
            asked=len(self._asked),
            before=self._before,
            launches=self._launches,
            more=self._more,
            budget=self._budget,
            then=self._then,
            counts={status: counted[status] for status in STATUSES},
            under_way=tuple(self._under_way(held, now_s) for held in self._held.values()),
            leases=self._leases,
            deaths=dict(self._deaths),
            discards=dict(self._discards),
            gpu_seconds=self._spent_gpu_s
            + sum(held.gpus * (now_s - held.since_s) for held in self._held.values()),
            energy_j=dict(self._energy_j),
            share=None if self._more else self._pace.share(),
            left_s=None if self._more else self._pace.left_s(now_s),
            best=self._best.now(now_s),
            troubles=tuple(self._troubles),
        )

    def _begin(self, trial: Trial, event: Mapping[str, Any], now_s: float) -> None:
        self._let_go(trial.id, now_s)
        self._reckoned_gpu_s.pop(trial.id, None)
        self._leases += 1
        points = _points(trial)
        self._asked |= points.keys()
        if trial.block:
            # What an earlier lease of it came to no longer counts.
            for key in points:
                self._verdicts.pop(key, None)
            self._pace.anew(trial.id)
        self._held[trial.id] = _Held(
            trial=trial,
            points=points,
            node=str(event.get("host") or event.get("node_id") or ""),
            gpus=len(event["devices"]),
            since_s=now_s,
            phase_s=now_s,
        )
        self._pace.began(trial, now_s)

    def _phase(self, trial: Trial, event: Mapping[str, Any], now_s: float) -> None:
        if (held := self._held.get(trial.id)) is not None:
            held.phase, held.point, held.phase_s = event["phase"], event.get("point"), now_s
        if event.get("point") is not None:
            self._pace.loaded(trial.id, now_s)

    def _window(self, trial: Trial, event: Mapping[str, Any], now_s: float) -> None:
        self._pace.window((event["id"], event["launch"], event["stage"]), now_s)
        if event["energy_j"] is None:
            self._discards[first_code(event["reasons"])] += 1
            return
        told = event.get("energy")
        kind = trial.launches[0].points[0].settings.engine.kind
        what = origin(Energy(**told) if told else None, simulated=kind == "simulated")
        self._energy_j[what] = self._energy_j.get(what, 0.0) + event["energy_j"]

    def _let_go(self, trial_id: str, now_s: float) -> None:
        self._pace.ended(trial_id)
        if (held := self._held.pop(trial_id, None)) is not None:
            # By our own clock, until the lease itself tells: one that was lost never does.
            reckoned = held.gpus * (now_s - held.since_s)
            self._reckoned_gpu_s[trial_id] = reckoned
            self._spent_gpu_s += reckoned

    def _trouble(self, trial_id: str, reason: str) -> None:
        last = Trouble(trial_id=trial_id, reason=first_line(reason), log=self.log(trial_id))
        if last not in self._troubles:
            self._troubles = [*self._troubles, last][-TROUBLES:]

    def _under_way(self, held: _Held, now_s: float) -> UnderWay:
        names = {point: name for (point, _, _), name in held.points.items()}
        return UnderWay(
            trial_id=held.trial.id,
            attempt=held.trial.attempt,
            node=held.node,
            gpus=held.gpus,
            launch=min(held.launch + 1, len(held.trial.launches)),
            launches=len(held.trial.launches),
            phase=held.phase,
            point=None if held.point is None else names.get(held.point, held.point),
            phase_s=now_s - held.phase_s,
            held_s=now_s - held.since_s,
            points=len(held.points),
            points_done=sum(key in self._verdicts for key in held.points),
        )


def aged(now: Snapshot, seconds: float) -> Snapshot:
    """A snapshot of so many seconds ago, with what only depends on the clock brought up to now."""
    return replace(
        now,
        under_way=tuple(
            replace(each, phase_s=each.phase_s + seconds, held_s=each.held_s + seconds)
            for each in now.under_way
        ),
        left_s=None if now.left_s is None else max(0.0, now.left_s - seconds),
    )


def _points(trial: Trial) -> dict[Key, str]:
    """The points of a trial, each with its name in a few words."""
    return {
        (point.id, launch.number, launch.stage): brief({**point.condition, **point.chosen})
        or "the point"
        for launch in trial.launches
        for point in launch.points
    }
