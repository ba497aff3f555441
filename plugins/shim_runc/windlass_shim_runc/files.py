"""Opens what a client names as stdio: FIFOs and log files."""

# ruff: noqa: PTH103, PTH120
# pathlib is half a megabyte that shims do without; files here are local and short.
from __future__ import annotations

import os
import stat

from windlass.errors import Error, InvalidArgument


def open_path(path: str, name: str) -> int:
    """Return an O_PATH descriptor, by which the same inode is opened again whatever happens to the path."""
    if not path.startswith("/"):
        raise InvalidArgument(f"{name} {path[:200]!r} is not an absolute path")
    try:
        return os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        raise Error(
            f"cannot open {name} {path[:200]}: {error.strerror}; the client makes it before the task"
        ) from error


def open_output(path: str, name: str) -> int:
    """Open a FIFO for both directions, or an existing file for appending."""
    place = open_path(path, name)
    try:
        mode = os.fstat(place).st_mode
        if stat.S_ISFIFO(mode):
            return os.open(f"/proc/self/fd/{place}", os.O_RDWR | os.O_NONBLOCK)
        if stat.S_ISREG(mode):
            return os.open(f"/proc/self/fd/{place}", os.O_WRONLY | os.O_APPEND)
        raise InvalidArgument(f"{name} {path[:200]} is neither a FIFO nor a regular file")
    finally:
        os.close(place)


def find_input(path: str) -> int:
    """Return an O_PATH descriptor of a FIFO, for `open_input`."""
    place = open_path(path, "stdin")
    if stat.S_ISFIFO(os.fstat(place).st_mode):
        return place
    os.close(place)
    raise InvalidArgument(f"stdin {path[:200]} is not a FIFO")


def open_input(place: int) -> tuple[int, int]:
    """Open what `find_input` has found; return its reading end, and a writing one that keeps it from ending."""
    reading = os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return reading, os.open(f"/proc/self/fd/{place}", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        os.close(reading)
        raise


def open_log(path: str) -> int:
    """Open the file of a ``file://`` URI for appending, making it and the directories above it."""
    if not path.startswith("/"):
        raise InvalidArgument(f"log file {path[:200]!r} is not an absolute path; write file:///path")
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    # A FIFO without a reader would hold up the whole shim; so it is an error.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o644)
