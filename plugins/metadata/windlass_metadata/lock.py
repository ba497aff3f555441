"""A lock file that keeps a second daemon off the same database."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from windlass.errors import FailedPrecondition

POLL = 0.05
LENGTH = 20


class FileLock:
    """Holds ``path`` for this process until it is released, or the process ends however it may."""

    def __init__(self, path: Path, wait: float) -> None:
        """Take the lock within ``wait`` seconds, or raise FailedPrecondition naming the process that has it.

        The lock is on a file of its own: closing a descriptor of the database
        itself would drop the locks that SQLite holds on it (fcntl(2), "Record locks").
        """
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock(self._descriptor, path, time.monotonic() + wait)
            # Of one length, so that it never needs another block: the disk may be full.
            os.pwrite(self._descriptor, f"{os.getpid():<{LENGTH - 1}}\n".encode(), 0)
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """Let go of the lock; the file stays."""
        os.close(self._descriptor)


def _lock(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, LENGTH, 0).decode("ascii", "replace").strip() or "unknown"
                raise FailedPrecondition(
                    f"{path} is held by process {holder}; stop that daemon, or give this one another root"
                ) from None
            time.sleep(POLL)
        else:
            return
