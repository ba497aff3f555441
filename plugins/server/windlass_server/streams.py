"""One stream of a connection: its windows, its end, and what is to be sent on it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from windlass_server import frames
from windlass_server.frames import END_STREAM, ErrorCode

if TYPE_CHECKING:
    from windlass_server.http2 import Connection

STREAM_WINDOW = 1 << 20
"""Bytes that a peer may send on a stream before its handler has taken them."""


class Receiver(Protocol):
    """What a stream is for: one call."""

    @property
    def running(self) -> bool:
        """Tell whether a handler still runs, though the stream may be gone."""
        ...

    def received(self, data: memoryview, ended: bool) -> None:
        """Take data, which is only valid during this call; ``ended`` is the peer's half-close."""
        ...

    def gone(self) -> None:
        """Stop: the peer has reset the stream or left; nothing can be sent any more."""
        ...

    def refuse(self, message: str) -> None:
        """End the call as UNAVAILABLE."""
        ...


class Stream:
    """A stream from its HEADERS to its end."""

    __slots__ = (
        "_connection",
        "_credit",
        "_trailers",
        "_waiter",
        "begun",
        "id",
        "open",
        "peer_ended",
        "queued",
        "receive_window",
        "receiver",
        "send_window",
        "unsent",
    )

    def __init__(self, connection: Connection, id: int, begun: float) -> None:
        """Begin stream ``id``, at a time of the loop's."""
        self._connection = connection
        self.id = id
        self.begun = begun
        self.receiver: Receiver | None = None
        self.open = True
        """Until we have ended it, or the peer has reset it."""
        self.peer_ended = False
        self.send_window = connection.sender.stream_window
        self.receive_window = STREAM_WINDOW
        self._credit = 0
        self.unsent: deque[memoryview] = deque()
        self.queued = False
        self._trailers: bytes | None = None
        self._waiter: asyncio.Future[None] | None = None

    @property
    def peer(self) -> str:
        """The other end, as gRPC writes it."""
        return self._connection.peer

    def send(self, headers: bytes | None, data: bytes, trailers: bytes | None) -> None:
        """Send blocks and data, in this order; trailers end the stream. What has no room is queued."""
        connection = self._connection
        sender = connection.sender
        head = frames.headers(self.id, headers) if headers is not None else b""
        size = len(data)
        if sender.has_room(self, size):
            self.send_window -= size
            sender.window -= size
            sender.data_frames += 1
            body = frames.data_header(size, 0, self.id) + data if size else b""
            if trailers is None:
                sender.write(head + body, connection.quiet)
            else:
                self._end(head + body, trailers)
            return
        if head:
            sender.write(head)
        if size:
            self.unsent.append(memoryview(data))
            sender.held += size
        self._trailers = trailers
        sender.enqueue(self)

    async def drained(self) -> None:
        """Wait until everything is in the transport's hands, or the stream is gone."""
        while self.open and (self.unsent or self._connection.sender.paused):
            if self.unsent:
                self._waiter = asyncio.get_running_loop().create_future()
                await self._waiter
            else:
                await self._connection.writable()

    @property
    def backlog(self) -> int:
        """Bytes that wait on all streams of the connection."""
        return self._connection.sender.held

    def sent(self) -> None:
        """Go on after the queue has been sent."""
        self._wake()
        if self._trailers is not None:
            self._end(b"", self._trailers)

    def _end(self, head: bytes, trailers: bytes) -> None:
        tail = frames.headers(self.id, trailers, END_STREAM)
        if not self.peer_ended:
            tail += frames.rst_stream(self.id, ErrorCode.NO_ERROR)  # RFC 9113 section 8.1: need not send the rest
        self._connection.sender.write(head + tail, self._connection.quiet)
        self.open = False
        self._connection.forget(self)

    def reset(self, code: ErrorCode) -> None:
        """End the stream by an error; the receiver is not told."""
        if self.open:
            self._connection.sender.write(frames.rst_stream(self.id, code))
            self.open = False
            self._connection.forget(self)

    def gone(self) -> None:
        """Tell the receiver that the peer has reset the stream or left."""
        if self.open:
            self.open = False
            receiver = self.receiver
            self._connection.forget(self)
            if receiver is not None:
                receiver.gone()

    def close(self) -> None:
        """Drop what is queued, and wake who waits for it."""
        if self.unsent:
            self._connection.sender.drop(self)
        self._wake()

    def released(self) -> None:
        """Count the end of a handler whose stream is gone already."""
        if not self.open:
            self._connection.lingering -= 1

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None

    def credit(self, size: int) -> None:
        """Let the peer send ``size`` bytes more."""
        self._connection.credit(size)
        if self.peer_ended:
            return
        self._credit += size
        if self._credit >= STREAM_WINDOW // 4 and self.open:
            self._connection.sender.write(frames.window_update(self.id, self._credit))
            self.receive_window += self._credit
            self._credit = 0

    def hold(self, size: int) -> int:
        """Count bytes kept for this stream beyond its window; return those of the whole connection."""
        self._connection.held += size
        return self._connection.held
