"""One stream of a connection: its windows, its end, and what waits to be sent on it."""

from __future__ import annotations

from collections import deque

from windlass_server.http2.windows import ReceiveWindow, SendWindow

STREAM_WINDOW = 1 << 20
"""Bytes that a peer may send on a stream before its handler has taken them."""


class Stream:
    """A stream from its HEADERS to its end."""

    __slots__ = ("begun", "expected", "id", "open", "peer_ended", "receive", "send", "trailers", "unsent")

    def __init__(self, id: int, begun: float, window: int) -> None:
        """Begin stream ``id``, at a time of the caller's; the peer takes ``window`` bytes."""
        self.id = id
        self.begun = begun
        self.open = True
        """Until we have ended it, or the peer has reset it."""
        self.peer_ended = False
        self.expected: int | None = None
        """Bytes of data that are still to come, when the request said how many."""
        self.send = SendWindow(window)
        self.receive = ReceiveWindow(STREAM_WINDOW)
        self.unsent: deque[memoryview] | None = None
        """Data for which there was no room; None when there is none."""
        self.trailers: bytes | None = None
        """What ends the stream after the data that waits."""

    def expect(self, size: int, ended: bool) -> bool:
        """Count data, its end included; return whether it is as much as the request said (RFC 9113 section 8.1.1)."""
        expected = self.expected = (self.expected or 0) - size
        return expected >= 0 and not (ended and expected)
