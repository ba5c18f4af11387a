"""A process that outlives its owner just long enough to leave nothing behind.

The owner holds the only writing end of a pipe. When it dies, says nothing for longer than the
lease, or asks for release, the guardian kills every process that carries the lease's token in its
environment, and all of their descendants, until none is left. The token is inherited through
`fork`, `exec`, `setsid` and the death of a parent, which process groups and parent ids are not.
A process that gives itself a title may write it over the beginning of its environment: the token
stands at the end, and whoever is there at a `look` is known from then on without it.

It is nobody's child, because a Ray worker that is told to exit kills its children first, and the
guardian would be the only one of them that obeys. Linux only: it reads `/proc`. It imports nothing
but the standard library and runs as a script, so that it starts at once and needs no import path.
"""

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple, Self

VARIABLE = "SWEEPER_LEASE"
"""Environment variable that carries the tokens of all leases a process belongs to, by colons."""

RENEW = b"."
LOOK = b"l"
RELEASE = b"r"
PAUSE_S = 0.1
PROC = Path("/proc")


class Process(NamedTuple):
    """A process at the moment of a scan; `started` tells it from a later one of the same id."""

    pid: int
    parent: int
    started: int
    tokens: frozenset[str]


def processes() -> list[Process]:
    """Every process that is neither dead nor a zombie; what may not be read has no tokens."""
    found = []
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] in "ZX":
            continue
        tokens: frozenset[str] = frozenset()
        with contextlib.suppress(OSError):
            tokens = _tokens((folder / "environ").read_bytes())
        found.append(Process(int(folder.name), int(fields[1]), int(fields[19]), tokens))
    return found


def members(
    table: Iterable[Process],
    token: str,
    spared: frozenset[int] = frozenset(),
    known: frozenset[tuple[int, int]] = frozenset(),
) -> list[Process]:
    """The processes of a lease: those that carry `token`, and all of their descendants.

    A `spared` process is none, and descent is not followed through it. Those `known`, by id and
    start, are processes of the lease whatever they carry.
    """
    processes_by_parent: dict[int, list[Process]] = {}
    reached: dict[int, Process] = {}
    todo = []
    for process in table:
        processes_by_parent.setdefault(process.parent, []).append(process)
        if token in process.tokens or (process.pid, process.started) in known:
            todo.append(process)
    while todo:
        process = todo.pop()
        if process.pid in reached or process.pid in spared:
            continue
        reached[process.pid] = process
        todo += processes_by_parent.get(process.pid, ())
    return list(reached.values())


def kill_members(
    token: str,
    spared: frozenset[int] = frozenset(),
    known: frozenset[tuple[int, int]] = frozenset(),
) -> int:
    """Kill the processes of a lease until none is left; return how many were killed.

    A last look finds nobody twice, because a process that forks as it dies can hide from one.
    """
    spared |= {os.getpid()}
    killed: set[tuple[int, int]] = set()
    quiet = 0
    while quiet < 2:
        found = members(processes(), token, spared, known)
        quiet = 0 if found else quiet + 1
        for process in found:
            if _kill(process):
                killed.add((process.pid, process.started))
        time.sleep(PAUSE_S)
    return len(killed)


class Guardian:
    """The owner's side of a guardian process.

    Start it before the processes it guards, give these `environment()`, and call `renew` more
    often than `lease_s` (`None`: only the owner's death counts). The owner itself is never killed.
    """

    def __init__(self, token: str | None = None, lease_s: float | None = None) -> None:
        self.token = token or secrets.token_hex(8)
        self.lease_s = lease_s
        self._pipes: tuple[IO[bytes], IO[bytes]] | None = None

    def environment(self, base: Mapping[str, str] | None = None) -> dict[str, str]:
        """`base` (or this process's environment) with the token added to those it carries."""
        environment = dict(os.environ if base is None else base)
        outer = environment.pop(VARIABLE, os.environ.get(VARIABLE, ""))
        environment[VARIABLE] = ":".join(filter(None, (*outer.split(":"), self.token)))
        return environment

    def start(self) -> None:
        """Start the guardian in a session of its own.

        Raises `OSError` where there is no `/proc` to find processes in.
        """
        if not (PROC / "self" / "environ").exists():
            raise OSError(f"{PROC} is needed to find the processes of a lease")
        environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
        lease = "" if self.lease_s is None else str(self.lease_s)
        # -P: the script's own folder must not shadow modules of the standard library.
        command = [sys.executable, "-P", __file__, self.token, lease, str(os.getpid())]
        parent = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        parent.wait()
        assert parent.stdin is not None
        assert parent.stdout is not None
        self._pipes = parent.stdin, parent.stdout

    @property
    def alive(self) -> bool:
        """Whether the lease holds: started, not released, not run out."""
        return self._pipes is not None and not self._gone(0.0)

    def renew(self) -> bool:
        """Go on for another `lease_s`; false when the lease has already run out."""
        return self._write(RENEW)

    def look(self) -> None:
        """Have the guardian remember who belongs to the lease now."""
        self._write(LOOK)

    def release(self, timeout_s: float = 30.0) -> None:
        """End the lease: leftovers are killed, and the guardian is gone when this returns.

        May be called twice. Raises `TimeoutError` when something cannot be killed.
        """
        if self._pipes is None:
            return
        self._write(RELEASE)
        if not self._gone(timeout_s):
            raise TimeoutError(f"processes of lease {self.token} outlive being killed")
        for pipe in self._pipes:
            pipe.close()
        self._pipes = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _write(self, message: bytes) -> bool:
        if self._pipes is None or not self.alive:
            return False
        try:
            os.write(self._pipes[0].fileno(), message)
        except OSError:
            return False
        return True

    def _gone(self, timeout_s: float) -> bool:
        """Whether the guardian has closed its output, which it does by ending."""
        assert self._pipes is not None
        return bool(select.select([self._pipes[1]], [], [], timeout_s)[0])


def watch(pipe: int, lease_s: float | None, look: Callable[[], None]) -> None:
    """Return when the owner died, asked for release, or has been silent for `lease_s`."""
    while select.select([pipe], [], [], lease_s)[0]:
        said = os.read(pipe, 4096)
        if not said or RELEASE in said:
            return
        if LOOK in said:
            look()


def main(arguments: list[str]) -> int:
    """Guard `TOKEN` for `LEASE_S` seconds at a time (empty: no limit), sparing `OWNER`."""
    token, lease, owner = arguments
    if os.fork():
        # Whoever waits for this process knows that the guardian is there, and is not its parent.
        os._exit(0)
    # A Ctrl-C typed at the owner's terminal, or a kind request to end, is not for the guardian.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    spared = frozenset({int(owner)})
    known: set[tuple[int, int]] = set()

    def look() -> None:
        known.update((each.pid, each.started) for each in members(processes(), token, spared))

    watch(sys.stdin.fileno(), float(lease) if lease else None, look)
    kill_members(token, spared, frozenset(known))
    return 0


def _tokens(environment: bytes) -> frozenset[str]:
    prefix = f"{VARIABLE}=".encode()
    for line in environment.split(b"\0"):
        if line.startswith(prefix):
            return frozenset(line[len(prefix) :].decode(errors="replace").split(":"))
    return frozenset()


def _kill(process: Process) -> bool:
    """SIGKILL exactly this process, never a later one that was given the same id."""
    try:
        handle = os.pidfd_open(process.pid)
    except OSError:
        return False
    try:
        fields = (PROC / str(process.pid) / "stat").read_text(errors="replace")
        if int(fields.rpartition(")")[2].split()[19]) != process.started:
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
