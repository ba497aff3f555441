"""How a session gets on: whether it waits for a registry, and what has come of that."""

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
        """Say whether registries were asked then and now, and have brought nothing to speak of in between."""
        none = self.finished == earlier.finished and self.brought - earlier.brought < STEP
        return bool(self.waiting and earlier.waiting and none)


class Meter:
    """Counts for any number of threads."""

    def __init__(self) -> None:
        """Nothing has been asked yet."""
        self._lock = threading.Lock()
        self._waiting = self._brought = self._finished = 0

    def begin(self) -> None:
        """A host is asked for something."""
        with self._lock:
            self._waiting += 1

    def end(self) -> None:
        """It has answered, or never will."""
        with self._lock:
            self._waiting -= 1

    def bring(self, count: int) -> None:
        """So many bytes have come."""
        with self._lock:
            self._brought += count

    def finish(self) -> None:
        """All of what was wanted has come."""
        with self._lock:
            self._finished += 1

    def mark(self) -> Mark:
        """Return how it stands."""
        with self._lock:
            return Mark(self._waiting, self._brought, self._finished)
