"""Files that are whole or not there, and what to say where one cannot be written."""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sweeper.errors import PlaceError

_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_SHAPE = frozenset({errno.ENOTDIR, errno.EEXIST, errno.EISDIR})
_TEMPORARY = ".tmp"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating system's error about `path` into a message with the way out.

    Raises:
        PlaceError: the folder is read-only, full, or not a folder.
    """
    try:
        yield
    except OSError as error:
        raise PlaceError(f"cannot write {path}: {error.strerror}: {_way_out(error)}") from error


def _way_out(error: OSError) -> str:
    if error.errno in _SPACE:
        return "free some space and type the same command again; what was measured is kept"
    if error.errno in _SHAPE:
        return f"move away what stands at {error.filename}, where a folder or file is needed"
    return "make the folder writable, or type the command in a folder that is"


def refuse_unwritable(folder: Path) -> None:
    """Whether a folder could be made and written; nothing is made.

    Raises:
        PlaceError: it could not; the message says what to do.
    """
    there = next(path for path in (folder, *folder.parents) if path.exists())
    with writing(folder):
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def write_whole(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Put `data` at `path`, on the disk before the name is: readers see the old or the new file.

    What need not be `lasting` is not waited for: a machine that fails may lose it.

    Raises:
        PlaceError: it cannot be written; what stood there still does.
    """
    temporary = path.parent / f".{secrets.token_hex(8)}{_TEMPORARY}"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                if lasting:
                    os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        if lasting:
            sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what a `write_whole` that was killed left in `folder`."""
    for leftover in folder.glob(f".*{_TEMPORARY}"):
        leftover.unlink(missing_ok=True)
