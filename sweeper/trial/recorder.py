"""A launch under way, as its records will tell it."""

from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.errors import WrongSetting
from sweeper.meters import Reading
from sweeper.results.components import beside
from sweeper.results.metrics import QUALITY_SCORE, drift, record_metrics
from sweeper.results.reasons import ordered
from sweeper.results.record import Check, Energy, Record, Status, Window, plain
from sweeper.schema import flat
from sweeper.spec import Launch, Point, Trial
from sweeper.trial.bench import Bench, utc_now
from sweeper.trial.events import files
from sweeper.trial.windows import Taken, as_kept

EVENTS = "events_kept"
"""The check that fails where the events of a window are larger than an attachment may be."""


class Recorder:
    """Gathers what is known of a launch, and emits windows and records."""

    def __init__(self, launch: Launch, bench: Bench) -> None:
        self._launch = launch
        self._bench = bench
        self._started_at = utc_now()
        self._load_s: float | None = None
        self._idle_w: dict[str, float] = {}
        self._score: Mapping[str, float] = {}
        self._drift: Mapping[str, float] = {}
        self._checks: list[Check] = []
        self.environment: dict[str, Any] = dict(bench.context.environment)
        self.windows: dict[str, list[Window]] = {point.id: [] for point in launch.points}
        self._events: dict[str, list[bytes]] = {point.id: [] for point in launch.points}

    def knows(self, **facts: Any) -> None:
        """Add to the environment that every record of this launch carries."""
        self.environment.update(facts)

    def checked(self, checks: Sequence[Check]) -> None:
        """Add to the checks that every record of this launch carries."""
        self._checks.extend(checks)

    def loaded(self, load_s: float) -> None:
        """The engine is up."""
        self._load_s = load_s

    def idle(self, name: str, power_w: float | str, readings: Sequence[Reading]) -> None:
        """Idle power, or in place of the number the reason why there is none.

        The environment keeps the readings that it was made of.
        """
        known = self.environment.setdefault("idle_readings", {})
        known[name] = [as_kept(each) for each in readings]
        if isinstance(power_w, str):
            self._checks.append(Check(name=name, ok=False, detail=power_w))
        else:
            self._idle_w[name] = power_w

    def scored(self, score: float | None, facts: Mapping[str, Any]) -> None:
        """Keep what the scorer said of this configuration."""
        self.knows(quality=dict(facts))
        self._score = {} if score is None else {QUALITY_SCORE: score}
        if score is None:
            self.checked([Check(name="quality", ok=False, detail=str(facts["reason"]))])

    def take(self, point: Point, taken: Taken) -> None:
        """Keep a window, and emit it; its events go with the record."""
        window = taken.window
        self.windows[point.id].append(window)
        self._events[point.id].append(taken.events)
        self._emit_window(point, window)

    def take_control(self, point: Point, taken: Taken) -> None:
        """Emit a window of the launch's last visit to its control, which no mean is made of."""
        self._events[point.id].append(taken.events)
        self._emit_window(point, taken.window, control=True)
        self._drift = drift([*self.windows[point.id], taken.window])

    def drifted(self, point: Point) -> None:
        """The launch has no other point: its own windows tell how far it has drifted."""
        self._drift = drift(self.windows[point.id])

    def conclude(self, point: Point) -> None:
        """Emit the record of a point whose windows are all there."""
        windows = self.windows[point.id]
        valid = sum(w.energy_j is not None for w in windows if w.phase == "all")
        status: Status = "ok" if valid >= point.settings.measure.repeats else "energy_invalid"
        self._emit(point, status, _reasons(windows) if status != "ok" else None, self._drift)
        self._drift = {}

    def give_up(self, point: Point, reason: Exception) -> None:
        """Emit the record of a point that cannot be measured, with the windows it has."""
        status: Status = "wrong_setting" if isinstance(reason, WrongSetting) else "infeasible"
        self._emit(point, status, str(reason))

    def _emit_window(self, point: Point, window: Window, **mark: bool) -> None:
        fields = {
            "id": point.id,
            "launch": self._launch.number,
            "stage": self._launch.stage,
            "trial_id": self._bench.context.trial_id,
            "attempt": self._bench.context.attempt,
            **mark,
        }
        self._bench.emit("window", {**fields, **plain(window), "energy": plain(self._energy())})

    def _emit(
        self,
        point: Point,
        status: Status,
        reason: str | None,
        drifts: Mapping[str, float] | None = None,
    ) -> None:
        bench, windows = self._bench, tuple(self.windows[point.id])
        lost = self._attach_events(point)
        metrics, undersampled = record_metrics(windows, len(bench.devices))
        record = Record(
            id=point.id,
            configuration=point.configuration,
            launch=self._launch.number,
            stage=self._launch.stage,
            study=bench.context.study,
            trial_id=bench.context.trial_id,
            attempt=bench.context.attempt,
            status=status,
            reason=reason,
            config=flat(point.settings),
            chosen=dict(point.chosen),
            condition=dict(point.condition),
            convention=point.settings.convention,
            gpus=len(bench.devices),
            environment=self.environment,
            started_at=self._started_at,
            ended_at=utc_now(),
            load_s=self._load_s,
            windows=windows,
            metrics={
                **metrics,
                **self._idle_w,
                **bench.engine.counts(),
                **(drifts or {}),
                **self._score,
            }
            if windows
            else {},
            undersampled=undersampled,
            energy=self._energy(),
            checks=(
                *self._checks,
                *_window_checks(windows),
                *lost,
                *component_checks(self.environment.get("components", {}), windows),
            ),
            launch_command=bench.engine.launch_command(),
        )
        bench.emit("record", record.to_json())

    def _attach_events(self, point: Point) -> list[Check]:
        """Before the record, so that none is without; what could not be kept is a check failed."""
        packed, lost = files(self._events[point.id])
        for number, each in enumerate(packed):
            suffix = f"{point.id}.{number}.events.jsonl.gz"
            self._bench.attach(self._launch, suffix, "events", each, point)
        detail = "too_large: the events of windows " + ", ".join(map(str, lost))
        return [Check(name=EVENTS, ok=False, detail=detail)] if lost else []

    def _energy(self) -> Energy:
        meter = self._bench.meter
        return Energy(
            source=meter.source,
            measured=meter.measured,
            method=meter.method,
            scope=meter.scope,
            systematic=meter.systematic,
        )


def _reasons(windows: Sequence[Window]) -> str:
    return "; ".join(ordered(reason for window in windows for reason in window.reasons))


def _window_checks(windows: Sequence[Window]) -> list[Check]:
    return [
        Check(name=f"window_{window.index}", ok=not window.reasons, detail=window.reason or "")
        for window in windows
    ]


def component_checks(
    opened: Mapping[str, Mapping[str, Any]], windows: Sequence[Window]
) -> list[Check]:
    """Whether each component beside the launch's GPUs was read at every window, and why not.

    One that was not asked for holds, and says why there is none.
    """
    checks = []
    seen = [beside(window.readings).reasons for window in windows]
    for name, facts in opened.items():
        lost = sorted({reasons[name] for reasons in seen if name in reasons})
        why = [str(facts["reason"])] if "reason" in facts else lost
        ok = not why or facts.get("asked") is False
        checks.append(Check(name=f"{name}_energy", ok=ok, detail="; ".join(why)))
    return checks


def failed_record(
    study: str, trial: Trial, launch: Launch, point: Point, reason: str, place: Mapping[str, Any]
) -> Record:
    """The record of a point that was given up for reasons of the machinery."""
    now = utc_now()
    return Record(
        id=point.id,
        configuration=point.configuration,
        launch=launch.number,
        stage=launch.stage,
        study=study,
        trial_id=trial.id,
        attempt=trial.attempt,
        status="failed",
        reason=reason,
        config=flat(point.settings),
        chosen=dict(point.chosen),
        condition=dict(point.condition),
        convention=point.settings.convention,
        gpus=launch.gpus,
        environment=place,
        started_at=now,
        ended_at=now,
    )
