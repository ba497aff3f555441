"""Requests that clients send again: a retry joins the first attempt and gets its outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from functools import partial

from windlass.records import dataclass

logger = logging.getLogger(__name__)

Key = tuple[str, bytes]


@dataclass
class _Attempt:
    task: asyncio.Task[str]
    waiting: int = 0


class Attempts:
    """What is being made, by its name and by what was asked for; used on the loop.

    An attempt goes on when its clients have left. What it has made is then kept for a client that asks again for the
    same, until that client comes or `forget` is called; a failure is not kept, so that it is tried anew.
    """

    def __init__(self) -> None:
        """Make nothing yet."""
        self._known: dict[Key, _Attempt] = {}

    async def run(self, name: str, request: bytes, work: Callable[[], Coroutine[object, object, str]]) -> str:
        """Return the ID that ``work`` returns, or an attempt with the same name and ``request``."""
        key = (name, request)
        attempt = self._known.get(key)
        if attempt is None:
            attempt = self._known[key] = _Attempt(asyncio.create_task(work()))
            attempt.task.add_done_callback(partial(self._done, key, attempt))
        attempt.waiting += 1
        try:
            made = await asyncio.shield(attempt.task)
        finally:
            attempt.waiting -= 1
        if self._known.get(key) is attempt:
            del self._known[key]
        return made

    def _done(self, key: Key, attempt: _Attempt, task: asyncio.Task[str]) -> None:
        failed = task.cancelled() or task.exception() is not None
        if failed and self._known.get(key) is attempt:
            del self._known[key]
        if failed and not attempt.waiting and not task.cancelled():
            logger.warning("%s, which no client waits for any more, failed: %s", key[0], task.exception())

    def forget(self, name: str) -> None:
        """Forget what was made under a name: it is stopped, or removed."""
        for key in [key for key, attempt in self._known.items() if key[0] == name and attempt.task.done()]:
            del self._known[key]

    async def close(self) -> None:
        """End what is being made, which takes back what there is of it."""
        tasks = [attempt.task for attempt in self._known.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
