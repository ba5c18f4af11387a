"""AMD GPUs through AMD's own library: `amdsmi`, which loads libamd_smi.so.

The only file that imports amdsmi, and only when it is needed: without the library the package
prints, and cannot be imported. It comes with ROCm (share/amd_smi) and must be of the driver's
release. Devices are named by UUID, HIP's UUID, or HIP's index, which need not be that of amd-smi.
"""

import io
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, redirect_stdout, suppress
from functools import partial
from typing import Any

from sweeper.engines import Clock, Engine
from sweeper.errors import MeterError
from sweeper.meters import Reading
from sweeper.meters.comparison import compare
from sweeper.meters.counter import Counters, read_aligned
from sweeper.meters.idle import IdleGpus

CODES: Mapping[int, str] = {
    2: "not_supported",
    3: "not_supported",
    10: "no_permission",
    18: "amdsmi_missing",
    31: "device_unknown",
    32: "not_open",
    34: "amdsmi_missing",
}
"""Reason codes of what amdsmi may answer (`amdsmi_status_t`); anything else is `amdsmi_error`."""
UNTOLD = frozenset({"not_supported", "no_permission"})
"""Answers that mean that a fact is not to be had here, while the device is well."""
COMPARED_S = 0.5
MOST_OFF = 2.0
"""Largest factor between counter and integrated power. Counters have been found that stood still,
ran in another unit or went backwards (ROCm/amdsmi issues 22, 38 and 115)."""
MILLI = 1000.0
"""No GPU lives at 1000 degrees: what is told above that is in thousandths."""

Handle = Any
_lock = threading.Lock()
_sessions = 0


def library() -> Any:
    """The amdsmi package.

    Raises:
        MeterError: `amdsmi_missing` where it or its library is not installed, or both are of
            different releases.
    """
    said = io.StringIO()
    try:
        with redirect_stdout(said):
            import amdsmi
    except (ImportError, OSError, KeyError, AttributeError) as error:
        told = " ".join(said.getvalue().split()) or f"{type(error).__name__}: {error}"
        raise MeterError("amdsmi_missing", told) from error
    return amdsmi


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what amdsmi raises into a `MeterError` with a reason code."""
    amdsmi = library()
    try:
        yield
    except amdsmi.AmdSmiLibraryException as error:
        number = error.get_error_code()
        code = CODES.get(number, "amdsmi_error")
        raise MeterError(code, f"{what}: {error.get_error_info()} ({number})") from error
    except amdsmi.AmdSmiException as error:
        raise MeterError("amdsmi_error", f"{what}: {error}") from error


@contextmanager
def session() -> Iterator[Any]:
    """Hold amdsmi open; sessions of this process nest, which its own do not.

    Raises:
        MeterError: there is no library or no driver.
    """
    global _sessions  # noqa: PLW0603 - the library knows one session for all of a process
    amdsmi = library()
    with _lock:
        if not _sessions:
            with explained("amdsmi"):
                amdsmi.amdsmi_init(amdsmi.AmdSmiInitFlags.INIT_AMD_GPUS)
        _sessions += 1
    try:
        yield amdsmi
    finally:
        with _lock:
            _sessions -= 1
            if not _sessions:
                with suppress(amdsmi.AmdSmiException):
                    amdsmi.amdsmi_shut_down()


def handles(devices: Sequence[str]) -> dict[str, Handle]:
    """The GPUs of those names.

    Raises:
        MeterError: `device_unknown` where there is none.
    """
    amdsmi = library()
    with explained("the list of GPUs"):
        every = amdsmi.amdsmi_get_processor_handles()
    named: dict[str, Handle] = {}
    for handle in every:
        for name in names_of(handle):
            named.setdefault(name, handle)
    unknown = [device for device in devices if device not in named]
    if unknown:
        raise MeterError("device_unknown", f"amdsmi knows no {', '.join(unknown)}")
    return {device: named[device] for device in devices}


def names_of(handle: Handle) -> list[str]:
    """What a GPU may be called: its UUID, HIP's UUID, HIP's index."""
    amdsmi = library()
    enumeration = told(amdsmi.amdsmi_get_gpu_enumeration_info, handle) or {}
    found = [
        told(amdsmi.amdsmi_get_gpu_device_uuid, handle),
        enumeration.get("hip_uuid"),
        enumeration.get("hip_id"),
    ]
    return [str(name) for name in found if name not in {None, "", "N/A"}]


def told(call: Any, *args: Any) -> Any:
    """What a call returns, or `None` where it is not supported or not allowed here."""
    try:
        with explained(call.__name__):
            return call(*args)
    except MeterError as error:
        if error.code in UNTOLD:
            return None
        raise


def energy_j(device: str, handle: Handle) -> float:
    """The counter: joules since the driver was loaded.

    Raises:
        MeterError: it cannot be read, or has no unit.
    """
    with explained(f"energy counter of {device}"):
        count = library().amdsmi_get_energy_count(handle)
    # Before amdsmi 6.2.1 the accumulator was called `power`.
    accumulated = count.get("energy_accumulator", count.get("power"))
    microjoules = count.get("counter_resolution", 0.0)
    if accumulated is None or microjoules <= 0:
        raise MeterError("reading_failed", f"{device}: {count}")
    return float(accumulated) * float(microjoules) * 1e-6


def power_w(device: str, handle: Handle) -> float:
    """Watts now, or their mean where the GPU tells no other.

    Raises:
        MeterError: neither is told.
    """
    with explained(f"power of {device}"):
        info = library().amdsmi_get_power_info(handle)
    for name in ("current_socket_power", "average_socket_power"):
        if isinstance(info.get(name), int) and info[name] > 0:
            return float(info[name])
    raise MeterError("not_supported", f"{device} tells no power: {info}")


def facts_of(handle: Handle) -> dict[str, Any]:
    """What a device is and how it is set; what it does not tell is absent."""
    amdsmi = library()
    asic = told(amdsmi.amdsmi_get_gpu_asic_info, handle) or {}
    vbios = told(amdsmi.amdsmi_get_gpu_vbios_info, handle) or {}
    cap = told(amdsmi.amdsmi_get_power_cap_info, handle) or {}
    facts = {
        "device_uuid": told(amdsmi.amdsmi_get_gpu_device_uuid, handle),
        "name": asic.get("market_name"),
        "serial": asic.get("asic_serial"),
        "vbios": vbios.get("version"),
        # Microwatts.
        "power_limit_w": cap.get("power_cap") and cap["power_cap"] / 1e6,
        "power_limit_default_w": cap.get("default_power_cap") and cap["default_power_cap"] / 1e6,
        **state_of(handle),
    }
    facts.pop("compute_pids", None)
    return {name: value for name, value in facts.items() if value not in {None, "", "N/A"}}


def state_of(handle: Handle) -> dict[str, Any]:
    """What a device is doing now, of what `Meter.state` names."""
    amdsmi = library()
    vram = amdsmi.AmdSmiMemoryType.VRAM
    processes = told(amdsmi.amdsmi_get_gpu_process_list, handle)
    celsius = told(
        amdsmi.amdsmi_get_temp_metric,
        handle,
        amdsmi.AmdSmiTemperatureType.HOTSPOT,
        amdsmi.AmdSmiTemperatureMetric.CURRENT,
    )
    state = {
        "compute_pids": None if processes is None else sorted(int(p["pid"]) for p in processes),
        "memory_used_bytes": told(amdsmi.amdsmi_get_gpu_memory_usage, handle, vram),
        "memory_total_bytes": told(amdsmi.amdsmi_get_gpu_memory_total, handle, vram),
        "temperature_c": celsius and (celsius / MILLI if celsius > MILLI else float(celsius)),
    }
    return {name: value for name, value in state.items() if value is not None}


class AmdMeter:
    """The energy counter of exactly the given GPUs, read as NVML's (`counter.py`).

    When it is opened, each counter is compared with the power that its GPU tells.
    """

    source = "amd"
    measured = True
    method = "counter"
    scope = "gpu"
    systematic: float | None = None
    """Unknown: AMD states none."""
    min_window_s = 5.0
    waits = True

    def __init__(self, devices: Sequence[str], clock: Clock, engine: Engine | None = None) -> None:
        self._devices = tuple(devices)
        self._clock = clock
        self._handles: dict[str, Handle] = {}
        self._session: Any = None

    def open(self) -> Mapping[str, Any]:
        """The driver and the facts of each GPU, with its counter's period and ratio to the power.

        Raises:
            MeterError: there is no library, a device is unknown or has no counter, or its counter
                tells of another power than the GPU does (`implausible`).
        """
        self.close()
        if not self._devices:
            raise MeterError("no_devices", "amdsmi measures GPUs, and the launch holds none")
        opened = session()
        opened.__enter__()
        self._session = opened
        try:
            self._handles = handles(self._devices)
            return self._facts()
        except MeterError:
            self.close()
            raise

    def _facts(self) -> Mapping[str, Any]:
        powers = {name: partial(power_w, name, handle) for name, handle in self._handles.items()}
        found = compare(self._counters(), self._with_power(powers), self._clock, COMPARED_S)
        gpus = []
        for name, handle in self._handles.items():
            worth = found[name]
            if worth.ratio is not None and not 1 / MOST_OFF < worth.ratio < MOST_OFF:
                raise MeterError(
                    "implausible",
                    f"{name}: its counter went on by {worth.counter_j:.1f} J in "
                    f"{worth.duration_s:.2f} s, its power tells {worth.power_j:.1f} J",
                )
            ratio = {} if worth.ratio is None else {"counter_to_power": worth.ratio}
            gpus.append(
                {"uuid": name, **facts_of(handle), "counter_period_s": worth.period_s, **ratio}
            )
        first = next(iter(self._handles.values()))
        driver = told(library().amdsmi_get_gpu_driver_info, first) or {}
        return {"driver": driver.get("driver_version"), "gpus": gpus}

    def _with_power(self, powers: Mapping[str, Any]) -> dict[str, Any]:
        """The powers that the GPUs tell."""
        found = {}
        for name, read in powers.items():
            with suppress(MeterError):
                read()
                found[name] = read
        return found

    def _counters(self) -> Counters:
        return {name: partial(energy_j, name, handle) for name, handle in self._handles.items()}

    def read(self) -> Reading:
        """Every counter at one moment, the tick of the last of them.

        Raises:
            MeterError: a counter cannot be read, stands still (`counter_stuck`) or goes down
                (`counter_reset`) while it is watched.
        """
        if self._session is None:
            raise MeterError("not_open", "the meter was closed, or never opened")
        t_s, joules = read_aligned(self._counters(), self._clock)
        return Reading(t_s=t_s, energy_j=joules)

    def state(self) -> Mapping[str, Mapping[str, Any]]:
        return {name: state_of(handle) for name, handle in self._handles.items()}

    def power_trace(self) -> Sequence[tuple[float, str, float]]:
        """None is kept."""
        return ()

    def close(self) -> None:
        """Let go of amdsmi; may be called twice."""
        self._handles = {}
        if self._session is not None:
            self._session.__exit__(None, None, None)
            self._session = None


class IdleAmd(IdleGpus):
    """Of amdsmi, by whatever name Ray gives the GPUs."""

    def library(self) -> AbstractContextManager[None]:
        """Amdsmi."""
        return session()

    def handles(self, names: Sequence[str]) -> Mapping[str, Handle]:
        """By UUID or index."""
        return handles(names)

    def energy_j(self, name: str, handle: Handle) -> float:
        """Joules of one GPU's accumulator."""
        return energy_j(name, handle)
