"""The receiving half of a connection: each frame of the peer's changes streams and windows, and may be an event."""

from __future__ import annotations

from collections.abc import Callable

from windlass_server.http2 import frames, settings
from windlass_server.http2.blocks import Blocks
from windlass_server.http2.budgets import Budgets
from windlass_server.http2.events import Event, Opened, Received, Refused, Reset
from windlass_server.http2.frames import ACK, END_STREAM, STREAM_MASK, ConnectionFailure, ErrorCode, StreamFailure
from windlass_server.http2.headers import Field
from windlass_server.http2.requests import Malformed, Request, check_trailers, parse
from windlass_server.http2.sending import HIGHEST_FRAME, Sender
from windlass_server.http2.streams import Stream
from windlass_server.http2.windows import ReceiveWindow

WINDOW = 16 << 20
"""Bytes that a peer may have sent on all streams before handlers have taken them."""
MOST_STREAMS = 65_536
"""Calls under way on one connection; a client's further ones wait behind them, however short they are.

A task that is waited for is one, and an agent waits for all of a machine's on one connection.
"""
REMEMBERED = 256
"""Streams that are over, on which more may arrive."""
EMPTY = memoryview(b"")


class Frames:
    """Takes frames one by one."""

    __slots__ = (
        "_blocks",
        "_budgets",
        "_over",
        "_window",
        "closed",
        "draining",
        "last",
        "lingering",
        "now",
        "sender",
        "settled",
        "streams",
    )

    def __init__(self) -> None:
        """Begin without streams."""
        self._blocks = Blocks()
        self._budgets = Budgets()
        self._window = ReceiveWindow(WINDOW)
        self._over: dict[int, bool] = {}
        """Streams that ended before the peer had ended its side, and whether it may still send on them."""
        self.streams: dict[int, Stream] = {}
        self.sender = Sender()
        self.last = 0
        """The highest stream that the peer has opened."""
        self.lingering = 0
        """Ended streams that still count, because the caller works on them; the caller counts."""
        self.now = 0.0
        self.settled = self.draining = self.closed = False

    def take_frame(self, kind: int, flags: int, id: int, payload: memoryview) -> Event | None:
        """Take one frame. Raises ConnectionFailure, StreamFailure."""
        unfinished = self._blocks.stream
        if unfinished and (kind != frames.CONTINUATION or id != unfinished):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a header block is interrupted")
        if not self.settled and kind != frames.SETTINGS:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if kind > frames.HEADERS or not id & 1:  # every DATA and HEADERS of an odd stream passes
            frames.check(kind, id, len(payload))
        if kind == frames.DATA:
            return self._on_data(flags, id, payload)
        if kind == frames.HEADERS:
            return self._on_headers(flags, id, payload)
        if kind < len(_OTHERS):
            return _OTHERS[kind](self, flags, id, payload)
        self._budgets.idle(self.now)  # RFC 9113 section 5.5: unknown types are ignored
        return None

    # Data

    def _on_data(self, flags: int, id: int, payload: memoryview) -> Event | None:
        size = len(payload)
        stream = self._known(id)
        if not self._window.spend(size):
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        data = frames.content(flags, payload)
        if stream is None:
            self.release_connection(size)
            self._budgets.idle(self.now)
            if not self._over.get(id):
                raise StreamFailure(id, ErrorCode.STREAM_CLOSED)
            return None
        allowed = stream.receive.spend(size)
        if stream.peer_ended or not allowed:
            self.release_connection(size)
            raise StreamFailure(id, ErrorCode.STREAM_CLOSED if stream.peer_ended else ErrorCode.FLOW_CONTROL_ERROR)
        if len(data) < size:
            self._release_padding(stream, size - len(data))
        return self._deliver(stream, data, bool(flags & END_STREAM))

    def _deliver(self, stream: Stream, data: memoryview, ended: bool) -> Event:
        if stream.expected is not None and not stream.expect(len(data), ended):
            self.release_connection(len(data))
            raise StreamFailure(stream.id, ErrorCode.PROTOCOL_ERROR)
        if ended:
            stream.peer_ended = True
        elif not data:
            self._budgets.idle(self.now)
        return Received(stream, data, ended)

    def _release_padding(self, stream: Stream, size: int) -> None:
        self.release_connection(size)
        if granted := stream.receive.release(size):
            self.grant(stream.id, granted)

    def release_connection(self, size: int) -> None:
        """Let the peer send ``size`` bytes more on the connection."""
        if granted := self._window.release(size):
            self.grant(0, granted)

    def grant(self, id: int, size: int) -> None:
        """Tell the peer that a window has grown: a stream's, or the connection's, which has the number 0."""
        if not self.closed:
            self.sender.write(frames.window_update(id, size))

    def _known(self, id: int) -> Stream | None:
        """Return a stream, None when it is over. Raises ConnectionFailure for one that was never opened."""
        stream = self.streams.get(id)
        if stream is None and (not id & 1 or id > self.last):
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"a frame on stream {id}, which was not opened")
        return stream

    # Headers

    def _on_headers(self, flags: int, id: int, payload: memoryview) -> Event | None:
        block = self._blocks.begin(flags, id, payload)
        return None if block is None else self._on_block(id, block)

    def _on_continuation(self, flags: int, id: int, payload: memoryview) -> Event | None:
        block = self._blocks.go_on(flags, payload)
        return None if block is None else self._on_block(id, block)

    def _on_block(self, id: int, block: bytes) -> Event | None:
        fields, ended = self._blocks.decode(block)
        if id > self.last:
            return self._open(id, fields, ended)
        stream = self.streams.get(id)
        if stream is not None:
            return self._trailers(stream, fields, ended)
        if id not in self._over:
            raise ConnectionFailure(ErrorCode.STREAM_CLOSED, f"HEADERS on stream {id}, which is closed")
        if not self._over[id]:
            raise StreamFailure(id, ErrorCode.STREAM_CLOSED)
        return None

    def _trailers(self, stream: Stream, fields: list[Field] | None, ended: bool) -> Event:
        if stream.peer_ended:
            raise StreamFailure(stream.id, ErrorCode.STREAM_CLOSED)
        if not ended or fields is None:
            raise StreamFailure(stream.id, ErrorCode.PROTOCOL_ERROR)  # RFC 9113 sections 8.1 and 8.1.1
        try:
            check_trailers(fields)
        except Malformed:
            raise StreamFailure(stream.id, ErrorCode.PROTOCOL_ERROR) from None
        return self._deliver(stream, EMPTY, ended)

    def _open(self, id: int, fields: list[Field] | None, ended: bool) -> Event:
        self.last = id
        if self.draining or len(self.streams) + self.lingering >= MOST_STREAMS:
            self._remember(id, True)
            raise StreamFailure(id, ErrorCode.REFUSED_STREAM)
        request = self._request(id, fields, ended)
        stream = self.streams[id] = Stream(id, self.now, self.sender.stream_window)
        stream.peer_ended = ended
        if request is not None:
            stream.expected = request.length
        return Opened(stream, request, ended)

    def _request(self, id: int, fields: list[Field] | None, ended: bool) -> Request | None:
        try:
            request = None if fields is None else parse(fields)
            if request is not None and ended and request.length:
                raise Malformed("the request has no data, and a content-length")
            return request
        except Malformed as error:
            if not ended:
                self._remember(id, True)
            raise StreamFailure(id, ErrorCode.PROTOCOL_ERROR, str(error)) from None

    # Everything else

    def _on_window_update(self, flags: int, id: int, payload: memoryview) -> None:
        increment = frames.WORD.unpack(payload)[0] & STREAM_MASK
        sender = self.sender
        self._budgets.granted(sender.data_frames, self.now)
        sender.data_frames = 0
        if not id:
            if not increment:
                raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a window update of 0")
            if not sender.window.grow(increment):
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window exceeds 2^31-1")
        elif (stream := self._known(id)) is not None:
            if not increment:
                raise StreamFailure(id, ErrorCode.PROTOCOL_ERROR)
            if not stream.send.grow(increment):
                raise StreamFailure(id, ErrorCode.FLOW_CONTROL_ERROR)
            sender.enqueue(stream)

    def _on_rst_stream(self, flags: int, id: int, payload: memoryview) -> Event | None:
        stream = self._known(id)
        if stream is None:
            self._budgets.idle(self.now)
            if id in self._over:
                self._over[id] = False
            return None
        self._budgets.reset(self.now - stream.begun, self.now)
        self.forget(stream, peer_may_send=False)
        return Reset(stream, frames.WORD.unpack(payload)[0])

    def _on_settings(self, flags: int, id: int, payload: memoryview) -> None:
        # The last value of a setting counts: each change of the windows visits every stream.
        found = dict(settings.read(flags, payload))
        self._budgets.changed(self.now)
        if flags & ACK:
            return
        self.settled = True
        if frames.MAX_FRAME_SIZE in found:
            self.sender.frame_size = min(found[frames.MAX_FRAME_SIZE], HIGHEST_FRAME)
        if frames.INITIAL_WINDOW_SIZE in found:
            self._resize_windows(found[frames.INITIAL_WINDOW_SIZE])
        # Before any data that uses a wider window: some peers count it only from here on.
        self.sender.write(frames.SETTINGS_ACK)

    def _resize_windows(self, size: int) -> None:
        change = size - self.sender.stream_window
        self.sender.stream_window = size
        for stream in self.streams.values():
            if not stream.send.grow(change):
                raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window exceeds 2^31-1")
            self.sender.enqueue(stream)

    def _on_ping(self, flags: int, id: int, payload: memoryview) -> None:
        self._budgets.idle(self.now)
        if not flags & ACK:
            self.sender.write(frames.pack(frames.PING, ACK, 0, bytes(payload)))

    def _on_priority(self, flags: int, id: int, payload: memoryview) -> None:
        self._budgets.idle(self.now)
        if len(payload) != 5:
            raise StreamFailure(id, ErrorCode.FRAME_SIZE_ERROR)

    def _on_goaway(self, flags: int, id: int, payload: memoryview) -> None:
        if len(payload) < frames.GOAWAY_BODY.size:
            raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has at least 8 bytes")
        self._budgets.idle(self.now)

    def _on_push_promise(self, flags: int, id: int, payload: memoryview) -> None:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a client does not push")

    # Streams that end

    def forget(self, stream: Stream, peer_may_send: bool = True) -> None:
        """Take an ended stream from the table, and what it wanted to send from the queue."""
        stream.open = False
        del self.streams[stream.id]
        self.sender.drop(stream)
        if not stream.peer_ended:
            self._remember(stream.id, peer_may_send)

    def _remember(self, id: int, peer_may_send: bool) -> None:
        self._over[id] = peer_may_send
        if len(self._over) > REMEMBERED:
            del self._over[next(iter(self._over))]

    def refuse(self, failure: StreamFailure) -> Refused:
        """End a stream by an error of the peer's."""
        self.sender.write(frames.rst_stream(failure.stream, failure.code))
        self._budgets.refused(self.now)
        stream = self.streams.get(failure.stream)
        if stream is not None:
            self.forget(stream)
        return Refused(stream, str(failure))


_Handler = Callable[[Frames, int, int, memoryview], Event | None]
_OTHERS: tuple[_Handler, ...] = (
    Frames._on_data,
    Frames._on_headers,
    Frames._on_priority,
    Frames._on_rst_stream,
    Frames._on_settings,
    Frames._on_push_promise,
    Frames._on_ping,
    Frames._on_goaway,
    Frames._on_window_update,
    Frames._on_continuation,
)
"""By the numbers of their types."""
