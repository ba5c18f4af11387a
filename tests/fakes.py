"""Parts of known behaviour for tests of the protocol: an engine, a meter and a clock."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from sweeper.engines import Event, Request
from sweeper.errors import Infeasible, MeterError
from sweeper.meters import Reading
from sweeper.spec import Settings


class FakeClock:
    """Time that goes by only when somebody lets it."""

    def __init__(self) -> None:
        self.t_s = 100.0

    def now(self) -> float:
        return self.t_s

    def sleep(self, seconds: float) -> None:
        self.t_s += seconds


class FakeEngine:
    """Prefill takes `prefill_s`, every step `step_s`; one token per running request and step."""

    streams = True
    continuous = True
    needs_gpu = False

    def __init__(
        self,
        clock: FakeClock,
        *,
        prefill_s: float = 0.5,
        step_s: float = 0.125,
        load_s: float = 3.0,
        too_large: int | None = None,
        load_error: Exception | None = None,
    ) -> None:
        self.clock = clock
        self.prefill_s = prefill_s
        self.step_s = step_s
        self.load_s = load_s
        self.too_large = too_large
        self.load_error = load_error
        self.batches: list[int] = []
        self.closed = 0
        self.open_streams = 0

    @classmethod
    def isolated(cls, settings: Settings) -> bool:
        return False

    def load(self) -> Mapping[str, Any]:
        self.clock.sleep(self.load_s)
        if self.load_error:
            raise self.load_error
        return {"vocabulary": 1000, "engine": "fake"}

    def generate(
        self, requests: Sequence[Request], settings: Settings
    ) -> Generator[Event, None, None]:
        self.batches.append(len(requests))
        self._refuse(len(requests))
        for request in requests:
            yield Event("admitted", self.clock.now(), request.index)
        self.clock.sleep(self.prefill_s)
        for request in requests:
            yield Event("first_token", self.clock.now(), request.index)
        for _ in range(requests[0].output_tokens - 1):
            self.clock.sleep(self.step_s)
            yield Event("tokens", self.clock.now(), tokens=len(requests), running=len(requests))
        for request in requests:
            yield Event("finished", self.clock.now(), request.index)

    def serve(
        self, source: Iterator[Request], in_flight: int, settings: Settings
    ) -> Generator[Event, None, None]:
        self._refuse(in_flight)
        self.open_streams += 1
        running: dict[int, int] = {}
        try:
            while True:
                while len(running) < in_flight:
                    request = next(source, None)
                    if request is None:
                        break
                    yield Event("admitted", self.clock.now(), request.index)
                    self.clock.sleep(self.prefill_s)
                    yield Event("first_token", self.clock.now(), request.index)
                    running[request.index] = request.output_tokens - 1
                    if not running[request.index]:
                        del running[request.index]
                        yield Event("finished", self.clock.now(), request.index)
                if not running:
                    return
                self.clock.sleep(self.step_s)
                yield Event("tokens", self.clock.now(), tokens=len(running), running=len(running))
                for index in list(running):
                    running[index] -= 1
                    if not running[index]:
                        del running[index]
                        yield Event("finished", self.clock.now(), index)
        finally:
            self.open_streams -= 1

    def progress(self) -> int:
        return len(self.batches)

    def counts(self) -> Mapping[str, float]:
        return {"peak_memory_bytes": 1e9}

    def launch_command(self) -> str:
        return "fake --serve"

    def close(self) -> None:
        self.closed += 1

    def _refuse(self, size: int) -> None:
        if self.too_large is not None and size >= self.too_large:
            raise Infeasible(f"out of memory at batch {size}")


class FakeMeter:
    """A constant `power_w` on each device; failures by the number of the reading."""

    source, measured, method, scope = "fake", True, "counter", "gpu"
    systematic: float | None = None
    min_window_s = 5.0

    def __init__(
        self,
        clock: FakeClock,
        devices: Sequence[str] = ("GPU-a", "GPU-b"),
        *,
        power_w: float = 200.0,
        fails: Mapping[int, MeterError] | None = None,
        waits: bool = False,
        state: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.clock = clock
        self.devices = tuple(devices)
        self.power_w = power_w
        self.fails = dict(fails or {})
        self.waits = waits
        self.readings = 0
        self.closed = 0
        self._state = state or {}

    def open(self) -> Mapping[str, Any]:
        return {device: {"name": "Fake GPU"} for device in self.devices}

    def read(self) -> Reading:
        self.readings += 1
        if error := self.fails.get(self.readings):
            raise error
        t_s = self.clock.now()
        return Reading(t_s, dict.fromkeys(self.devices, self.power_w * t_s))

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        return self._state

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        return [(self.clock.now(), device, self.power_w) for device in self.devices]

    def close(self) -> None:
        self.closed += 1
