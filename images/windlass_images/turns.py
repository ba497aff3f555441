"""A client that finds an ingest locked waits for its turn, as containerd's do, while the other makes progress.

The other may finish the blob, which is there then, or die, and leave an ingest to go on with
(containerd core/content/helpers.go, OpenWriter, which waits without an end).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from windlass.errors import NotFound, Unavailable

PATIENCE = 300.0
"""Seconds in which another has to have written something."""
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 2.0


class Locked(Exception):
    """Another client writes an ingest of that name."""


class Turn:
    """One client's wait for one ingest."""

    def __init__(self, ref: str, offset: Callable[[], Awaitable[int]], patience: float = PATIENCE) -> None:
        """Ask ``offset`` how far the other is, which raises NotFound when it has ended; patience 0 is without end."""
        self._ref = ref
        self._offset = offset
        self._patience = patience
        self._seen = -1
        self._since = asyncio.get_running_loop().time()
        self._pause = FIRST_PAUSE

    async def wait(self) -> None:
        """Return when it is worth while to try again. Raises Unavailable when the other makes no progress."""
        now = asyncio.get_running_loop().time()
        try:
            offset = await self._offset()
        except NotFound:
            offset = -1
        if offset != self._seen:
            self._seen, self._since = offset, now
        elif self._patience and now - self._since > self._patience:
            raise Unavailable(
                f"ingest {self._ref} is locked by another client, which has written nothing"
                f" for {self._patience:.0f} s; end that client, or try again later"
            )
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
