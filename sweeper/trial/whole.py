"""Windows of whole work: from the first submission to the last token, nothing cut at the edges."""

from collections.abc import Iterator

from sweeper.engines import Event, Request
from sweeper.spec import Point
from sweeper.trial.bench import Bench
from sweeper.trial.latency import Timeline
from sweeper.trial.warmup import Batch, settled
from sweeper.trial.windows import Edges, Taken, window
from sweeper.workloads import Workload


class WholeWindows:
    """Takes the `whole` windows of one point.

    The unit of work is one batch, or the study's number of requests; it is repeated until the
    window is long enough and has the requests it needs.
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
        """Warm up or settle, then one window.

        Raises:
            Infeasible: the batch does not fit.
            EngineError: the engine failed.
        """
        self._settle()
        settings = self._point.settings
        self._bench.phase("window", self._point)
        timeline, requests = Timeline(), dict[int, Request]()
        witness = self._bench.witness
        if self._bench.meter.waits:
            # A GPU cools by degrees while a reading waits for its tick: so it does at both ends.
            self._bench.read()
        before = witness.glance()
        opening, reason = self._bench.read()
        started_s = self._bench.clock.now()
        ended_s = started_s
        while len(requests) < self._needed or ended_s - started_s < settings.measure.min_window_s:
            for event in self._unit(requests):
                timeline.add(event)
            ended_s = self._bench.clock.now()
        closing = None
        if reason is None:
            closing, reason = self._bench.read()
        after = witness.closed(closing)
        made = window(
            index=index,
            convention="whole",
            edges=Edges(
                started_s=started_s,
                ended_s=ended_s,
                opening=opening,
                closing=closing,
                reason=reason,
                evidence=witness.evidence(before, after, opening, closing),
            ),
            timeline=timeline,
            requests=requests,
            min_window_s=self._bench.meter.min_window_s,
            gpus=len(self._bench.devices),
            streams=self._bench.engine.streams and settings.workload.streams,
            goodput=settings.measure.goodput,
        )
        return Taken(window=made, events=timeline.log.line(index, requests))

    def _settle(self) -> None:
        self._bench.phase("settle" if self._visited else "warm-up", self._point)
        batches: list[Batch] = []
        while not settled(batches, self._point.settings.measure.warmup, self._visited):
            before_s = self._bench.clock.now()
            for _ in self._batch({}, self._point.settings.workload.batch_size):
                pass
            now_s = self._bench.clock.now()
            batches.append(Batch(now_s - before_s, now_s, self._bench.temperatures_c()))
        self._visited = True

    def _unit(self, requests: dict[int, Request]) -> Iterator[Event]:
        workload = self._point.settings.workload
        left = workload.batch_size if workload.requests == "auto" else workload.requests
        if workload.batching == "continuous":
            yield from self._batch(requests, left)
            return
        while left > 0:
            size = min(left, workload.batch_size)
            yield from self._batch(requests, size)
            left -= size

    def _batch(self, requests: dict[int, Request], size: int) -> Iterator[Event]:
        settings = self._point.settings
        batch = self._workload.batch(size)
        requests.update((request.index, request) for request in batch)
        if settings.workload.batching == "continuous":
            return self._bench.engine.serve(iter(batch), settings.workload.batch_size, settings)
        return self._bench.engine.generate(batch, settings)
