"""The protocol of a launch, as one function.

    gate          load      idle          pass 1            pass 2            pass 3        unload
    |-------------|---------|-------------|=A=|=C=|=B=|=D=|=|=D=|=A=|=B=|=C=|=|=B=|=D=|..=|-------|
    memory free?  load_s    context-idle  points shuffled in every pass; each window:
    PIDs          bare-idle               [warm-up | settle | reading --- window --- reading]
    GPUs are set  before load                                               GPUs are set back

A point is warmed up on its first visit and settled again on every later one, as another batch
size ran in between. The point that was measured first is the launch's control: when all is done it
is visited once more, and its record tells how far it has drifted. Windows are emitted as they close
and a record when its point is complete; the launch goes on when the emitter returns, so nothing but
the engine works inside a window.
"""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sweeper.errors import Infeasible, MeterError, WrongSetting
from sweeper.meters import Reading
from sweeper.results.power import pack_trace
from sweeper.results.record import Check
from sweeper.spec import Launch, Point, QualitySpec
from sweeper.trial.agenda import ListAgenda
from sweeper.trial.bench import Bench
from sweeper.trial.gate import wait_until_free
from sweeper.trial.phases import Series, Visits
from sweeper.trial.recorder import Recorder
from sweeper.trial.scoring import score
from sweeper.trial.windows import as_kept
from sweeper.workloads import workload_class

SAME_IDLE = 0.02
"""Two idle powers in a row that differ by less, relatively, are at rest."""
MOST_IDLES = 6
"""A GPU's power falls for several seconds after its work has ended (cuda-samples, issue 74)."""

Idle = tuple[float | str, Sequence[Reading]]
"""Watts, or why there is no number, and the two readings that it is made of."""


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What a whole launch took, from its gate to its unloading, on its own clock.

    `energy_j` is of its devices, everything between the windows included; `None` where a reading
    failed; `readings` are what it is made of. `source`, `measured` and `scope` say what these
    joules are.
    """

    seconds: float
    energy_j: float | None
    readings: Sequence[Mapping[str, Any]]
    source: str
    measured: bool
    scope: str


def run_launch(launch: Launch, bench: Bench) -> Spent:
    """Measure a launch's points, emitting `phase`, `window` and `record` events.

    Raises:
        EngineError: the engine failed for reasons of the machinery. The launch is lost; points
            that have no record yet can be measured by another.
        MeterError: the meter cannot be opened, or the devices are not free, or cannot be set.
    """
    recorder = Recorder(launch, bench)
    if launch.quality is not None:
        score_first(launch.quality, launch, bench, recorder)
    with (
        closing(bench.meter),
        closing(bench.components),
        closing(bench.gpu_settings),
        closing(bench.engine),
    ):
        bench.phase("gate")
        facts = dict(bench.meter.open())
        recorder.knows(devices=facts, components=dict(bench.components.open()))
        bench.witness.opened(facts)
        began_s, (opening, _) = bench.clock.now(), bench.read()
        if not bench.occupied:
            recorder.checked(wait_until_free(bench.meter, bench.clock))
        try:
            if applied := bench.gpu_settings.apply():
                recorder.knows(gpu_settings=dict(applied))
            recorder.idle("bare_idle_w", *bare_idle(bench))
            load(bench, recorder)
        except (Infeasible, WrongSetting) as reason:
            for point in launch.points:
                recorder.give_up(point, reason)
            return spent(bench, began_s, opening)
        bench.phase("idle")
        recorder.idle("context_idle_w", *idle_power(bench))
        measure(launch, bench, recorder)
        bench.phase("unload")
        if trace := bench.meter.power_trace():
            bench.attach(launch, "power.csv.gz", "power_trace", pack_trace(trace))
        return spent(bench, began_s, opening)


def score_first(spec: QualitySpec, launch: Launch, bench: Bench, recorder: Recorder) -> None:
    """Run the study's scorer before anything is read or loaded; every record keeps what it says."""
    told_s = -math.inf

    def alive() -> None:
        nonlocal told_s
        if (now_s := time.monotonic()) - told_s >= ALIVE_PERIOD_S:
            told_s = now_s
            bench.phase("quality")

    found = score(spec, launch.points[0].settings, bench.engine, alive)
    recorder.scored(found.value, found.facts(spec))


ALIVE_PERIOD_S = 20.0
"""How often a scorer that is at work is told of: far below what silence is allowed."""


def spent(bench: Bench, began_s: float, opening: Reading | None) -> Spent:
    """What went by since the launch began, and since its first reading."""
    closing_reading, _ = bench.read()
    energy_j = None
    if opening is not None and closing_reading is not None:
        total_j = sum(closing_reading.energy_j.values()) - sum(opening.energy_j.values())
        energy_j = total_j if total_j > 0 else None
    meter = bench.meter
    return Spent(
        seconds=bench.clock.now() - began_s,
        energy_j=energy_j,
        readings=[as_kept(each) for each in (opening, closing_reading) if each is not None],
        source=meter.source,
        measured=meter.measured,
        scope=meter.scope,
    )


def load(bench: Bench, recorder: Recorder) -> None:
    """Start the engine; how long it took and what it resolved to go into every record."""
    bench.phase("load")
    before_s = bench.clock.now()
    resolved = dict(bench.engine.load())
    recorder.knows(resolved_engine=resolved)
    recorder.loaded(bench.clock.now() - before_s)
    recorder.checked(settings_followed(resolved))
    bench.witness.loaded()


def settings_followed(resolved: Mapping[str, Any]) -> list[Check]:
    """Whether an engine left alone what was not asked of it; none of an engine that cannot tell.

    It may turn a setting because of another one, so that two sides of a comparison differ in more
    than the study says. `changed` names such settings, and how the other side is pinned to them.
    """
    changed = resolved.get("changed")
    if changed is None:
        return []
    said = "; ".join(f"{name}: {why}" for name, why in sorted(changed.items()))
    return [Check(name="settings_followed", ok=not changed, detail=said)]


def measure(launch: Launch, bench: Bench, recorder: Recorder) -> None:
    """Work through the agenda, a window at a time, and visit the control once more.

    Its record waits for that visit; all others are emitted as their points are complete.
    """
    repeats = launch.points[0].settings.measure.repeats
    agenda = ListAgenda(launch.points, repeats, launch.seed)
    visits: dict[str, Visits] = {}
    control: Point | None = None
    complete = False
    while (point := agenda.next()) is not None:
        if point.id not in visits:
            visits[point.id] = visits_of(point, launch, bench, recorder)
        windows = []
        try:
            for taken in visits[point.id].take(len(recorder.windows[point.id])):
                recorder.take(point, taken)
                windows.append(taken.window)
                bench.gpu_settings.check(taken.window.evidence)
        except (Infeasible, WrongSetting) as reason:
            agenda.drop(point)
            recorder.give_up(point, reason)
            control = None if point is control else control
            continue
        control = control or point
        if agenda.tell(point, windows):
            if point is control:
                complete = True
            else:
                recorder.conclude(point)
    if control is not None and complete:
        if len(visits) > 1:
            visit_again(control, visits[control.id], recorder)
        else:
            # Its own last window closed just now.
            recorder.drifted(control)
        recorder.conclude(control)


def visit_again(control: Point, visits: Visits, recorder: Recorder) -> None:
    """One more window of the control, beside those that its metrics are made of."""
    try:
        taken = visits.whole(len(recorder.windows[control.id]))
    except Infeasible as reason:
        recorder.checked([Check(name="control", ok=False, detail=str(reason))])
        return
    recorder.take_control(control, taken)


def visits_of(point: Point, launch: Launch, bench: Bench, recorder: Recorder) -> Visits:
    """What takes the windows of a point."""
    resolved: Mapping[str, Any] = recorder.environment["resolved_engine"]
    vocabulary = int(resolved["vocabulary"])
    per_window = -(-launch.min_requests // point.settings.measure.repeats)

    def make(of: Point, kind: type[Series]) -> Series:
        spec = of.settings.workload
        workload = workload_class(spec.kind)(spec, vocabulary, launch.seed)
        return kind(of, workload, bench, per_window)

    return Visits(point, make)


def bare_idle(bench: Bench) -> Idle:
    """Power at rest before the engine is loaded, which a server that runs already does not show."""
    if bench.occupied:
        return "gpu_not_free: the server runs already", ()
    return idle_power(bench)


def idle_power(bench: Bench) -> Idle:
    """Mean power at rest, or why there is no number.

    A counter is read over intervals as short as its meter allows, until two in a row agree: power
    comes down slowly after work, and after the load of an engine.
    """
    last = interval_power(bench)
    for _ in range(MOST_IDLES - 1):
        if isinstance(last[0], str) or not bench.meter.waits:
            break
        before_w, last = last[0], interval_power(bench)
        if isinstance(last[0], str) or abs(last[0] - before_w) <= SAME_IDLE * before_w:
            break
    return last


def interval_power(bench: Bench) -> Idle:
    """Mean power over the shortest interval the meter can tell, or why there is no number."""
    try:
        before = bench.meter.read()
        bench.clock.sleep(bench.meter.min_window_s)
        after = bench.meter.read()
    except MeterError as error:
        return str(error), ()
    spent_j = sum(after.energy_j.values()) - sum(before.energy_j.values())
    if spent_j <= 0 or after.t_s <= before.t_s:
        return "counter_stuck: the counters did not move while idle", (before, after)
    bench.witness.rested(before, after)
    return spent_j / (after.t_s - before.t_s), (before, after)
