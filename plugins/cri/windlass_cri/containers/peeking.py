"""Looks at what is in a FIFO and leaves it there, so that a daemon that is killed has taken nothing with it.

A container's output is taken from its FIFO once it is in the log. Killed in between, a daemon's successor finds it
there still.
"""

from __future__ import annotations

import functools
import os

from windlass_linux import calls as linux

CHUNK = 64 << 10
"""What a pipe holds, pipe(7)."""


@functools.cache
def _pipe() -> tuple[int, int]:
    """One for all: each peek leaves it empty."""
    return os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)


def peek(fd: int) -> bytes:
    """Return what is in a FIFO, empty at its end. Raises BlockingIOError when nothing is there yet."""
    reader, writer = _pipe()
    size = linux.tee(fd, writer, CHUNK, linux.SPLICE_F_NONBLOCK)
    return os.read(reader, size) if size else b""


def take(fd: int, size: int) -> None:
    """Remove the first bytes from a FIFO, which `peek` has returned. Raises OSError."""
    while size:
        size -= len(os.read(fd, size))
