"""The energy counters of processors (RAPL) as Linux shows them under /sys/class/powercap.

    intel-rapl:0      package-0   the cores, caches and memory controllers of one socket
    intel-rapl:0:0      core      inside package-0, so not counted again
    intel-rapl:0:1      dram      the memory modules at package-0, outside of it
    intel-rapl:1      psys        the whole board as its maker wired it: told, never added
    intel-rapl-mmio:0 package-0   the same counter by another way, so not counted again

AMD's processors show the same tree, without `dram`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sweeper.errors import MeterError

POWERCAP = Path("/sys/class/powercap")

Component = Literal["cpu", "dram", "part", "psys", "other"]
"""What a zone counts: a socket, the memory at one, a part of a socket, the whole board."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """A counter of the tree. `name` is the socket's with what the zone counts of it before it."""

    folder: Path
    component: Component
    name: str

    def raw_uj(self) -> int:
        """The counter as it stands.

        Raises:
            MeterError: `no_permission`, `not_supported`, or `reading_failed`.
        """
        return _number(self.folder / "energy_uj")

    def range_uj(self) -> int:
        """Where the counter begins anew.

        Raises:
            MeterError: as `raw_uj`; also for a range that is none.
        """
        found = _number(self.folder / "max_energy_range_uj")
        if found <= 0:
            raise MeterError("reading_failed", f"{self.folder}/max_energy_range_uj is {found}")
        return found


def zones(root: Path = POWERCAP) -> tuple[Zone, ...]:
    """Every zone of the tree once, sockets in their order; none where the kernel shows none.

    A socket that is shown by two interfaces is that of `intel-rapl`.
    """
    found: dict[tuple[Component, str], Zone] = {}
    folders = [each for each in root.glob("intel-rapl*:*") if _place(each) is not None]
    for folder in sorted(folders, key=lambda each: _place(each) or ()):
        zone = _zone(folder, root)
        if zone is not None:
            found.setdefault((zone.component, zone.name), zone)
    return tuple(found.values())


def _place(folder: Path) -> tuple[Any, ...] | None:
    """Where a folder stands in the tree, `intel-rapl` before other interfaces."""
    interface, *numbers = folder.name.split(":")
    if not numbers or not all(number.isdigit() for number in numbers):
        return None
    return (interface != "intel-rapl", interface, [int(number) for number in numbers])


def _zone(folder: Path, root: Path) -> Zone | None:
    """A zone by its name and that of the zone it is in; `None` for one without a name."""
    name = _text(folder / "name")
    if name is None:
        return None
    above = folder.name.rpartition(":")[0]
    if ":" not in above:
        if name == "psys":
            return Zone(folder=folder, component="psys", name=name)
        socket = re.fullmatch(r"package-\d+(?:-die-\d+)?", name) is not None
        return Zone(folder=folder, component="cpu" if socket else "other", name=f"cpu {name}")
    within = _text(root / above / "name") or above
    component: Component = "dram" if name == "dram" else "part"
    return Zone(folder=folder, component=component, name=f"{name} {within}")


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None


def _number(file: Path) -> int:
    try:
        return int(file.read_text())
    except PermissionError as error:
        raise MeterError("no_permission", f"{file} can be read by root only") from error
    except FileNotFoundError as error:
        raise MeterError("not_supported", f"there is no {file}") from error
    except (OSError, ValueError) as error:
        raise MeterError("reading_failed", f"{file}: {error}") from error


def of_component(found: Sequence[Zone], *components: Component) -> tuple[Zone, ...]:
    """The zones of some components.

    Raises:
        MeterError: `not_supported` where there is none.
    """
    wanted = tuple(zone for zone in found if zone.component in components)
    if not wanted:
        raise MeterError(
            "not_supported",
            f"the kernel shows no counter of {' or '.join(components)} (RAPL) here: a processor "
            "without one, a virtual machine, or a container that hides /sys/class/powercap",
        )
    return wanted
