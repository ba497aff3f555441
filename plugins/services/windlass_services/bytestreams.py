"""Bytes over a stream of messages, the receiver granting what it has room for (docs/containerd 3.18)."""

from __future__ import annotations

import asyncio

from google.protobuf.message import DecodeError

from windlass.contracts.streaming import Stream
from windlass.errors import Cancelled, DeadlineExceeded, InvalidArgument
from windlass_api.containerd.types.transfer.streaming_pb2 import Data, WindowUpdate
from windlass_services.streaming import payload, type_of

PART = 32 << 10
"""Bytes of one message."""
WINDOW = 1 << 20
"""Bytes that a client may be ahead of us: containerd grants 64 KiB, and its clients take any number."""
LARGEST_WINDOW = 1 << 30
PATIENCE = 900.0
"""Seconds without a byte after which a client is given up: it holds a lease, a thread, and what came so far."""
DATA, UPDATE = Data.DESCRIPTOR.full_name, WindowUpdate.DESCRIPTOR.full_name


class StreamReader:
    """Implements `windlass.contracts.transfer.ByteReader`."""

    def __init__(self, stream: Stream, patience: float = PATIENCE) -> None:
        """Read what the client sends, at least a byte in ``patience`` seconds."""
        self._stream = stream
        self._patience = patience
        self._granted = 0

    async def read(self) -> bytes:
        """Return the next bytes, none at the end. Raises DeadlineExceeded, Cancelled when the client has gone."""
        try:
            async with asyncio.timeout(self._patience):
                return await self._next()
        except TimeoutError:
            raise DeadlineExceeded(f"the client has sent nothing for {self._patience:g} s; begin again") from None

    async def _next(self) -> bytes:
        while True:
            if self._granted <= WINDOW // 2:
                grant = WINDOW - self._granted
                await self._stream.send(payload(WindowUpdate(update=grant)))
                self._granted += grant
            message = await self._stream.receive()
            if message is None:
                return b""
            if type_of(message) != DATA:
                continue  # types that we do not know are for later versions
            try:
                data = Data.FromString(message.value).data
            except DecodeError as error:
                raise InvalidArgument(f"a message of bytes does not parse: {error}") from None
            self._granted -= len(data)
            if self._granted < -WINDOW:
                raise InvalidArgument(f"the client sends more than the {WINDOW} bytes that it was granted")
            if data:
                return data


class StreamWriter:
    """Implements `windlass.contracts.transfer.ByteWriter`."""

    def __init__(self, stream: Stream, patience: float | None = PATIENCE) -> None:
        """Write to the client, which has to take something in ``patience`` seconds."""
        self._stream = stream
        self._patience = patience
        self._credit = 0

    async def write(self, data: bytes) -> None:
        """Send bytes, as the client grants them. Raises DeadlineExceeded, Cancelled when it has gone."""
        view = memoryview(data)
        try:
            while view:
                async with asyncio.timeout(self._patience):
                    sent = await self._send(view)
                view = view[sent:]
        except TimeoutError:
            raise DeadlineExceeded(f"the client has taken nothing for {self._patience:g} s; begin again") from None

    async def _send(self, view: memoryview) -> int:
        while self._credit <= 0:
            await self._collect()
        part = view[: min(PART, self._credit)]
        await self._stream.send(payload(Data(data=bytes(part))))
        self._credit -= len(part)
        return len(part)

    async def _collect(self) -> None:
        message = await self._stream.receive()
        if message is None:
            raise Cancelled("the client reads no further")
        if type_of(message) != UPDATE:
            return
        try:
            granted = WindowUpdate.FromString(message.value).update
        except DecodeError as error:
            raise InvalidArgument(f"a grant does not parse: {error}") from None
        if granted <= 0:
            raise InvalidArgument(f"the client grants {granted} bytes")
        self._credit = min(self._credit + granted, LARGEST_WINDOW)


class Lines:
    """Lines for a stream that a client may or may not read; from any thread, and never waiting for it."""

    MOST = 1000

    def __init__(self, stream: Stream) -> None:
        """Write to the client, beginning with `run`."""
        self._writer = StreamWriter(stream, patience=None)
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str] = asyncio.Queue(self.MOST)

    def tell(self, line: str) -> None:
        """Send a line, or drop it if too many wait already."""
        self._loop.call_soon_threadsafe(self._put, line)

    def _put(self, line: str) -> None:
        if not self._queue.full():
            self._queue.put_nowait(line)

    async def run(self) -> None:
        """Send lines until it is cancelled."""
        while True:
            line = await self._queue.get()
            await self._writer.write(f"{line}\n".encode())
