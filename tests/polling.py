"""Waits for a descriptor by poll(2): select(2) cannot take one whose number is 1,024 or more."""

from __future__ import annotations

import select


def is_readable(fd: int, seconds: float) -> bool:
    """Return whether there is something to read, or an end, within some seconds; a pidfd's is its process's."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
