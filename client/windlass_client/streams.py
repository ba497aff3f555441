"""Streams of a transfer: the client opens them, its request names them, the daemon uses them (docs/containerd 3.18).

A stream that the daemon ends early is not an error here: the transfer's call returns the error.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message

from windlass.contracts.transfer import ByteReader, ByteWriter
from windlass_api.containerd.services.streaming.v1.streaming_pb2 import StreamInit
from windlass_api.containerd.services.streaming.v1.streaming_pb2_grpc import StreamingStub
from windlass_api.containerd.types.transfer.streaming_pb2 import Data, WindowUpdate
from windlass_client.connection import Connection

PART = 32 << 10
"""Bytes of a message, as containerd has it."""
WINDOW = 64 << 10
"""Bytes that a sender may be ahead of its receiver."""


def pack(message: Message) -> AnyMessage:
    """Return a message with its type, as containerd writes types."""
    return AnyMessage(type_url=message.DESCRIPTOR.full_name, value=message.SerializeToString())


class Stream:
    """An open stream; one task sends and one receives at a time."""

    def __init__(self, id: str, call: grpc.aio.StreamStreamCall[AnyMessage, AnyMessage]) -> None:
        self.id = id
        self._call = call

    async def send(self, message: Message) -> None:
        """Send a message, unless the daemon has ended the stream."""
        try:
            await self._call.write(pack(message))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass

    async def receive(self) -> AnyMessage | None:
        """Return the next message, None at the end."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError:
            return None
        return message if isinstance(message, AnyMessage) else None

    async def finish(self) -> None:
        """Send no more."""
        try:
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            pass


@asynccontextmanager
async def opened(connection: Connection, prefix: str) -> AsyncIterator[Stream]:
    """Open a stream of a new name, which lives as long as the context. Raises Unimplemented for an older daemon."""
    id = f"{prefix}-{time.time_ns()}-{secrets.token_urlsafe(3)}"
    stub = StreamingStub(connection.channel)
    call = stub.Stream(metadata=connection.metadata)
    try:
        async with connection.step(f"opening stream {id}"):
            try:
                await call.write(pack(StreamInit(id=id)))
            except (asyncio.InvalidStateError, grpc.aio.AioRpcError):
                # The daemon refused the call early, and grpc lost the reason; a call that only reads gets it.
                call = stub.Stream(metadata=connection.metadata)
            await call.read()
        yield Stream(id, call)
    finally:
        call.cancel()


async def send_bytes(stream: Stream, source: ByteReader) -> None:
    """Send all that a reader has, no faster than the daemon takes it, and return when the daemon ends the stream."""
    credit = _Credit(stream)
    waiting = asyncio.create_task(credit.collect())
    try:
        while data := await source.read():
            for start in range(0, len(data), PART):
                part = data[start : start + PART]
                while part:
                    size = await credit.take(len(part))
                    if not size:
                        return
                    await stream.send(Data(data=part[:size]))
                    part = part[size:]
        await stream.finish()
        # Cancelling the read would cancel the call; the daemon may still work on what it has.
        await waiting
    finally:
        waiting.cancel()


class _Credit:
    """How much may be sent; the daemon grants it."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = 0
        self._ended = False
        self._changed = asyncio.Condition()

    async def collect(self) -> None:
        """Receive grants until the daemon ends the stream."""
        while (message := await self._stream.receive()) is not None:
            if message.type_url.rpartition("/")[2] == WindowUpdate.DESCRIPTOR.full_name:
                async with self._changed:
                    self._left += WindowUpdate.FromString(message.value).update
                    self._changed.notify_all()
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def take(self, wanted: int) -> int:
        """Return how many bytes may be sent now, at most ``wanted``; 0 when the daemon takes no more."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._left > 0 or self._ended)
            size = min(wanted, self._left)
            self._left -= size
            return size


async def receive_bytes(stream: Stream, sink: ByteWriter) -> None:
    """Write all that the daemon sends, granting it as much as was written."""
    granted = 0
    while True:
        if granted < WINDOW:
            await stream.send(WindowUpdate(update=WINDOW))
            granted += WINDOW
        message = await stream.receive()
        if message is None:
            return
        if message.type_url.rpartition("/")[2] == Data.DESCRIPTOR.full_name:
            data = Data.FromString(message.value).data
            granted -= len(data)
            await sink.write(data)
