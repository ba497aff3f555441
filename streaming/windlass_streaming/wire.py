"""Byte streams under the protocols: a socket, or the messages of a WebSocket."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

CHUNK = 64 << 10


class Wire(Protocol):
    """Bytes both ways."""

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end. Raises ConnectionError."""
        ...

    async def write(self, data: bytes) -> None:
        """Send; returns when the peer keeps up. Raises ConnectionError."""
        ...

    async def close(self) -> None:
        """Send what is left, and close."""
        ...


class SocketWire:
    """A connection, of which some bytes may have been read already."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: bytes = b"") -> None:
        """Go on with a connection after an upgrade; ``first`` came with the request."""
        self._reader = reader
        self._writer = writer
        self._first = first
        self.used = time.monotonic()
        """When bytes went either way for the last time."""

    async def read(self) -> bytes:
        """Return the next bytes, b"" at the end."""
        if self._first:
            first, self._first = self._first, b""
            return first
        data = await self._reader.read(CHUNK)
        self.used = time.monotonic()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes."""
        if data:
            self.used = time.monotonic()
            self._writer.write(data)
            await self._writer.drain()

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except (ConnectionError, OSError):
            pass  # the peer was faster
