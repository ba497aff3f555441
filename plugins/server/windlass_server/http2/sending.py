"""The sending half of a connection: data that waits for its window, streams in turns, and bytes for the peer."""

from __future__ import annotations

from collections import OrderedDict, deque

from windlass_server.http2 import frames
from windlass_server.http2.streams import Stream
from windlass_server.http2.windows import SendWindow

AT_ONCE = 256 << 10
"""Bytes of waiting data that are given out in one piece."""
HIGHEST_FRAME = 64 << 10
"""Largest payload that we send, whatever the peer would take: streams take turns."""


class Sender:
    """Takes frames, and gives them out in one piece; data that the peer has no room for waits."""

    __slots__ = ("_frames", "data_frames", "frame_size", "held", "ready", "size", "stream_window", "window")

    def __init__(self) -> None:
        """Begin with the peer's default settings."""
        self._frames: list[bytes | memoryview] = []
        self.ready: OrderedDict[int, Stream] | None = None
        """Streams with data, by their numbers, in the order of their turns; None when there are none."""
        self.size = 0
        """Bytes that wait to be given out, without those that wait for a window."""
        self.window = SendWindow()
        self.stream_window = frames.DEFAULT_WINDOW
        """That of new streams."""
        self.frame_size = frames.FRAME_SIZE
        self.held = 0
        """Bytes that wait for a window."""
        self.data_frames = 0
        """How many have been sent since the peer's last window update."""

    def write(self, data: bytes) -> None:
        """Send frames as they are."""
        self._frames.append(data)
        self.size += len(data)

    def take(self) -> bytes:
        """Return what is to be sent now, and forget it."""
        if not self._frames:
            return b""
        gathered, self._frames, self.size = self._frames, [], 0
        first = gathered[0]
        return first if len(gathered) == 1 and isinstance(first, bytes) else b"".join(gathered)

    def has_room(self, stream: Stream, size: int) -> bool:
        """Return whether a stream may send ``size`` bytes in one frame now."""
        if stream.unsent or not size:
            return not stream.unsent
        return size <= stream.send.size and size <= self.window.size and size <= self.frame_size

    def data(self, stream: Stream, data: bytes) -> bytes:
        """Return the frame of data that there is room for."""
        size = len(data)
        stream.send.spend(size)
        self.window.spend(size)
        self.data_frames += 1
        return frames.data_header(size, 0, stream.id) + data

    def keep(self, stream: Stream, data: bytes) -> None:
        """Keep data until there is room."""
        if stream.unsent is None:
            stream.unsent = deque()
        stream.unsent.append(memoryview(data))
        self.held += len(data)
        self.enqueue(stream)

    def enqueue(self, stream: Stream) -> None:
        """Let a stream have its turns, when it has something to send."""
        if stream.unsent:
            if self.ready is None:
                self.ready = OrderedDict()
            self.ready[stream.id] = stream

    def pump(self) -> list[Stream]:
        """Send from the queues as long as windows allow, up to `AT_ONCE` bytes; return the streams that are done."""
        done: list[Stream] = []
        ready = self.ready
        if ready is None:
            return done
        while ready and self.window.size > 0 and self.size < AT_ONCE:
            id, stream = ready.popitem(last=False)
            if not stream.unsent or stream.send.size <= 0:
                continue  # a grant for the stream brings it back
            self._send_frame(stream, stream.unsent)
            if stream.unsent:
                ready[id] = stream
            else:
                stream.unsent = None
                done.append(stream)
        if not ready:
            self.ready = None
        return done

    def _send_frame(self, stream: Stream, unsent: deque[memoryview]) -> None:
        part = unsent[0]
        size = min(len(part), stream.send.size, self.window.size, self.frame_size)
        self._frames += (frames.data_header(size, 0, stream.id), part[:size])
        self.size += frames.HEADER_SIZE + size
        stream.send.spend(size)
        self.window.spend(size)
        self.held -= size
        self.data_frames += 1
        if size == len(part):
            unsent.popleft()
        else:
            unsent[0] = part[size:]

    def drop(self, stream: Stream) -> None:
        """Forget what a stream wanted to send."""
        if stream.unsent:
            self.held -= sum(map(len, stream.unsent))
            if self.ready is not None:
                self.ready.pop(stream.id, None)
        stream.unsent = None
