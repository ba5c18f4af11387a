"""NVIDIA GPUs through NVML: the energy counter, instant power, and what else a device tells.

The only file that imports pynvml. Devices are UUIDs: NVML knows nothing of CUDA_VISIBLE_DEVICES
and counts in another order than CUDA.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import pynvml

from sweeper.errors import MeterError

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
VIOLATIONS: Mapping[int, str] = {
    pynvml.NVML_FI_DEV_PERF_POLICY_POWER: "power_cap",
    pynvml.NVML_FI_DEV_PERF_POLICY_THERMAL: "thermal",
    pynvml.NVML_FI_DEV_PERF_POLICY_SYNC_BOOST: "sync_boost",
    pynvml.NVML_FI_DEV_PERF_POLICY_BOARD_LIMIT: "board_limit",
    pynvml.NVML_FI_DEV_PERF_POLICY_RELIABILITY: "reliability",
    pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN: "sw_thermal_slowdown",
    pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN: "hw_thermal_slowdown",
    pynvml.NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN: "hw_power_brake_slowdown",
}
"""Counters of the time that clocks were held down, by what. They are nanoseconds: on an H200 at its
power cap (driver 580) that of the cap went up by 56.35e9 in 56.37 s."""
EVENTS: Mapping[int, str] = {
    pynvml.nvmlClocksEventReasonGpuIdle: "idle",
    pynvml.nvmlClocksEventReasonApplicationsClocksSetting: "set_clocks",
    pynvml.nvmlClocksEventReasonSwPowerCap: "power_cap",
    pynvml.nvmlClocksEventReasonHwSlowdown: "hw_slowdown",
    pynvml.nvmlClocksEventReasonSyncBoost: "sync_boost",
    pynvml.nvmlClocksEventReasonSwThermalSlowdown: "sw_thermal_slowdown",
    pynvml.nvmlClocksEventReasonHwThermalSlowdown: "hw_thermal_slowdown",
    pynvml.nvmlClocksEventReasonHwPowerBrakeSlowdown: "hw_power_brake_slowdown",
    pynvml.nvmlClocksEventReasonDisplayClockSetting: "display_clocks",
}
"""Why the clocks are what they are at this moment, by bit."""

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
        "ecc_uncorrected": _ecc_errors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        "mig": _sliced(handle),
        "temperature_c": _temperature_c(handle),
    }
    return {name: value for name, value in facts.items() if value is not None}


def power_limit_w(handle: Handle) -> float:
    """The limit that is set; another limiter may enforce less."""
    with explained("power limit"):
        return float(pynvml.nvmlDeviceGetPowerManagementLimit(handle)) / 1e3


def enforced_limit_w(handle: Handle) -> float | None:
    """The least of all limits on the board's power."""
    limit_mw = told(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    return None if limit_mw is None else float(limit_mw) / 1e3


def power_range_w(handle: Handle) -> tuple[float, float]:
    """The least and the most that the board takes as a limit."""
    with explained("power limits"):
        least_mw, most_mw = pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
    return least_mw / 1e3, most_mw / 1e3


def set_power_limit(handle: Handle, watts: float) -> None:
    """Root's alone; it holds until somebody sets another, or the driver lets go of the board."""
    with explained(f"power limit of {watts:g} W"):
        pynvml.nvmlDeviceSetPowerManagementLimit(handle, round(watts * 1e3))


def sm_clock_mhz(handle: Handle) -> float | None:
    """The clock of the multiprocessors at this moment."""
    mhz = told(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM)
    return None if mhz is None else float(mhz)


def sm_clocks_mhz(handle: Handle) -> Sequence[int]:
    """The clocks that the multiprocessors can be locked to, where they are told, from the least."""
    memory_mhz = told(pynvml.nvmlDeviceGetSupportedMemoryClocks, handle)
    if not memory_mhz:
        return ()
    clocks = told(pynvml.nvmlDeviceGetSupportedGraphicsClocks, handle, max(memory_mhz))
    return sorted(map(int, clocks or ()))


def lock_clocks(handle: Handle, mhz: int | None) -> None:
    """Lock the multiprocessors to a clock, or (`None`) unlock them: NVML tells of no lock."""
    with explained("unlocking clocks" if mhz is None else f"clocks locked to {mhz} MHz"):
        if mhz is None:
            pynvml.nvmlDeviceResetGpuLockedClocks(handle)
        else:
            pynvml.nvmlDeviceSetGpuLockedClocks(handle, mhz, mhz)


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
    utilization = told(pynvml.nvmlDeviceGetUtilizationRates, handle)
    events = told(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    limit_mw = told(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    fields = _fields(handle, [pynvml.NVML_FI_DEV_MEMORY_TEMP, *VIOLATIONS])
    violations_s = {VIOLATIONS[each]: fields[each] / 1e9 for each in VIOLATIONS if each in fields}
    # Memory without a sensor answers 0.
    memory_c = float(fields.get(pynvml.NVML_FI_DEV_MEMORY_TEMP, 0)) or None
    state = {
        "compute_pids": processes if processes is None else sorted(p.pid for p in processes),
        "memory_used_bytes": memory and int(memory.used),
        "memory_total_bytes": memory and int(memory.total),
        "temperature_c": _temperature_c(handle),
        "memory_temperature_c": memory_c,
        "sm_clock_mhz": told(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        "memory_clock_mhz": told(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_MEM),
        "utilization": utilization and int(utilization.gpu) / 100,
        "power_limit_w": limit_mw and limit_mw / 1e3,
        "events": None if events is None else _events(int(events)),
        "violations_s": violations_s or None,
        "ecc_corrected": _ecc_errors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
        "ecc_uncorrected": _ecc_errors(handle, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
    }
    return {name: value for name, value in state.items() if value is not None}


def _events(bits: int) -> list[str]:
    """The names of the bits that are set; those that have none by their number."""
    unnamed = bits & ~sum(EVENTS)
    names = [name for bit, name in EVENTS.items() if bits & bit]
    return [*names, hex(unnamed)] if unnamed else names


def _ecc_errors(handle: Handle, kind: int) -> int | None:
    count = told(pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, pynvml.NVML_VOLATILE_ECC)
    return None if count is None else int(count)


def _fields(handle: Handle, ids: Sequence[int]) -> dict[int, int]:
    """Whole numbers of a device by field id; those that it does not tell are absent."""
    values = told(pynvml.nvmlDeviceGetFieldValues, handle, ids) or ()
    found = {}
    for value in values:
        if value.nvmlReturn == pynvml.NVML_SUCCESS:
            wide = value.valueType == pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
            found[value.fieldId] = int(value.value.ullVal if wide else value.value.uiVal)
    return found


class XidWatch:
    """Critical errors (Xid) of devices since the watch began, where the driver tells of them.

    Asking does not wait. Some come from a program's own faults, others from the board's: NVIDIA's
    catalogue of Xid errors has them by number.
    """

    def __init__(self, handles: Mapping[str, Handle]) -> None:
        self._set = told(pynvml.nvmlEventSetCreate)
        self._found: dict[str, list[int]] = {}
        for uuid, handle in handles.items():
            types = told(pynvml.nvmlDeviceGetSupportedEventTypes, handle) or 0
            if self._set is not None and types & pynvml.nvmlEventTypeXidCriticalError:
                with suppress(pynvml.NVMLError):
                    pynvml.nvmlDeviceRegisterEvents(
                        handle, pynvml.nvmlEventTypeXidCriticalError, self._set
                    )
                    self._found[uuid] = []

    def seen(self) -> Mapping[str, Sequence[int]]:
        """The numbers so far, in order, of every device that tells of them."""
        while self._found:
            try:
                event = pynvml.nvmlEventSetWait_v2(self._set, 0)
                uuid = pynvml.nvmlDeviceGetUUID(event.device)
            except pynvml.NVMLError:
                # Nothing more, or a device that is gone: the counters say so.
                break
            self._found.setdefault(uuid, []).append(int(event.eventData))
        return {uuid: tuple(xids) for uuid, xids in self._found.items()}

    def close(self) -> None:
        """Stop watching; may be called twice."""
        if self._set is not None:
            with suppress(pynvml.NVMLError):
                pynvml.nvmlEventSetFree(self._set)
            self._set, self._found = None, {}


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
