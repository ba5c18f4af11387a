"""What every search keeps to, and a pretend pool on which it is asked and told."""

import random
from collections.abc import Callable, Mapping
from typing import Any

from sweeper.plan import NOMINAL, Cost
from sweeper.results.contents import Contents
from sweeper.results.record import Key, Record
from sweeper.search import Circumstances, Search, search_for
from sweeper.spec import (
    Axis,
    EngineSpec,
    Launch,
    MeasureSpec,
    ModelSpec,
    Point,
    SearchSpec,
    Settings,
    Study,
    Trial,
)
from tests.records import make_record, two_objectives

WIDTH, SIZE, GRAPHS = "engine.tensor_parallel", "workload.batch_size", "engine.graphs"
LENGTH = "workload.input_tokens"
LIMIT_S = 1.0


def axis(key: str, *values: Any) -> Axis:
    return Axis(label=key, choices=tuple({key: value} for value in values))


def study(
    kind: str = "random",
    *,
    launches: int = 1,
    lengths: tuple[int, ...] = (),
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128),
    **search: Any,
) -> Study:
    return Study(
        name="searched",
        settings=Settings(
            model=ModelSpec(shape="tiny", weights="dummy"),
            engine=EngineSpec(kind="simulated"),
            measure=MeasureSpec(launches=launches),
        ),
        axes=(
            axis(WIDTH, 1, 2, 4),
            axis(GRAPHS, True, False),
            axis(SIZE, *sizes),
        ),
        exclude=({WIDTH: 1, SIZE: ">64"},),
        conditions=(axis(LENGTH, *lengths),) if lengths else (),
        limits={"latency_mean_s": LIMIT_S},
        search=SearchSpec(kind=kind, **search),  # type: ignore[arg-type]
    )


def truth(point: Point) -> dict[str, float]:
    """Energy falls with the batch and rises with the width; latency the other way round."""
    engine, size = point.settings.engine, point.settings.workload.batch_size
    width = engine.tensor_parallel
    joules = (1 + 8 / size) * width**0.4 * (1.0 if engine.graphs else 1.3)
    seconds = (0.1 + 0.02 * size) / width**0.6 * (1.0 if engine.graphs else 1.2)
    return two_objectives(joules, seconds * point.settings.workload.input_tokens / 512)


def measured(trial: Trial, launch: Launch, point: Point) -> Record:
    values = truth(point)
    return make_record(
        point.id,
        launch=launch.number,
        trial_id=trial.id,
        configuration=point.configuration,
        metrics=values,
        chosen=point.chosen,
        condition=point.condition,
        gpus=trial.gpus,
    )


Measure = Callable[[Trial, Launch, Point], Record]


class World:
    """Leases on `devices`, which end in an order of chance.

    `asked` are the trials in the order in which they began, `idle` counts moments at which a
    device had nothing to do though the search was not finished.
    """

    def __init__(
        self,
        given: Study,
        *,
        devices: int = 8,
        before: Contents | None = None,
        measure: Measure = measured,
        cost: Cost = NOMINAL,
        lease: Mapping[str, Any] | None = None,
        elapsed: Callable[[], float] = lambda: 0.0,
        seed: int = 0,
    ) -> None:
        before = before or Contents()
        around = Circumstances(
            before=before,
            done=before.accepted().keys(),
            devices=devices,
            cost=cost,
            elapsed=elapsed,
        )
        self.search: Search = search_for(given, around)
        self.devices = devices
        self.measure = measure
        self.lease = lease
        self.records: list[Record] = []
        self.asked: list[Trial] = []
        self.idle = 0
        self._waiting: list[Trial] = []
        self._running: list[Trial] = []
        self._random = random.Random(seed)

    @property
    def free(self) -> int:
        return self.devices - sum(trial.gpus for trial in self._running)

    def run(self, steps: int = 10_000) -> "World":
        """Until nothing is left, or so many leases have ended."""
        for _ in range(steps):
            self._fill()
            if not self._running:
                break
            self._end(self._running.pop(self._random.randrange(len(self._running))))
        return self

    def keys(self) -> list[Key]:
        return [
            (point.id, launch.number, launch.stage)
            for trial in self.asked
            for launch in trial.launches
            for point in launch.points
        ]

    def _fill(self) -> None:
        while self.free:
            fitting = [trial for trial in self._waiting if trial.gpus <= self.free]
            if fitting:
                self._waiting.remove(fitting[0])
                self._running.append(fitting[0])
                continue
            if self.search.finished or len(self._waiting) >= self.free:
                break
            asked = self.search.ask(self.free, len(self._waiting) + len(self._running))
            assert asked or self._running or self.search.finished, "nothing is under way"
            if not asked:
                break
            self.asked += asked
            self._waiting += asked
        if self.free and not self._waiting and not self.search.finished:
            self.idle += 1

    def held(self, trial: Trial) -> list[Record]:
        """What a lease measures."""
        return [
            self.measure(trial, launch, point)
            for launch in trial.launches
            for point in launch.points
        ]

    def _end(self, trial: Trial) -> None:
        for record in self.held(trial):
            self.records.append(record)
            self.search.tell(record)
        seconds = 100.0
        spent = {"seconds": seconds, "gpu_seconds": seconds * trial.gpus, "energy_j": 1000.0}
        self.search.ended(trial, spent if self.lease is None else self.lease)
