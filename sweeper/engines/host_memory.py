"""Memory of this host as a process may use it: under a control group that is less than there is."""

import resource
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
CGROUP_FILES = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
"""Limit, use and statistics of a container's memory, in versions 2 and 1 of control groups."""


def total_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Memory that there is."""
    limit = _cgroup(cgroup)
    total = _meminfo(meminfo)["MemTotal"]
    return total if limit is None else min(total, limit[0])


def free_bytes(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Memory that can be had without swapping, page cache counted as free."""
    limit = _cgroup(cgroup)
    available = _meminfo(meminfo)["MemAvailable"]
    return available if limit is None else max(0, min(available, limit[0] - limit[1]))


def peak_bytes() -> int:
    """Most memory this process has held since it began (`ru_maxrss`, kibibytes on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _meminfo(path: Path) -> dict[str, int]:
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3}


def _cgroup(folder: Path) -> tuple[int, int] | None:
    """The limit and what counts against it and cannot be dropped; `None` where there is none."""
    for limit_file, use_file, stat_file in CGROUP_FILES:
        try:
            limit = int((folder / limit_file).read_text())
            used = int((folder / use_file).read_text())
            lines = (folder / stat_file).read_text().splitlines()
        except (OSError, ValueError):
            continue
        cache = sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        return limit, max(0, used - cache)
    return None
