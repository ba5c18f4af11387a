"""The protocol of a launch, as one function.

    gate          load      idle          pass 1            pass 2            pass 3        unload
    |-------------|---------|-------------|=A=|=C=|=B=|=D=|=|=D=|=A=|=B=|=C=|=|=B=|=D=|..=|-------|
    memory free?  load_s    context-idle  points shuffled in every pass; each window:
    PIDs          bare-idle               [warm-up | settle | reading --- window --- reading]
                  before load

A point is warmed up on its first visit and settled again on every later one, as another batch
size ran in between. Windows are emitted as they close and a record when its point is complete;
the launch goes on when the emitter returns, so nothing but the engine works inside a window.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sweeper.errors import Infeasible, MeterError, WrongSetting
from sweeper.meters import Reading
from sweeper.results.power import pack_trace
from sweeper.spec import Convention, Launch, Point
from sweeper.trial.agenda import ListAgenda
from sweeper.trial.bench import Bench
from sweeper.trial.gate import wait_until_free
from sweeper.trial.recorder import Recorder
from sweeper.trial.steady import SteadyWindows
from sweeper.trial.whole import WholeWindows
from sweeper.trial.windows import as_kept
from sweeper.workloads import workload_class

CONVENTIONS: Mapping[Convention, type[WholeWindows] | type[SteadyWindows]] = {
    "whole": WholeWindows,
    "steady": SteadyWindows,
}


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
        MeterError: the meter cannot be opened, or the devices are not free.
    """
    recorder = Recorder(launch, bench)
    with closing(bench.meter), closing(bench.engine):
        bench.phase("gate")
        recorder.knows(devices=dict(bench.meter.open()))
        began_s, (opening, _) = bench.clock.now(), bench.read()
        recorder.checked(wait_until_free(bench.meter, bench.clock))
        recorder.idle("bare_idle_w", *idle_power(bench))
        try:
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
    recorder.knows(resolved_engine=dict(bench.engine.load()))
    recorder.loaded(bench.clock.now() - before_s)


def measure(launch: Launch, bench: Bench, recorder: Recorder) -> None:
    """Work through the agenda, a window at a time."""
    repeats = launch.points[0].settings.measure.repeats
    agenda = ListAgenda(launch.points, repeats, launch.seed)
    series: dict[str, WholeWindows | SteadyWindows] = {}
    while (point := agenda.next()) is not None:
        if point.id not in series:
            series[point.id] = windows_of(point, launch, bench, recorder)
        try:
            taken = series[point.id].take(len(recorder.windows[point.id]))
        except Infeasible as reason:
            agenda.drop(point)
            recorder.give_up(point, reason)
            continue
        recorder.take(point, taken)
        if agenda.tell(point, taken.window):
            recorder.conclude(point)


def windows_of(
    point: Point, launch: Launch, bench: Bench, recorder: Recorder
) -> WholeWindows | SteadyWindows:
    """What takes the windows of a point, by its convention."""
    settings = point.settings
    resolved: Mapping[str, Any] = recorder.environment["resolved_engine"]
    workload = workload_class(settings.workload.kind)(
        settings.workload, int(resolved["vocabulary"]), launch.seed
    )
    per_window = -(-launch.min_requests // settings.measure.repeats)
    return CONVENTIONS[settings.convention](point, workload, bench, per_window)


def idle_power(bench: Bench) -> tuple[float | str, Sequence[Reading]]:
    """Mean watts over the shortest interval the meter can tell, or why there is no number.

    Beside it the readings that it is made of.
    """
    try:
        before = bench.meter.read()
        bench.clock.sleep(bench.meter.min_window_s)
        after = bench.meter.read()
    except MeterError as error:
        return str(error), ()
    spent_j = sum(after.energy_j.values()) - sum(before.energy_j.values())
    if spent_j <= 0 or after.t_s <= before.t_s:
        return "counter_stuck: the counters did not move while idle", (before, after)
    return spent_j / (after.t_s - before.t_s), (before, after)
