"""NVIDIA GPUs through NVML: the energy counter, instant power, and what else a device tells.

The only file that imports pynvml. Devices are UUIDs: NVML knows nothing of CUDA_VISIBLE_DEVICES
and counts in another order than CUDA.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import pynvml

from sweeper.clocks import RealClock
from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError
from sweeper.meters import Reading
from sweeper.meters.counter import Counters, periods_s, read_aligned
from sweeper.meters.trace import PowerTrace, Trace

CODES: Mapping[int, str] = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "nvml_missing",
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "driver_not_loaded",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "driver_mismatch",
    pynvml.NVML_ERROR_NOT_SUPPORTED: "not_supported",
    pynvml.NVML_ERROR_FUNCTION_NOT_FOUND: "not_supported",
    pynvml.NVML_ERROR_NO_PERMISSION: "no_permission",
    pynvml.NVML_ERROR_NOT_FOUND: "device_unknown",
    pynvml.NVML_ERROR_GPU_NOT_FOUND: "device_unknown",
    pynvml.NVML_ERROR_GPU_IS_LOST: "gpu_lost",
    pynvml.NVML_ERROR_RESET_REQUIRED: "gpu_lost",
    pynvml.NVML_ERROR_TIMEOUT: "nvml_timeout",
    pynvml.NVML_ERROR_UNINITIALIZED: "not_open",
}
"""Reason codes of what NVML may answer; anything else is `nvml_error`."""
UNTOLD = (
    pynvml.NVMLError_NotSupported,
    pynvml.NVMLError_FunctionNotFound,
    pynvml.NVMLError_NoPermission,
)
"""Answers that mean that a fact is not to be had here, while the device is well."""
MODULE_NAMES = ("GH200",)
"""Grace Hopper counts the module: GPU, CPU and memory (as found by Zeus, pull request 172)."""
CLOCK_DRIFT = 0.05
MACHINE = RealClock()

Handle = Any
PowerReader = Callable[[], float]
Answer = TypeVar("Answer")


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what NVML raises into a `MeterError` with a reason code."""
    try:
        yield
    except pynvml.NVMLError as error:
        raise MeterError(CODES.get(error.value, "nvml_error"), f"{what}: {error}") from error


@contextmanager
def session() -> Iterator[None]:
    """Hold NVML open; sessions nest.

    Raises:
        MeterError: there is no library or no driver (`nvml_missing`, `driver_not_loaded`, ..).
    """
    with explained("NVML"):
        pynvml.nvmlInit()
    try:
        yield
    finally:
        with suppress(pynvml.NVMLError):
            pynvml.nvmlShutdown()


def handle_of(uuid: str) -> Handle:
    """The device of that UUID.

    Raises:
        MeterError: `device_unknown` where there is none, `mig` for a slice of one or a device
            that is sliced: NVML knows no energy of slices.
    """
    if uuid.startswith("MIG-"):
        raise MeterError("mig", f"{uuid} is a MIG slice, whose energy NVML does not tell")
    with explained(uuid):
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
    if _sliced(handle):
        raise MeterError("mig", f"{uuid} is in MIG mode; energy is told of whole GPUs only")
    return handle


def told(call: Callable[..., Any], *args: Any) -> Any:
    """What a call returns, or `None` where it is not supported or not allowed here."""
    with explained(call.__name__):
        try:
            return call(*args)
        except UNTOLD:
            return None


def energy_j(uuid: str, handle: Handle) -> float:
    """The counter: joules since the driver was loaded."""
    with explained(f"energy counter of {uuid}"):
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3


def power_method(handle: Handle) -> str:
    """`instant` where the GPU tells its instant power, else `usage`.

    `usage` is a mean over one second on Ampere and later (except GA100), as NVML documents it.
    """
    return "usage" if _instant_w(handle) is None else "instant"


def power_reader(handle: Handle) -> PowerReader:
    """How to read watts of a device, by its `power_method`; raises `MeterError` when it fails."""
    if power_method(handle) == "usage":
        return lambda: _usage_w(handle)

    def instant() -> float:
        watts = _instant_w(handle)
        if watts is None:
            raise MeterError("not_supported", "instant power, which was there before")
        return watts

    return instant


def _usage_w(handle: Handle) -> float:
    with explained("power usage"):
        return float(pynvml.nvmlDeviceGetPowerUsage(handle)) / 1e3


def _instant_w(handle: Handle) -> float | None:
    field = (pynvml.NVML_FI_DEV_POWER_INSTANT, pynvml.NVML_POWER_SCOPE_GPU)
    values = told(pynvml.nvmlDeviceGetFieldValues, handle, [field])
    if values is None:
        return None
    answer = values[0].nvmlReturn
    if answer in {pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_INVALID_ARGUMENT}:
        return None
    with explained("instant power"):
        if answer != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(answer)
    return float(values[0].value.uiVal) / 1e3


def facts_of(handle: Handle) -> dict[str, Any]:
    """What a device is and how it is set; what it does not tell is absent."""
    limit_mw = told(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    default_mw = told(pynvml.nvmlDeviceGetPowerManagementDefaultLimit, handle)
    memory = told(pynvml.nvmlDeviceGetMemoryInfo, handle)
    persistence = told(pynvml.nvmlDeviceGetPersistenceMode, handle)
    ecc = told(pynvml.nvmlDeviceGetEccMode, handle)
    uncorrected = told(
        pynvml.nvmlDeviceGetTotalEccErrors,
        handle,
        pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED,
        pynvml.NVML_VOLATILE_ECC,
    )
    pci = told(pynvml.nvmlDeviceGetPciInfo, handle)
    facts = {
        "uuid": told(pynvml.nvmlDeviceGetUUID, handle),
        "name": told(pynvml.nvmlDeviceGetName, handle),
        "index": told(pynvml.nvmlDeviceGetIndex, handle),
        "pci_id": pci and str(pci.busId),
        "vbios": told(pynvml.nvmlDeviceGetVbiosVersion, handle),
        "memory_total_bytes": memory and int(memory.total),
        "power_limit_w": limit_mw and limit_mw / 1e3,
        "power_limit_default_w": default_mw and default_mw / 1e3,
        "persistence": persistence if persistence is None else bool(persistence),
        "ecc": ecc and bool(ecc[0]),
        "ecc_uncorrected": uncorrected,
        "mig": _sliced(handle),
        "temperature_c": _temperature_c(handle),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _sliced(handle: Handle) -> bool:
    current, _ = told(pynvml.nvmlDeviceGetMigMode, handle) or (0, 0)
    return bool(current)


def _temperature_c(handle: Handle) -> float | None:
    celsius = told(pynvml.nvmlDeviceGetTemperatureV, handle, pynvml.NVML_TEMPERATURE_GPU)
    if celsius is None:
        # Drivers before 570 know only the call that is going away.
        celsius = told(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    return None if celsius is None else float(celsius)


def state_of(handle: Handle) -> dict[str, Any]:
    """What a device is doing now, of what `Meter.state` names."""
    processes = told(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    memory = told(pynvml.nvmlDeviceGetMemoryInfo, handle)
    state = {
        "compute_pids": processes if processes is None else sorted(p.pid for p in processes),
        "memory_used_bytes": memory and int(memory.used),
        "memory_total_bytes": memory and int(memory.total),
        "temperature_c": _temperature_c(handle),
    }
    return {name: value for name, value in state.items() if value is not None}


def gpus_of_node() -> Sequence[Mapping[str, Any]]:
    """The facts of every whole GPU of this node, in NVML's order; none without NVML.

    Raises:
        MeterError: there is NVML, but it or a device does not answer.
    """
    try:
        with session():
            rows = each_gpu(facts_of)
    except MeterError as error:
        if error.code in {"nvml_missing", "driver_not_loaded"}:
            return []
        raise
    found = []
    for row in rows:
        if isinstance(row, MeterError):
            raise row
        found.append(row)
    return found


def each_gpu(ask: Callable[[Handle], Answer]) -> Sequence[Answer | MeterError]:
    """What every GPU of this node answers, or why it does not, in NVML's order.

    Raises:
        MeterError: NVML does not tell how many there are.
    """
    with explained("device count"):
        count = pynvml.nvmlDeviceGetCount()
    return [_answer(index, ask) for index in range(count)]


def _answer(index: int, ask: Callable[[Handle], Answer]) -> Answer | MeterError:
    try:
        with explained(f"GPU {index}"):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        return ask(handle)
    except MeterError as error:
        return error


def driver_version() -> str | None:
    """The driver of this node; `None` without one."""
    try:
        with session():
            version = told(pynvml.nvmlSystemGetDriverVersion)
    except MeterError:
        return None
    return None if version is None else str(version)


def states(uuids: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
    """What the devices are doing now, for those who hold no meter (see `Meter.state`)."""
    with session():
        return {uuid: state_of(handle_of(uuid)) for uuid in uuids}


class NvmlMeter:
    """The total-energy counter of exactly the given GPUs, read at its ticks.

    A reading waits for the tick of every counter (up to one period of one GPU, two of several;
    `counter.py` says how they become one moment), looking every millisecond. Between readings
    nothing touches the counters; a process of its own samples power at 10 Hz.
    """

    source = "nvml"
    measured = True
    method = "counter"
    scope = "gpu"
    systematic: float | None = 0.05
    """Gain error of the boards' sensors, ±5 % (Yang, Adámek, Armour, arXiv 2312.02741)."""
    min_window_s = 5.0
    waits = True

    def __init__(
        self,
        devices: Sequence[str],
        clock: Clock,
        engine: Engine,
        *,
        machine: Clock = MACHINE,
        trace: Trace | None = None,
    ) -> None:
        """`machine` is the clock on which the counters tick and `trace` samples."""
        self._devices = tuple(devices)
        self._clock = clock
        self._machine = machine
        self._handles: dict[str, Handle] = {}
        self._trace = trace or PowerTrace(self._devices)
        self._offset_s = 0.0
        self._opened: Any = None

    def open(self) -> Mapping[str, Any]:
        """The driver and the facts of each GPU, with its counter's period.

        Raises:
            MeterError: a device is unknown, sliced, lost or has no counter, or the clock is not
                the real one, on which alone the counters' joules mean anything.
        """
        self.close()
        if not self._devices:
            raise MeterError("no_devices", "NVML measures GPUs, and the launch holds none")
        self._opened = session()
        self._opened.__enter__()
        try:
            return self._find()
        except MeterError:
            self.close()
            raise

    def _find(self) -> Mapping[str, Any]:
        self._handles = {uuid: handle_of(uuid) for uuid in self._devices}
        real_s, clock_s = self._machine.now(), self._clock.now()
        periods = periods_s(self._counters(), self._machine)
        _same_rate(self._machine.now() - real_s, self._clock.now() - clock_s)
        self._offset_s = self._clock.now() - self._machine.now()
        gpus = [
            facts_of(handle)
            | {"counter_period_s": periods[uuid], "power_method": power_method(handle)}
            for uuid, handle in self._handles.items()
        ]
        if any(part in gpu.get("name", "") for gpu in gpus for part in MODULE_NAMES):
            self.scope = "module"
        self._trace.start()
        return {"driver": told(pynvml.nvmlSystemGetDriverVersion), "gpus": gpus}

    def _counters(self) -> Counters:
        return {uuid: partial(energy_j, uuid, handle) for uuid, handle in self._handles.items()}

    def read(self) -> Reading:
        """Every counter at one moment, the tick of the last of them.

        Raises:
            MeterError: a counter cannot be read, stands still (`counter_stuck`) or goes down
                (`counter_reset`) while it is watched.
        """
        if self._opened is None:
            raise MeterError("not_open", "the meter was closed, or never opened")
        t_s, joules = read_aligned(self._counters(), self._clock)
        return Reading(t_s=t_s, energy_j=joules)

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        return {uuid: state_of(handle) for uuid, handle in self._handles.items()}

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        """By the `power_method` that `open` told, on the clock of the readings."""
        return [
            (t_s + self._offset_s, device, watts) for t_s, device, watts in self._trace.samples()
        ]

    def close(self) -> None:
        """Let go of NVML and the sampler; the trace stays."""
        self._trace.stop()
        self._handles = {}
        if self._opened is not None:
            self._opened.__exit__(None, None, None)
            self._opened = None


def _same_rate(real_s: float, clock_s: float) -> None:
    if abs(clock_s - real_s) > CLOCK_DRIFT * real_s + 0.005:
        raise MeterError(
            "clock_not_real",
            f"the launch's clock went on by {clock_s:.3f} s in {real_s:.3f} s of real time; "
            "an engine with a virtual clock needs meter: simulated",
        )
