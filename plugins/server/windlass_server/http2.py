"""One HTTP/2 connection of a client (RFC 9113): reads frames, keeps streams, and bounds what a peer can cost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from windlass_server import frames
from windlass_server.blocks import HEADER_LIST, Blocks
from windlass_server.budgets import Budget
from windlass_server.frames import (
    ACK,
    END_STREAM,
    FRAME_SIZE,
    HEADER_SIZE,
    STREAM_MASK,
    ConnectionFailure,
    ErrorCode,
    StreamFailure,
)
from windlass_server.headers import Field
from windlass_server.sending import Sender
from windlass_server.streams import STREAM_WINDOW, Receiver, Stream

BUFFER = 64 << 10
"""Bytes that are read at once, into memory that all connections share."""
WINDOW = 16 << 20
"""Bytes that a peer may have sent on all streams before handlers have taken them."""
MOST_STREAMS = 65_536
"""Calls under way on one connection; a client's further ones wait behind them, however short they are.

A task that is waited for is one, and an agent waits for all of a machine's on one connection.
"""
MOST_RESETS = 4096
"""Young streams that a peer may reset at once (CVE-2023-44487)."""
YOUNG = 1.0
"""Seconds; to reset an older stream is no attack, and a client that goes may reset thousands of them."""
GRANTS_PER_FRAME = 4
"""Window updates that a frame of data allows a peer: one for the stream and one for the connection is usual."""
HANDSHAKE_TIMEOUT = 10.0
"""Seconds in which a peer has to say that it speaks HTTP/2; afterwards it may be silent for ever."""
LINGER = 5.0
"""Seconds that a peer has to read why it is sent away."""
REMEMBERED = 256
"""Streams that we ended first, on which more may arrive."""
EMPTY = memoryview(b"")

OUR_SETTINGS = frames.settings(
    {
        frames.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
        frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        frames.MAX_HEADER_LIST_SIZE: HEADER_LIST,
    }
) + frames.window_update(0, WINDOW - frames.DEFAULT_WINDOW)

Accept = Callable[[Stream, "list[Field] | None"], Receiver]
"""Makes the receiver of a new stream; the fields are None when there were too many."""

logger = logging.getLogger(__name__)


class Connection(asyncio.BufferedProtocol):
    """One peer. ``accept`` is called for every stream that it opens."""

    sender: Sender

    def __init__(self, accept: Accept, connections: set[Connection], buffer: memoryview) -> None:
        """Be in ``connections`` from the beginning of the connection to its end.

        ``buffer``, of `BUFFER` bytes, is all connections' of a loop, which reads one at a time.
        """
        self._accept = accept
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._view = buffer
        self._rest = b""
        """The beginning of a frame whose end has not arrived."""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._blocks = Blocks()
        self._streams: dict[int, Stream] = {}
        self._forgotten: dict[int, None] = {}
        self._last = 0
        self._opened = 0
        self._greeted = self._settled = self._draining = self._closed = False
        self._window = WINDOW
        self._credit = 0
        self._writable: asyncio.Future[None] | None = None
        self._resets = Budget("streams opened and reset", MOST_RESETS, 500)
        self._changes = Budget("changes of settings", 100, 10)
        self._idle = Budget("frames without content", 20_000, 2_000)
        self._grants = Budget("window updates", 20_000, 2_000)
        self._earned = 0
        self.lost: asyncio.Future[None] = self._loop.create_future()
        """Done when the connection is."""
        self.lingering = 0
        """Handlers that still run, though their streams are gone."""
        self.held = 0
        """Bytes received and not yet taken by handlers."""
        self.peer = "unix:"

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the peer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.peer = peer_name(transport)
        self.sender = Sender(transport, self._loop)
        self._connections.add(self)
        self._timer = self._loop.call_later(HANDSHAKE_TIMEOUT, self._too_slow)
        transport.write(OUR_SETTINGS)

    def connection_lost(self, exc: Exception | None) -> None:
        """End all calls."""
        self._closed = True
        self._connections.discard(self)
        self.lost.set_result(None)
        if self._timer is not None:
            self._timer.cancel()
        self._end_streams()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the next bytes go; a frame always fits. They are taken before another connection is read."""
        size = len(self._rest)
        self._view[:size] = self._rest
        return self._view[size:]

    def buffer_updated(self, nbytes: int) -> None:
        """Take every whole frame that has arrived."""
        sender = self.sender
        sender.gathering = True
        self._opened = 0
        end = len(self._rest) + nbytes
        position = 0
        try:
            if not self._greeted:
                position = self._greet(end)
            if self._greeted:
                position = self._read(position, end)
        except ConnectionFailure as failure:
            self._fail(failure)
        finally:
            sender.gathering = False
        if self._closed:
            self._rest = b""
            return
        self._rest = bytes(self._view[position:end]) if position < end else b""
        sender.flush()

    def pause_writing(self) -> None:
        """Read nothing from a peer that does not read: its questions would pile up as answers."""
        self.sender.paused = True
        if self._transport is not None and not self._closed:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self.sender.paused = False
        if self._transport is not None and not self._closed:
            self._transport.resume_reading()
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None
        self.sender.pump()

    async def writable(self) -> None:
        """Wait until the transport has room, or the connection is lost."""
        if self.sender.paused and not self._closed:
            if self._writable is None:
                self._writable = self._loop.create_future()
            await asyncio.shield(self._writable)

    # Frames

    def _greet(self, end: int) -> int:
        size = min(end, len(frames.PREFACE))
        if self._view[:size] != frames.PREFACE[:size]:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "the connection preface is not HTTP/2's")
        if size < len(frames.PREFACE):
            return 0
        self._greeted = True
        return size

    def _read(self, position: int, end: int) -> int:
        view, unpack = self._view, frames.HEADER.unpack_from
        while end - position >= HEADER_SIZE and not self._closed:
            high, low, kind, flags, stream = unpack(view, position)
            size = high << 16 | low
            if size > FRAME_SIZE:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
            stop = position + HEADER_SIZE + size
            if stop > end:
                break
            try:
                self._take(kind, flags, stream & STREAM_MASK, view[position + HEADER_SIZE : stop])
            except StreamFailure as failure:
                self._fail_stream(failure)
            position = stop
        return position

    def _take(self, kind: int, flags: int, id: int, payload: memoryview) -> None:
        self._blocks.check(kind, id)
        if not self._settled and kind != frames.SETTINGS:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        frames.check(kind, id, len(payload))
        if kind == frames.DATA:
            self._on_data(flags, id, payload)
        elif kind == frames.HEADERS:
            self._on_headers(flags, id, payload)
        elif kind == frames.WINDOW_UPDATE:
            self._on_window_update(id, payload)
        elif kind < len(_OTHERS):
            _OTHERS[kind](self, flags, id, payload)
        else:
            self._idle.spend(self._loop.time())  # RFC 9113 section 5.5: unknown types are ignored

    def _on_data(self, flags: int, id: int, payload: memoryview) -> None:
        size = len(payload)
        stream = self._known(id)
        self._window -= size
        if self._window < 0:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        data = frames.content(flags, payload)
        if stream is None:
            self.credit(size)
            self._idle.spend(self._loop.time())
            if id not in self._forgotten:
                raise StreamFailure(id, ErrorCode.STREAM_CLOSED)
            return
        stream.receive_window -= size
        if stream.peer_ended or stream.receive_window < 0:
            self.credit(size)
            code = ErrorCode.STREAM_CLOSED if stream.peer_ended else ErrorCode.FLOW_CONTROL_ERROR
            raise StreamFailure(id, code)
        if len(data) < size:
            stream.credit(size - len(data))
        self._deliver(stream, data, bool(flags & END_STREAM))

    def _deliver(self, stream: Stream, data: memoryview, ended: bool) -> None:
        if ended:
            stream.peer_ended = True
        elif not data:
            self._idle.spend(self._loop.time())
        if stream.receiver is not None:
            stream.receiver.received(data, ended)

    def _known(self, id: int) -> Stream | None:
        """Return a stream, None when it is over. Raises ConnectionFailure for one that was never opened."""
        stream = self._streams.get(id)
        if stream is None and (not id & 1 or id > self._last):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"a frame on stream {id}, which was not opened")
        return stream

    def _on_headers(self, flags: int, id: int, payload: memoryview) -> None:
        block = self._blocks.begin(flags, id, payload)
        if block is not None:
            self._on_block(id, block)

    def _on_continuation(self, flags: int, id: int, payload: memoryview) -> None:
        block = self._blocks.go_on(flags, payload)
        if block is not None:
            self._on_block(id, block)

    def _on_block(self, id: int, block: bytes) -> None:
        fields, ended = self._blocks.decode(block)
        if id > self._last:
            self._open(id, fields, ended)
            return
        stream = self._streams.get(id)
        if stream is None:
            if id not in self._forgotten:
                raise ConnectionFailure(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {id}, which is closed")
        elif stream.peer_ended:
            raise StreamFailure(id, ErrorCode.STREAM_CLOSED)
        elif not ended or fields is None or any(not field.name or field.name[0] == ":" for field in fields):
            raise StreamFailure(id, ErrorCode.PROTOCOL_ERROR)  # RFC 9113 sections 8.1 and 8.1.1
        else:
            self._deliver(stream, EMPTY, ended)  # trailers, which gRPC's clients never send

    def _open(self, id: int, fields: list[Field] | None, ended: bool) -> None:
        self._last = id
        if self._draining or len(self._streams) + self.lingering >= MOST_STREAMS:
            self._remember(id)
            self._resets.spend(self._loop.time())
            raise StreamFailure(id, ErrorCode.REFUSED_STREAM)
        self._opened += 1
        stream = Stream(self, id, self._loop.time())
        self._streams[id] = stream
        stream.peer_ended = ended
        receiver = self._accept(stream, fields)
        if stream.open:
            stream.receiver = receiver
            if ended:
                receiver.received(EMPTY, True)

    def _on_window_update(self, id: int, payload: memoryview) -> None:
        increment = frames.WORD.unpack(payload)[0] & STREAM_MASK
        self._earned += GRANTS_PER_FRAME * self.sender.data_frames - 1
        self.sender.data_frames = 0
        if self._earned < 0:
            self._earned = 0
            self._grants.spend(self._loop.time())
        if not id:
            self.sender.granted(increment)
            return
        stream = self._known(id)
        if stream is None:
            return
        stream.send_window += increment
        if not increment or stream.send_window > frames.LARGEST_WINDOW:
            raise StreamFailure(id, ErrorCode.FLOW_CONTROL_ERROR if increment else ErrorCode.PROTOCOL_ERROR)
        self.sender.enqueue(stream)

    def _on_rst_stream(self, flags: int, id: int, payload: memoryview) -> None:
        stream, now = self._known(id), self._loop.time()
        if stream is None:
            self._idle.spend(now)
            return
        if now - stream.begun < YOUNG:
            self._resets.spend(now)
        stream.peer_ended = True
        stream.gone()

    def _on_settings(self, flags: int, id: int, payload: memoryview) -> None:
        if len(payload) % frames.PARAMETER.size or (flags & ACK and payload):
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS has 6 bytes for each")
        self._changes.spend(self._loop.time())
        if flags & ACK:
            return
        if not self._settled:
            self._settled = True
            if self._timer is not None:
                self._timer.cancel()
        for key, value in frames.PARAMETER.iter_unpack(payload):
            self._set(key, value)
        # Before any data that uses a wider window: some peers count it only from here on.
        self.sender.write(frames.SETTINGS_ACK)
        for stream in list(self._streams.values()):
            if stream.unsent:
                self.sender.enqueue(stream)

    def _set(self, key: int, value: int) -> None:
        if key == frames.ENABLE_PUSH and value > 1:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
        if key == frames.MAX_FRAME_SIZE:
            if not frames.FRAME_SIZE <= value <= frames.LARGEST_FRAME_SIZE:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
            self.sender.frame_size = min(value, HIGHEST_FRAME)
        if key == frames.INITIAL_WINDOW_SIZE:
            self._set_window(value)

    def _set_window(self, value: int) -> None:
        if value > frames.LARGEST_WINDOW:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
        change = value - self.sender.stream_window
        self.sender.stream_window = value
        for stream in self._streams.values():
            stream.send_window += change
            if stream.send_window > frames.LARGEST_WINDOW:
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window exceeds 2^31-1")

    def _on_ping(self, flags: int, id: int, payload: memoryview) -> None:
        self._idle.spend(self._loop.time())
        if not flags & ACK:
            self.sender.write(frames.pack(frames.PING, ACK, 0, bytes(payload)))

    def _on_priority(self, flags: int, id: int, payload: memoryview) -> None:
        self._idle.spend(self._loop.time())
        if len(payload) != 5:
            raise StreamFailure(id, ErrorCode.FRAME_SIZE_ERROR)

    def _on_goaway(self, flags: int, id: int, payload: memoryview) -> None:
        if len(payload) < frames.GOAWAY_BODY.size:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has at least 8 bytes")
        self._idle.spend(self._loop.time())

    def _on_push_promise(self, flags: int, id: int, payload: memoryview) -> None:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a client does not push")

    # Streams

    @property
    def quiet(self) -> bool:
        """Tell whether few calls came together, so that an answer need not wait for others."""
        return self._opened < 2

    def forget(self, stream: Stream) -> None:
        """Take an ended stream from the list."""
        del self._streams[stream.id]
        stream.close()
        if stream.receiver is not None and stream.receiver.running:
            self.lingering += 1
        stream.receiver = None  # which has the stream: a call leaves no cycles behind
        if not stream.peer_ended:
            self._remember(stream.id)
        if self._draining and not self._streams:
            self._close()

    def _remember(self, id: int) -> None:
        self._forgotten[id] = None
        if len(self._forgotten) > REMEMBERED:
            del self._forgotten[next(iter(self._forgotten))]

    def credit(self, size: int) -> None:
        """Let the peer send ``size`` bytes more on the connection."""
        self._credit += size
        if self._credit >= WINDOW // 4 and not self._closed:
            self._window += self._credit
            self.sender.write(frames.window_update(0, self._credit))
            self._credit = 0

    # The end

    def _fail_stream(self, failure: StreamFailure) -> None:
        logger.debug("%s: %s", self.peer, failure)
        stream = self._streams.get(failure.stream)
        self.sender.write(frames.rst_stream(failure.stream, failure.code))
        self._resets.spend(self._loop.time())
        if stream is not None:
            stream.gone()

    def _fail(self, failure: ConnectionFailure) -> None:
        logger.debug("%s: closed the connection: %s: %s", self.peer, failure.code.name, failure)
        self._end_streams()
        self.sender.write(frames.goaway(self._last, failure.code, str(failure)))
        self._close()

    def _too_slow(self) -> None:
        self._fail(ConnectionFailure(ErrorCode.SETTINGS_TIMEOUT, f"no SETTINGS in {HANDSHAKE_TIMEOUT:.0f} s"))

    def _end_streams(self) -> None:
        for stream in list(self._streams.values()):
            stream.gone()
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None

    def _close(self) -> None:
        if not self._closed and self._transport is not None:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self.sender.flush()
            # what the peer still sends is read and dropped: closed at once, it might never see why
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()
            self._timer = self._loop.call_later(LINGER, self._transport.abort)

    def drain(self) -> None:
        """Take no further calls, and close when those under way have ended."""
        if not self._closed and not self._draining:
            self._draining = True
            self.sender.write(frames.goaway(self._last, ErrorCode.NO_ERROR, "the server stops"))
            if not self._streams:
                self._close()

    def refuse(self, message: str) -> None:
        """End the calls under way as UNAVAILABLE, and close."""
        for stream in list(self._streams.values()):
            if stream.receiver is not None:
                stream.receiver.refuse(message)
        self._end_streams()
        self._close()

    def abort(self) -> None:
        """Drop the connection."""
        if self._transport is not None:
            self._transport.abort()


HIGHEST_FRAME = 64 << 10
"""Largest payload that we send, whatever the peer would take: streams take turns."""

_OTHERS: tuple[Callable[[Connection, int, int, memoryview], None], ...] = (
    Connection._on_push_promise,
    Connection._on_push_promise,
    Connection._on_priority,
    Connection._on_rst_stream,
    Connection._on_settings,
    Connection._on_push_promise,
    Connection._on_ping,
    Connection._on_goaway,
    Connection._on_push_promise,
    Connection._on_continuation,
)


def peer_name(transport: asyncio.Transport) -> str:
    """Return the other end as gRPC writes it."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        family, host = ("ipv6", f"[{name[0]}]") if len(name) == 4 else ("ipv4", name[0])
        return f"{family}:{host}:{name[1]}"
    return "unix:"
