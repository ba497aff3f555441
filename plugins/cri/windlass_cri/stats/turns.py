"""Calls that take turns: so many at once, and so many begun in a second. What is more waits."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Lets ``most`` calls be under way, and as many begin within any second; used on the loop."""

    def __init__(self, most: int) -> None:
        """Have none under way."""
        self._room = asyncio.Semaphore(most)
        self._begun: deque[float] = deque(maxlen=most)

    @asynccontextmanager
    async def next(self) -> AsyncIterator[None]:
        """Wait for the turn, and hold it."""
        async with self._room:
            now = time.monotonic()
            begin = max(now, self._begun[0] + 1) if len(self._begun) == self._begun.maxlen else now
            self._begun.append(begin)
            await asyncio.sleep(begin - now)
            yield
