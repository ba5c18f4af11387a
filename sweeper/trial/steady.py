"""Windows of a steady state: all slots filled, neither the ramp nor the drain inside."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import TypeVar

from sweeper.engines import Event, Request
from sweeper.meters import Reading
from sweeper.spec import Point
from sweeper.trial.bench import Bench
from sweeper.trial.evidence import Glance
from sweeper.trial.latency import Timeline
from sweeper.trial.warmup import Batch, settled
from sweeper.trial.windows import Edges, Taken, window
from sweeper.workloads import Workload

_Done = TypeVar("_Done")


class SteadyWindows:
    """Takes the `steady` windows of one point.

    Requests are sent in a closed loop with staggered ends. As many finished requests as there are
    slots are a turn: one batch of warm-up. A window is whole turns, as prefills come in bursts
    that repeat with every turn, and a part of one sees more or fewer than its share. Edges are
    asked for right after a request's first token, so that a window holds as many prefills as its
    tokens need.
    """

    def __init__(
        self, point: Point, workload: Workload, bench: Bench, requests_per_window: int
    ) -> None:
        self._point = point
        self._workload = workload
        self._bench = bench
        self._needed = requests_per_window
        self._visited = False

    def take(self, index: int) -> Taken:
        """Fill the slots, warm up or settle, then one window.

        Raises:
            Infeasible: the batch does not fit, or the engine cannot serve continuously.
            EngineError: the engine failed.
        """
        settings, witness = self._point.settings, self._bench.witness
        in_flight = settings.workload.batch_size
        timeline, requests = Timeline(), dict[int, Request]()
        source = _noted(self._workload.stream(in_flight), requests)
        with (
            closing(self._bench.engine.serve(source, in_flight, settings)) as events,
            ThreadPoolExecutor(max_workers=1) as reader,
        ):
            beside = _Beside(events, timeline, reader, waits=self._bench.meter.waits)
            self._settle(events, timeline, in_flight)
            self._bench.phase("window", self._point)
            before = beside.done(witness.glance)
            beside.until_a_first_token()
            opening, reason = beside.done(self._bench.read)
            started_s = opening.t_s if opening else self._bench.clock.now()
            self._fill(events, timeline, started_s, in_flight)
            beside.until_a_first_token()
            closing_, late, after = beside.done(self._close)
            ended_s = closing_.t_s if closing_ else self._bench.clock.now()
            _complete(events, timeline, ended_s)
        made = window(
            index=index,
            convention="steady",
            edges=Edges(
                started_s=started_s,
                ended_s=ended_s,
                opening=opening,
                closing=closing_,
                reason=reason or late,
                evidence=witness.evidence(before, after, opening, closing_),
            ),
            timeline=timeline,
            requests=requests,
            min_window_s=self._bench.meter.min_window_s,
            gpus=len(self._bench.devices),
            streams=self._bench.engine.streams and settings.workload.streams,
            goodput=settings.measure.goodput,
        )
        return Taken(window=made, events=timeline.log.line(index, requests))

    def _settle(self, events: Iterator[Event], timeline: Timeline, in_flight: int) -> None:
        self._bench.phase("settle" if self._visited else "warm-up", self._point)
        turns: list[Batch] = []
        finished, since_s = 0, self._bench.clock.now()
        warmup = self._point.settings.measure.warmup
        while not settled(turns, warmup, self._visited):
            event = next(events)
            timeline.add(event)
            finished += event.kind == "finished"
            if finished == in_flight:
                turns.append(Batch(event.t_s - since_s, event.t_s, self._bench.temperatures_c()))
                finished, since_s = 0, event.t_s
        self._visited = True

    def _fill(
        self, events: Iterator[Event], timeline: Timeline, started_s: float, in_flight: int
    ) -> None:
        """Let whole turns go by, until they are long enough and have the requests needed."""
        finished = 0
        min_window_s = self._point.settings.measure.min_window_s
        for event in events:
            timeline.add(event)
            if event.kind != "finished" or event.t_s <= started_s:
                continue
            finished += 1
            enough = finished >= self._needed and event.t_s - started_s >= min_window_s
            if enough and finished % in_flight == 0:
                return

    def _close(self) -> tuple[Reading | None, str | None, Glance]:
        reading, reason = self._bench.read()
        return reading, reason, self._bench.witness.closed(reading)


class _Beside:
    """Does something while the engine goes on.

    What `waits`, for a tick or for a device to answer, does so in a thread, while its events are
    taken; what takes no time on a clock of the engine's own is done at once.
    """

    def __init__(
        self,
        events: Iterator[Event],
        timeline: Timeline,
        thread: ThreadPoolExecutor,
        *,
        waits: bool,
    ) -> None:
        self._events = events
        self._timeline = timeline
        self._thread = thread
        self._waits = waits

    def until_a_first_token(self) -> None:
        """Take events until a request has got its first token, after which edges are asked for."""
        for event in self._events:
            self._timeline.add(event)
            if event.kind == "first_token":
                return

    def done(self, what: Callable[[], _Done]) -> _Done:
        """What `what` returns, with all events in the timeline that came meanwhile."""
        if not self._waits:
            return what()
        found: Future[_Done] = self._thread.submit(what)
        while not found.done():
            self._timeline.add(next(self._events))
        return found.result()


def _complete(events: Iterator[Event], timeline: Timeline, ended_s: float) -> None:
    """Take what else happened at the very moment of the edge."""
    for event in events:
        timeline.add(event)
        if event.t_s > ended_s:
            return


def _noted(source: Iterator[Request], requests: dict[int, Request]) -> Iterator[Request]:
    for request in source:
        requests[request.index] = request
        yield request
