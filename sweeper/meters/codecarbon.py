"""An offline estimate of a machine's energy, for machines without counters: CodeCarbon.

CodeCarbon is used through what it publishes: `flush` forces an update and hands the totals to an
output handler. It is kept from the network (the carbon intensity is forced), from files (no output
methods), from its log, and from users' settings of its own (PUE above all), which would change
joules behind a study's back.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from codecarbon import OfflineEmissionsTracker
from codecarbon.output_methods.base_output import BaseOutput
from codecarbon.output_methods.emissions_data import EmissionsData

from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError
from sweeper.meters import Reading

J_PER_KWH = 3.6e6
NEVER_S = 1e6
"""CodeCarbon's own updates would race with a reading's; only `flush` updates."""
STUCK_S = 1.0


class _Totals(BaseOutput):  # type: ignore[misc]  # read as Any
    """Keeps the last totals that CodeCarbon reported."""

    def __init__(self) -> None:
        self.last: EmissionsData | None = None

    def out(self, total: EmissionsData, delta: EmissionsData) -> None:
        self.last = total


class CodeCarbonMeter:
    """CPU and memory of the whole machine, estimated; GPUs are not in it.

    Where the processor's RAPL counters can be read CodeCarbon uses them; elsewhere the CPU's power
    follows from its load and a nominal power, sampled every second, and the memory's from its size.
    Other processes on the machine are in it.
    """

    source = "codecarbon"
    measured = False
    method = "estimate"
    scope = "node cpu+memory"
    systematic: float | None = None
    """Unknown: deviations of up to 40 % have been reported (arXiv 2509.22092)."""
    min_window_s = 5.0
    waits = False

    def __init__(self, devices: Sequence[str], clock: Clock, engine: Engine | None = None) -> None:
        self._devices = tuple(devices)
        self._clock = clock
        self._totals = _Totals()
        self._tracker: Any = None
        self._moved: dict[str, tuple[float, float]] = {}
        self._last: Reading | None = None

    def open(self) -> Mapping[str, Any]:
        """What CodeCarbon knows of the machine.

        Raises:
            MeterError: the launch holds GPUs, of which this estimate would say nothing.
        """
        self.close()
        if self._devices:
            raise MeterError(
                "device_unknown",
                f"CodeCarbon's estimate leaves out {', '.join(self._devices)}; "
                "GPUs are measured with meter: nvml",
            )
        logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        self._totals = _Totals()
        self._tracker = OfflineEmissionsTracker(
            country_iso_code="USA",
            force_carbon_intensity_g_co2e_kwh=0.0,
            measure_power_secs=NEVER_S,
            api_call_interval=-1,
            output_methods=[],
            output_handlers=[self._totals],
            tracking_mode="machine",
            allow_multiple_runs=True,
            gpu_ids=[],
            pue=1.0,
            wue=0.0,
            force_cpu_power=None,
            force_ram_power=None,
            force_mode_cpu_load=False,
            log_level="critical",
        )
        self._tracker.start()
        self._moved = {}
        self._last = None
        self._update()
        return {"cpu_model": self._total().cpu_model, "gpus": []}

    def read(self) -> Reading:
        """The estimate's two components at this moment.

        Raises:
            MeterError: `not_open`; `estimate_failed` where CodeCarbon gives no totals;
                `counter_stuck` where a component stood still for `STUCK_S`, which CodeCarbon does
                when it cannot read it, and calls 0 kWh.
        """
        if self._tracker is None:
            raise MeterError("not_open", "the meter was closed, or never opened")
        at_s = self._clock.now()
        self._update()
        total = self._total()
        joules = {
            "cpu": total.cpu_energy * J_PER_KWH,
            "memory": total.ram_energy * J_PER_KWH,
        }
        for component, value in joules.items():
            self._check(component, value, at_s)
        if self._last is not None and self._last.energy_j == joules:
            # CodeCarbon updates no more often than every 50 ms; the totals are of that time.
            return self._last
        self._last = Reading(t_s=at_s, energy_j=joules)
        return self._last

    def _check(self, component: str, joules: float, at_s: float) -> None:
        since_s, before = self._moved.get(component, (at_s, -1.0))
        if joules > before:
            self._moved[component] = at_s, joules
        elif at_s - since_s > STUCK_S:
            raise MeterError(
                "counter_stuck",
                f"CodeCarbon's {component} stood at {joules} J for {at_s - since_s:.1f} s",
            )

    def _update(self) -> None:
        self._totals.last = None
        self._tracker.flush()

    def _total(self) -> EmissionsData:
        if self._totals.last is None:
            raise MeterError("estimate_failed", "CodeCarbon reported no totals")
        return self._totals.last

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        """Nothing: there is no device to be free."""
        return {}

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        """None is kept."""
        return ()

    def close(self) -> None:
        """Stop CodeCarbon's threads."""
        if self._tracker is not None:
            self._tracker.stop()
            self._tracker = None
