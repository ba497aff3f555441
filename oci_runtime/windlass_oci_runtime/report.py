"""What a process that is being made tells the runtime: that it has come to a point, or why it has not.

A pipe, which execve(2) closes. The process writes `READY` when it waits for its start, or the step that failed and the
reason; an end of file without a word means that its program runs.
"""

from __future__ import annotations

import contextlib
import os

READY = b"+"
MOST = 4096
"""Bytes of a message; one write of a pipe."""


class Failure(Exception):
    """A step that failed, and why, in words for clients."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}" if step else reason)
        self.step = step
        self.reason = reason


def tell(descriptor: int, step: str, error: BaseException) -> None:
    """Report that ``step`` has failed, if anybody still listens."""
    with contextlib.suppress(OSError):
        os.write(descriptor, f"{step}\0{reason(error)}".encode(errors="replace")[:MOST])


def reason(error: BaseException) -> str:
    """Return what is wrong, with the path that a system call was about."""
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: " if error.filename else ""
        # Only Linux's own words: the rest may be names and paths.
        words = os.strerror(error.errno or 0)
        return f"{named}{error.strerror.replace(words, words.lower())}"
    return str(error) or type(error).__name__


def about(id: str, message: str) -> str:
    """Return an error's message with the container that it is about, if it does not name it already."""
    return message if f"container {id}" in message or message.endswith(f": {id}") else f"container {id}: {message}"


def heard(message: bytes) -> bool:
    """Return whether the process waits for its start; False when its program runs. Raises Failure."""
    if message in (b"", READY):
        return message == READY
    step, _, why = message.decode(errors="replace").partition("\0")
    raise Failure(step, why)
