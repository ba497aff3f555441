"""Lines for the daemon's log: standard error is a FIFO that it reads, and is written only when that cannot block."""

from __future__ import annotations

import os
import select

STDERR = 2
MAX_LINE = 2048
"""Below PIPE_BUF: a pipe that is writable takes it whole, pipe(7)."""


def use_fifo(bundle: str) -> None:
    """Send standard error to the FIFO ``log`` of a bundle, or nowhere when there is none.

    Never to the daemon's own: a program that reads that by a pipe would wait for the shim's end.
    """
    try:
        # For both directions: it neither waits for a reader nor ends with one.
        fd = os.open(f"{bundle}/log", os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(fd, STDERR)
    os.close(fd)


def log(message: str) -> None:
    """Write a line, or nothing without a reader: a full pipe must not stop a shim."""
    line = f"windlass-shim[{os.getpid()}]: {message}".replace("\n", " ").encode(errors="replace")[:MAX_LINE]
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    try:
        if any(event & select.POLLOUT for _, event in poll.poll(0)):
            os.write(STDERR, line + b"\n")
    except OSError:
        return
