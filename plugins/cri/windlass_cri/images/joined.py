"""Work that several clients ask for at once is done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Generic, TypeVar

from windlass.records import dataclass

T = TypeVar("T")


@dataclass
class _Work(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0


class Joined(Generic[T]):
    """Runs one task for each key. Who asks while it runs gets its outcome; used on the loop."""

    def __init__(self) -> None:
        """Run nothing yet."""
        self._running: dict[Hashable, _Work[T]] = {}

    async def run(self, key: Hashable, work: Callable[[], Coroutine[object, object, T]]) -> T:
        """Return the outcome of ``work``, or of what runs for ``key`` already.

        A caller that is cancelled leaves the others alone; the work is cancelled with its last caller.
        """
        found = self._running.get(key)
        if found is None:
            found = self._running[key] = _Work(asyncio.create_task(work()))
        found.waiting += 1
        try:
            return await asyncio.shield(found.task)
        finally:
            found.waiting -= 1
            # Before anything is awaited: who comes now has to begin anew, also while the cancelled work cleans up.
            if (found.task.done() or not found.waiting) and self._running.get(key) is found:
                del self._running[key]
            if not found.waiting and not found.task.done():
                found.task.cancel()
                await asyncio.wait({found.task})
