"""The sending half of a connection: windows, streams that wait for them, and one write for many frames."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from windlass_server import frames
from windlass_server.frames import ConnectionFailure, ErrorCode

if TYPE_CHECKING:
    from windlass_server.streams import Stream

HIGH_WATER = 256 << 10
"""Bytes in the transport's buffer from which on nothing is sent, and nothing read either."""


class Sender:
    """Takes frames from streams; what the peer has not room for waits, and streams take turns."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        """Write to ``transport``."""
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._transport = transport
        self._loop = loop
        self._frames: list[bytes | memoryview] = []
        self._size = 0
        self._ready: deque[Stream] = deque()
        self._due: asyncio.Handle | None = None
        self.gathering = False
        """While frames are being read, and while several calls run, writes are put together."""
        self.paused = False
        self.window = frames.DEFAULT_WINDOW
        self.stream_window = frames.DEFAULT_WINDOW
        self.frame_size = frames.FRAME_SIZE
        self.held = 0
        """Bytes that wait in the queues of streams."""
        self.data_frames = 0
        """How many have been sent since the peer's last window update."""

    def write(self, data: bytes, alone: bool = False) -> None:
        """Send frames as they are: at once when nothing else will follow, else with what follows."""
        if alone and not self.gathering and not self._frames:
            self._transport.write(data)
            return
        self._frames.append(data)
        self._size += len(data)
        if not self.gathering and self._due is None:
            self._due = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hand everything gathered to the transport."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._frames:
            gathered, self._frames, self._size = self._frames, [], 0
            self._transport.write(gathered[0] if len(gathered) == 1 else b"".join(gathered))

    def has_room(self, stream: Stream, size: int) -> bool:
        """Tell whether a stream may send ``size`` bytes in one frame now."""
        if stream.unsent or not size:
            return not stream.unsent
        return size <= stream.send_window and size <= self.window and size <= self.frame_size and not self.paused

    def enqueue(self, stream: Stream) -> None:
        """Send what a stream has in its queue, as windows allow and in turns."""
        if not stream.queued and stream.unsent:
            stream.queued = True
            self._ready.append(stream)
        self.pump()

    def pump(self) -> None:
        """Send from the queues as long as there is room."""
        ready = self._ready
        while ready and self.window > 0 and not self.paused:
            stream = ready.popleft()
            stream.queued = False
            if stream.unsent and stream.send_window > 0:
                self._send_frame(stream)
                if stream.unsent:
                    stream.queued = True
                    ready.append(stream)
                else:
                    stream.sent()
            if self._size >= HIGH_WATER:
                self.flush()
        if self._frames and not self.gathering:
            self.flush()

    def _send_frame(self, stream: Stream) -> None:
        part = stream.unsent[0]
        size = min(len(part), stream.send_window, self.window, self.frame_size)
        self._frames += (frames.data_header(size, 0, stream.id), part[:size])
        self._size += frames.HEADER_SIZE + size
        stream.send_window -= size
        self.window -= size
        self.held -= size
        self.data_frames += 1
        if size == len(part):
            stream.unsent.popleft()
        else:
            stream.unsent[0] = part[size:]

    def drop(self, stream: Stream) -> None:
        """Forget what a stream wanted to send."""
        self.held -= sum(map(len, stream.unsent))
        stream.unsent.clear()

    def granted(self, increment: int) -> None:
        """Take the peer's grant for the connection. Raises ConnectionFailure."""
        if not increment:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "a window update of 0")
        self.window += increment
        if self.window > frames.LARGEST_WINDOW:
            raise ConnectionFailure(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window exceeds 2^31-1")
        self.pump()
