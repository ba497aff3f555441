"""Handlers that wait until what they sent has gone out, so that a slow client costs its own calls only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from windlass_server.http2.connection import Connection
    from windlass_server.http2.streams import Stream


class Waiters:
    """Those of one connection."""

    __slots__ = ("_core", "_loop", "_streams", "_writable")

    def __init__(self, core: Connection, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for streams of ``core``."""
        self._core = core
        self._loop = loop
        self._streams: dict[int, asyncio.Future[None]] = {}
        self._writable: asyncio.Future[None] | None = None

    async def drained(self, stream: Stream) -> None:
        """Wait until everything is in the transport's hands, or the stream is gone."""
        while stream.open and (stream.unsent or self._core.congested):
            if stream.unsent:
                waiter = self._streams[stream.id] = self._loop.create_future()
                await waiter
            else:
                if self._writable is None:
                    self._writable = self._loop.create_future()
                await asyncio.shield(self._writable)

    def wake(self, stream: Stream) -> None:
        """Let the handler go on that waits for a stream's data."""
        if self._streams:
            waiter = self._streams.pop(stream.id, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def wake_writers(self) -> None:
        """Let all go on that wait for the transport: it has room, or it is lost."""
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None
