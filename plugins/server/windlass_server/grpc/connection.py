"""HTTP/2 on asyncio's loop: a client's bytes become calls, and what calls send goes out in few writes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from windlass_server.grpc.waiting import Waiters
from windlass_server.http2 import events, frames
from windlass_server.http2.connection import Connection as Core
from windlass_server.http2.requests import Request
from windlass_server.http2.streams import Stream

BUFFER = 64 << 10
"""Bytes that are read at once, into memory that all connections share."""
HIGH_WATER = 256 << 10
"""Bytes in the transport's buffer from which on no data is sent, and nothing is read either."""
HANDSHAKE_TIMEOUT = 10.0
"""Seconds in which a peer has to say that it speaks HTTP/2; afterwards it may be silent for ever."""
PROMPT = 4
"""Calls of one read whose quick handlers run at once: those of a client with many in flight take turns with others."""
LINGER = 5.0
"""Seconds that a peer has to read why it is sent away."""
EMPTY = memoryview(b"")

logger = logging.getLogger(__name__)


class Call(Protocol):
    """What a connection tells a call of its stream."""

    @property
    def stream(self) -> Stream:
        """The stream that the call came by."""

    @property
    def running(self) -> bool:
        """Whether its handler has not returned, though the call may be over."""

    def received(self, data: memoryview, ended: bool) -> None:
        """Take bytes of the request; ``ended`` says that they are the last."""

    def gone(self) -> None:
        """End, since nobody reads an answer any more."""

    def refuse(self, why: str) -> None:
        """End as UNAVAILABLE."""


Accept = Callable[["Connection", Stream, "Request | None"], Call]
"""Begins the call that a stream is for."""


class Connection(asyncio.BufferedProtocol):
    """One client."""

    __slots__ = (
        "_accept",
        "_calls",
        "_closing",
        "_connections",
        "_due",
        "_loop",
        "_opened",
        "_reading",
        "_timer",
        "_transport",
        "_view",
        "_waiters",
        "core",
        "held",
        "lost",
        "peer",
    )

    def __init__(self, accept: Accept, connections: set[Connection], buffer: memoryview) -> None:
        """Be in ``connections`` from the beginning of the connection to its end.

        ``buffer``, of `BUFFER` bytes, is all connections' of a loop, which reads one at a time.
        """
        self.core = Core()
        self._accept = accept
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._view = buffer
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._calls: dict[int, Call] = {}
        self._waiters = Waiters(self.core, self._loop)
        self._due: asyncio.Handle | None = None
        self._opened = 0
        """Calls that the last bytes brought: the answers to several are written together."""
        self._reading = self._closing = False
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is."""
        self.held = 0
        """Bytes received and not yet taken by handlers."""
        self.peer = "unix:"

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer."""
        assert isinstance(transport, asyncio.Transport)
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._transport = transport
        self.peer = peer_name(transport)
        self._connections.add(self)
        self._timer = self._loop.call_later(HANDSHAKE_TIMEOUT, self._too_slow)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """End all calls."""
        self._closing = True
        self._connections.discard(self)
        self.lost.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        self._end_calls()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go; a frame always fits. They are taken before another connection is read."""
        size = len(self.core.pending)
        self._view[:size] = self.core.pending
        return self._view[size:]

    def buffer_updated(self, nbytes: int) -> None:
        """Take every whole frame that has arrived."""
        if self._closing:
            return
        core = self.core
        self._opened = 0
        self._reading = True
        try:
            for event in core.receive(self._view[: len(core.pending) + nbytes], self._loop.time()):
                if type(event) is events.Received:  # by far the most
                    self._on_received(event)
                else:
                    _HANDLERS[type(event)](self, event)
        finally:
            self._reading = False
        if core.settled and self._timer is not None and not core.closed:
            self._timer.cancel()
            self._timer = None
        if core.sender.size or core.sender.ready or core.draining:
            self._flush()
        if core.closed:
            self._close()

    def pause_writing(self) -> None:
        """Read nothing from a peer that does not read: its questions would pile up as answers."""
        self.core.congested = True
        if self._transport is not None and not self._closing:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self.core.congested = False
        if self._transport is not None and not self._closing:
            self._transport.resume_reading()
        self._waiters.wake_writers()
        self._flush()

    # Events

    def _on_opened(self, event: events.Opened) -> None:
        self._opened += 1
        stream = event.stream
        call = self._accept(self, stream, event.request)
        if stream.open:
            self._calls[stream.id] = call
            if event.ended:
                call.received(EMPTY, True)

    def _on_received(self, event: events.Received) -> None:
        call = self._calls.get(event.stream.id)
        if call is not None:
            call.received(event.data, event.ended)

    def _on_reset(self, event: events.Reset) -> None:
        self._gone(event.stream)

    def _on_refused(self, event: events.Refused) -> None:
        logger.debug("%s: %s", self.peer, event.why)
        if event.stream is not None:
            self._gone(event.stream)

    def _on_closed(self, event: events.Closed) -> None:
        logger.debug("%s: closed the connection: %s: %s", self.peer, event.code.name, event.why)
        self._end_calls()

    def _gone(self, stream: Stream) -> None:
        call = self._forget(stream)
        if call is not None:
            call.gone()

    def _forget(self, stream: Stream) -> Call | None:
        """Take the call of an ended stream from the table, and wake its handler."""
        self._waiters.wake(stream)
        call = self._calls.pop(stream.id, None)
        if call is not None and call.running:
            self.core.lingering += 1
        return call

    def _end_calls(self) -> None:
        calls = list(self._calls.values())
        self.core.end()
        for call in calls:
            self._gone(call.stream)
        self._waiters.wake_writers()

    # What calls do, see `links`

    @property
    def prompt(self) -> bool:
        """Whether a quick handler may run now, while the client's bytes are read."""
        return self._reading and self._opened <= PROMPT

    @property
    def backlog(self) -> int:
        """Bytes of responses that wait for the client."""
        return self.core.backlog

    def send(self, stream: Stream, headers: bytes | None, data: bytes, trailers: bytes | None) -> None:
        """Send blocks and data, in this order; trailers end the stream. What has no room is queued."""
        self.core.send(stream, headers, data, trailers)
        if not stream.open:
            self._forget(stream)
        if self._opened < 2 and not self._reading:
            self._flush()
        else:
            self._flush_soon()

    def credit(self, stream: Stream, size: int) -> None:
        """Let the peer send ``size`` bytes more on the stream."""
        self.core.release(stream, size)
        if self.core.sender.size:
            self._flush_soon()

    def hold(self, size: int) -> int:
        """Count bytes that are kept beyond their stream's window; return those of the whole connection."""
        self.held += size
        return self.held

    def released(self, stream: Stream) -> None:
        """Count the end of a handler, whose stream may be gone already."""
        if not stream.open:
            self.core.lingering -= 1

    async def drained(self, stream: Stream) -> None:
        """Wait until everything is in the transport's hands, or the stream is gone."""
        await self._waiters.drained(stream)

    # Bytes out

    def _flush_soon(self) -> None:
        if self._due is None and not self._reading:
            self._due = self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        assert self._transport is not None
        core = self.core
        data = core.take()
        while data:
            self._transport.write(data)
            data = core.take() if core.sender.size or core.sender.ready else b""
        if core.drained:
            self._go_on(core.drained)
        if core.finished:
            self._close()

    def _go_on(self, drained: list[Stream]) -> None:
        for stream in drained:
            if stream.open:
                self._waiters.wake(stream)
            else:
                self._forget(stream)
        drained.clear()

    # The end

    def _too_slow(self) -> None:
        event = self.core.fail(frames.ErrorCode.SETTINGS_TIMEOUT, f"no SETTINGS in {HANDSHAKE_TIMEOUT:.0f} s")
        self._on_closed(event)
        self._flush()
        self._close()

    def _close(self) -> None:
        if self._closing or self._transport is None:
            return
        self._closing = True
        self.core.end()
        if self._timer is not None:
            self._timer.cancel()
        # what the peer still sends is read and dropped: closed at once, it might never see why
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()
        self._timer = self._loop.call_later(LINGER, self._transport.abort)

    def drain(self, why: str) -> None:
        """Take no further calls, and close when those under way have ended."""
        if not self._closing and not self.core.draining:
            self.core.drain(why)
            self._flush()

    def refuse(self, why: str) -> None:
        """End the calls under way as UNAVAILABLE, and close."""
        for call in list(self._calls.values()):
            call.refuse(why)
        if not self._closing:
            self._flush()
        self._end_calls()
        self._close()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()


# By type, since `match` would try one after the other. Each handler takes events of its own type only.
_HANDLERS: dict[type[events.Event], Callable[..., None]] = {
    events.Opened: Connection._on_opened,
    events.Reset: Connection._on_reset,
    events.Refused: Connection._on_refused,
    events.Closed: Connection._on_closed,
}


def peer_name(transport: asyncio.Transport) -> str:
    """Return the other end as gRPC writes it."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        family, host = ("ipv6", f"[{name[0]}]") if len(name) == 4 else ("ipv4", name[0])
        return f"{family}:{host}:{name[1]}"
    return "unix:"
