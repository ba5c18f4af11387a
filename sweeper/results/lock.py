"""The lock of a study's folder: held by the one driver that writes, and asked after by others."""

import fcntl
import os
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from sweeper.errors import JournalError
from sweeper.results.files import writing

FILE = "lock"
PATIENCE_S = 0.5
"""Whoever only asks who holds it (`holder`) has it for less than this."""
PAUSE_S = 0.02


def take(folder: Path) -> int:
    """Lock a study's folder until the returned descriptor is closed, or the process ends.

    Raises:
        PlaceError: the lock cannot be written.
        JournalError: another process holds it; the message names it.
    """
    path = folder / FILE
    with writing(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _wait_for(descriptor)
            os.ftruncate(descriptor, 0)
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            os.write(descriptor, f"{this_process()} since {now}".encode())
        except BlockingIOError as error:
            other = _text(descriptor)
            os.close(descriptor)
            raise JournalError(
                f"{folder} is being written by {other or 'another process'}: wait for it, "
                "stop it, or give this study another name"
            ) from error
        except BaseException:
            with suppress(OSError):
                os.close(descriptor)
            raise
    return descriptor


def holder(folder: Path) -> str | None:
    """Who writes in a study's folder, since when; `None` where nobody does.

    Asking takes a shared lock for a moment: it keeps out no one else who asks, and a driver that
    starts at that moment tries again.
    """
    try:
        descriptor = os.open(folder / FILE, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _text(descriptor) or "another process"
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return None


def this_process() -> str:
    """How a holder's name begins when it is this process."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def _wait_for(descriptor: int) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                raise
        time.sleep(PAUSE_S)


def _text(descriptor: int) -> str:
    return os.pread(descriptor, 1000, 0).decode(errors="replace")
