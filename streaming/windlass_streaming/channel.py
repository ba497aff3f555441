"""A channel: bytes from one end of a connection to the other, as many at once as memory should hold."""

from __future__ import annotations

import asyncio
from collections import deque

LIMIT = 1 << 20


class Channel:
    """Bytes that have come for a reader. A writer waits while there are more than `LIMIT`."""

    def __init__(self) -> None:
        """Be empty and open."""
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._ended = False
        self._changed = asyncio.Event()

    async def put(self, data: bytes) -> None:
        """Add bytes; returns when there is room for more. What comes after the end is dropped."""
        if self._ended or not data:
            return
        self._parts.append(data)
        self._size += len(data)
        self._notify()
        while self._size > LIMIT and not self._ended:
            await self._changed.wait()

    def end(self) -> None:
        """No more comes. What is there can still be read."""
        self._ended = True
        self._notify()

    def drop(self) -> None:
        """The reader reads no more: what is there goes, and writers wait no longer."""
        self._parts.clear()
        self._size = 0
        self.end()

    async def get(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        while not self._parts:
            if self._ended:
                return b""
            await self._changed.wait()
        data = self._parts.popleft()
        self._size -= len(data)
        self._notify()
        return data

    def _notify(self) -> None:
        # Those that wait now look again; a new event is for those that wait later.
        self._changed.set()
        self._changed = asyncio.Event()
