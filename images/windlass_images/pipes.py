"""Bytes between coroutines and threads: a reader as a file for code that blocks, files as readers and writers."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import IO

from windlass.contracts.content import CHUNK
from windlass.contracts.transfer import ByteReader
from windlass.errors import Cancelled


class Incoming(io.RawIOBase):
    """The data of an async reader as a file for another thread; close it to free a thread that waits."""

    def __init__(self, reader: ByteReader) -> None:
        """Make it where the reader's event loop runs."""
        super().__init__()
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")
        self._pending: Future[bytes] | None = None

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override] # any buffer is one of these
        """Fill a part of ``buffer``; 0 is the end. Raises Cancelled once it is closed."""
        if not self._rest:
            if self.closed:
                raise Cancelled("the reader has closed this pipe")
            self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            try:
                self._rest = memoryview(self._pending.result())
            except Exception:
                if self._pending.cancelled():
                    raise Cancelled("the reader has closed this pipe") from None
                raise
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def _next(self) -> bytes:
        return await self._reader.read()

    def close(self) -> None:
        """Free a thread that waits for data."""
        super().close()
        if self._pending:
            self._pending.cancel()


class ChunkReader:
    """Chunks as a reader."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks

    async def read(self) -> bytes:
        """Return the next chunk that is not empty, none at the end."""
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""


class FileWriter:
    """A file as a writer."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    async def write(self, data: bytes) -> None:
        """Write everything."""
        await asyncio.to_thread(self._file.write, data)


async def chunks_of(file: IO[bytes]) -> AsyncIterator[bytes]:
    """Yield the rest of a file."""
    while data := await asyncio.to_thread(file.read, CHUNK):
        yield data
