"""Lines for the daemon's log, written to standard error only when that cannot block."""

from __future__ import annotations

import os
import select

STDERR = 2
MAX_LINE = 2048
"""Below PIPE_BUF: a pipe that is writable takes it whole, pipe(7)."""


def log(message: str) -> None:
    """Write a line, or nothing when nobody reads: a full pipe must not stop a shim."""
    line = f"windlass-shim[{os.getpid()}]: {message}".replace("\n", " ").encode(errors="replace")[:MAX_LINE]
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    try:
        if any(event & select.POLLOUT for _, event in poll.poll(0)):
            os.write(STDERR, line + b"\n")
    except OSError:
        return
