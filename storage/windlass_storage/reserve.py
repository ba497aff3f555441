"""Space kept back for deletions: a file next to a database, removed when the disk is full.

To delete, a database has to write first. On a disk without a free block it could
not delete, and a daemon could not open its databases again. The file's space is
enough for both; the file is made again when there is room.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

SMALLEST = 4096
HEADER = 32
PAUSE = 1.0
"""Seconds between attempts to take what is missing."""


class Reserve:
    """The file at ``path``, of up to ``size`` bytes; to be used by one thread at a time."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._held = 0
        self._tried = 0.0

    def spend(self) -> bool:
        """Give the space back to the disk; tells whether there was any, also from an earlier daemon."""
        self._held, self._tried = 0, 0.0
        try:
            had = self._path.stat().st_blocks > 0
            self._path.unlink()
        except OSError:
            return False  # not there, or a disk that gives nothing back
        return had

    def become(self, path: Path) -> None:
        """Let the file be ``path``, with its blocks, unless that is there with something in it.

        For a log of SQLite's: one whose header is zeros is empty (sqlite.org/fileformat2.html, "The WAL File Format").
        """
        try:
            if path.exists() and path.stat().st_size:
                return
            # Durable before the name is: it may have been a log, whose changes must not come again.
            self._write_zeros(HEADER)
            self._path.rename(path)
        except OSError:
            return  # not there, or a disk that allows nothing: then the log needs new blocks
        self._held, self._tried = 0, 0.0

    def adopt(self, path: Path) -> None:
        """Take over the blocks of a log that is not needed any more, if not all is held; ``path`` is gone then."""
        if self._held == self._size:
            return
        try:
            path.replace(self._path)
            os.truncate(self._path, min(self._path.stat().st_size, self._size))
        except OSError:
            return  # there is no log, or it stays and is removed as ever

    def _write_zeros(self, length: int) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.pwrite(descriptor, bytes(length), 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def refill(self) -> None:
        """Take what is missing, as far as there is room; a disk that allows nothing of it is none the worse."""
        now = time.monotonic()
        if self._held == self._size or (self._tried and now < self._tried + PAUSE):
            return
        self._tried = now
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError:
            return
        try:
            self._held = self._grow(descriptor)
        finally:
            os.close(descriptor)

    def _grow(self, descriptor: int) -> int:
        held, step = os.fstat(descriptor).st_size, self._size
        while held < self._size and step >= SMALLEST:
            try:
                os.posix_fallocate(descriptor, held, min(step, self._size - held))
            except OSError:
                step //= 2
            held = os.fstat(descriptor).st_size
        return held
