"""One connection of a client: `Connection` is what the outside calls, `Frames` reads what the peer sends.

The outside passes bytes to `Connection.receive`, handles each event before it asks for the
next, and writes what `Connection.take` returns. A bound on everything that a peer can make us keep or do
is part of the protocol here; see `budgets`, `blocks` and the constants below.
"""

from __future__ import annotations

from collections.abc import Iterator

from windlass_server.http2 import frames
from windlass_server.http2.blocks import HEADER_LIST
from windlass_server.http2.events import Closed, Event
from windlass_server.http2.frames import (
    END_STREAM,
    FRAME_SIZE,
    HEADER_SIZE,
    STREAM_MASK,
    ConnectionFailure,
    ErrorCode,
    StreamFailure,
)
from windlass_server.http2.receiving import MOST_STREAMS, WINDOW, Frames
from windlass_server.http2.streams import STREAM_WINDOW, Stream

GREETING = frames.settings(
    {
        frames.MAX_CONCURRENT_STREAMS: MOST_STREAMS,
        frames.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
        frames.MAX_HEADER_LIST_SIZE: HEADER_LIST,
    }
) + frames.window_update(0, WINDOW - frames.DEFAULT_WINDOW)


class Connection(Frames):
    """The server's side of one connection."""

    __slots__ = ("_greeted", "congested", "drained", "pending")

    def __init__(self) -> None:
        """Have our settings to send."""
        super().__init__()
        self._greeted = False
        self.congested = False
        """Set it while the transport takes no more: data waits then."""
        self.drained: list[Stream] = []
        """Streams whose data `take` has given out to the last byte; the caller empties the list."""
        self.pending = b""
        """The beginning of a frame: pass it again, before the bytes that follow it."""
        self.sender.write(GREETING)

    @property
    def finished(self) -> bool:
        """Whether the last stream has ended after `drain`."""
        return self.draining and not self.streams

    @property
    def backlog(self) -> int:
        """Bytes that wait on all streams."""
        return self.sender.held

    # Bytes in, events out

    def receive(self, data: memoryview, now: float) -> Iterator[Event]:
        """Yield what the peer's bytes mean, frame by frame; ``data`` begins with `pending`.

        Not to be called any more once the connection is closed.
        """
        self.now = now
        position, end, unpack = 0, len(data), frames.HEADER.unpack_from
        try:
            if not self._greeted:
                position = self._greet(data)
            while self._greeted and end - position >= HEADER_SIZE:
                high, low, kind, flags, stream = unpack(data, position)
                size = high << 16 | low
                if size > FRAME_SIZE:
                    raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes")
                stop = position + HEADER_SIZE + size
                if stop > end:
                    break
                try:
                    event = self.take_frame(kind, flags, stream & STREAM_MASK, data[position + HEADER_SIZE : stop])
                except StreamFailure as failure:
                    event = self.refuse(failure)
                position = stop
                if event is not None:
                    yield event
                    if self.closed:
                        return  # by the caller, when it handled the event
        except ConnectionFailure as error:
            yield self.fail(error.code, str(error))
        else:
            self.pending = bytes(data[position:])

    def _greet(self, data: memoryview) -> int:
        size = min(len(data), len(frames.PREFACE))
        if data[:size] != frames.PREFACE[:size]:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "the connection preface is not HTTP/2's")
        if size < len(frames.PREFACE):
            return 0
        self._greeted = True
        return size

    # Answers in, bytes out

    def send(self, stream: Stream, headers: bytes | None, data: bytes, trailers: bytes | None) -> None:
        """Send blocks and data, in this order; trailers end the stream. Data without room waits for it."""
        sender = self.sender
        head = frames.headers(stream.id, headers) if headers is not None else b""
        if not self.congested and sender.has_room(stream, len(data)):
            if data:
                head += sender.data(stream, data)
            if trailers is not None:
                self._finish(stream, head, trailers)
            else:
                sender.write(head)
            return
        if head:
            sender.write(head)
        stream.trailers = trailers
        if data:
            sender.keep(stream, data)
        elif trailers is not None and not stream.unsent:
            self._finish(stream, b"", trailers)

    def _finish(self, stream: Stream, head: bytes, trailers: bytes) -> None:
        tail = frames.headers(stream.id, trailers, END_STREAM)
        if not stream.peer_ended:
            tail += frames.rst_stream(stream.id, ErrorCode.NO_ERROR)  # RFC 9113 section 8.1: need not send the rest
        self.sender.write(head + tail)
        self.forget(stream)

    def take(self) -> bytes:
        """Return what to write now; call it again until it returns nothing."""
        if self.sender.ready and not self.congested:
            for stream in self.sender.pump():
                if stream.trailers is not None:
                    self._finish(stream, b"", stream.trailers)
                self.drained.append(stream)
        return self.sender.take()

    def release(self, stream: Stream, size: int) -> None:
        """Let the peer send ``size`` bytes more, on the connection and on a stream."""
        if granted := self._window.release(size):
            self.grant(0, granted)
        if not stream.peer_ended and (granted := stream.receive.release(size)) and stream.open:
            self.grant(stream.id, granted)

    # Ends

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """End a stream by an error."""
        if stream.open:
            self.sender.write(frames.rst_stream(stream.id, code))
            self.forget(stream)

    def drain(self, why: str) -> None:
        """Announce that no further stream is served; those that are open go on."""
        self.draining = True
        self.sender.write(frames.goaway(self.last, ErrorCode.NO_ERROR, why))

    def fail(self, code: ErrorCode, why: str) -> Closed:
        """End every stream, and tell the peer why."""
        self.end()
        self.sender.write(frames.goaway(self.last, code, why))
        return Closed(code, why)

    def end(self) -> None:
        """End every stream without a word: the peer has gone, or knows."""
        self.closed = True
        for stream in list(self.streams.values()):
            self.forget(stream)
