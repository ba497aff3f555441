"""Pods and containers change, many at a time, or all stand still for one who has to see them at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Changes:
    """A lock of two kinds; used on the loop.

    A change that waits for `still` would wait for ever if a change around it held the lock: changes are not nested.
    """

    def __init__(self) -> None:
        """Nothing changes, and nobody looks."""
        self._changing = 0
        self._condition = asyncio.Condition()
        self._looking = asyncio.Lock()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Change something; begin when nobody looks or waits to look."""
        if self._looking.locked():
            async with self._condition:
                await self._condition.wait_for(lambda: not self._looking.locked())
        self._changing += 1
        try:
            yield
        finally:
            self._changing -= 1
            if self._looking.locked():
                await self._wake()

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """Look at everything, alone, while nothing changes."""
        try:
            async with self._looking:
                async with self._condition:
                    await self._condition.wait_for(lambda: not self._changing)
                yield
        finally:
            await asyncio.shield(self._wake())

    async def _wake(self) -> None:
        async with self._condition:
            self._condition.notify_all()
