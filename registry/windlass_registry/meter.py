"""The progress of a session: whether it waits for a registry, and how many bytes have arrived."""

from __future__ import annotations

import threading
from dataclasses import dataclass

STEP = 16 << 10
"""Bytes that are progress; one now and then is not."""


@dataclass(frozen=True)
class Mark:
    """A moment of a session."""

    waiting: int
    brought: int
    finished: int

    def is_stalled_since(self, earlier: Mark) -> bool:
        """Return whether registries were asked then and now and have sent next to nothing in between."""
        none = self.finished == earlier.finished and self.brought - earlier.brought < STEP
        return bool(self.waiting and earlier.waiting and none)


class Meter:
    """Counts for any number of threads."""

    def __init__(self) -> None:
        """Start without requests."""
        self._lock = threading.Lock()
        self._waiting = self._brought = self._finished = 0

    def begin(self) -> None:
        """Note that a request begins."""
        with self._lock:
            self._waiting += 1

    def end(self) -> None:
        """Note that the host has answered, or never will."""
        with self._lock:
            self._waiting -= 1

    def bring(self, count: int) -> None:
        """Note that so many bytes have arrived."""
        with self._lock:
            self._brought += count

    def finish(self) -> None:
        """Note that everything has arrived."""
        with self._lock:
            self._finished += 1

    def mark(self) -> Mark:
        """Return the present state."""
        with self._lock:
            return Mark(self._waiting, self._brought, self._finished)
