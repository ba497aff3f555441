"""The body of a request: kept as bytes until the handler takes its messages, and credited to the client then."""

from __future__ import annotations

import asyncio

from windlass.errors import Cancelled, Code
from windlass.typing import override
from windlass_server.grpc.links import Link
from windlass_server.grpc.messages import PREFIX_SIZE, Incoming
from windlass_server.grpc.metadata import Refused
from windlass_server.http2.streams import Stream

MOST_HELD = 256 << 20
"""Bytes of requests, and of responses, that one connection may have waiting here."""


class Body(Incoming):
    """What has arrived of one request.

    Of a call that takes one message everything is credited at once; of a stream, what the handler
    has taken, and while it waits for a message also the parts of that.
    """

    __slots__ = ("_kept", "_link", "_owed", "_stream", "_waiter", "closed", "ended")

    def __init__(self, link: Link, stream: Stream, limit: int) -> None:
        """Begin empty; take messages of up to ``limit`` bytes."""
        super().__init__(limit)
        self._link = link
        self._stream = stream
        self._kept = self._owed = 0
        self._waiter: asyncio.Future[None] | None = None
        self.closed = False
        """Whether the call is over, so that no message will be taken."""
        self.ended = False
        """Whether the client has half-closed."""

    def only(self, data: memoryview) -> tuple[bool, bytes] | None:
        """Return the one message of a request, and whether it is compressed, when ``data`` ends it. Raises Refused."""
        message = self.whole(data)
        if message is not None:
            return False, message
        self._hold(data)
        if self.ready():
            compressed, message = self.take()
            self._release(len(message) + PREFIX_SIZE)
            if len(self):
                raise Refused(Code.INTERNAL, "more than one message in a call that takes one")
            return compressed, message
        if self.ended:
            raise Refused(Code.INTERNAL, "the request ended before its message")
        return None

    def part(self, data: memoryview) -> None:
        """Keep a part of a stream of messages. Raises Refused."""
        self._owed += len(data)  # first: `clear` credits it, also when there is no room
        self._hold(data)
        if self._waiter is not None:
            if self.ready() or self.ended:
                self.wake()
            else:
                self._credit(self._owed)

    async def next(self) -> tuple[bool, bytes]:
        """Wait for a message; return whether it is compressed, and it. Raises Refused, and StopAsyncIteration."""
        while not self.ready():
            self._credit(self._owed)
            if self.closed:  # before `ended`: messages that were not taken are gone, and the request is not whole
                raise Cancelled("the call is over")
            if self.ended and len(self):
                raise Refused(Code.INTERNAL, "the request ended in the middle of a message")
            if self.ended:
                raise StopAsyncIteration
            if self._waiter is not None and not self._waiter.done():
                raise RuntimeError("the request is being read already")
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        compressed, message = self.take()
        size = len(message) + PREFIX_SIZE
        self._release(size)
        self._credit(min(size, self._owed))
        return compressed, message

    def wake(self) -> None:
        """Let the handler go on that waits for a message."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._waiter = None

    @override
    def clear(self) -> None:
        """Forget everything: the call is over."""
        self.closed = True
        if self._owed:
            self._credit(self._owed)
        if self._kept:
            self._release(self._kept)
        super().clear()

    def _hold(self, data: memoryview) -> None:
        self.append(data)
        self._kept += len(data)
        if self._link.hold(len(data)) > MOST_HELD:
            raise Refused(Code.RESOURCE_EXHAUSTED, "requests that are not whole yet take too much memory")

    def _release(self, size: int) -> None:
        self._kept -= size
        self._link.hold(-size)

    def _credit(self, size: int) -> None:
        self._owed -= size
        self._link.credit(self._stream, size)
