"""A client of the HTTP/2 core, without sockets: builds frames, and reads what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import hpack

from windlass_server.http2 import frames
from windlass_server.http2.connection import Connection
from windlass_server.http2.events import Event
from windlass_server.http2.frames import PREFACE

FIELDS = ((":method", "POST"), (":scheme", "http"), (":path", "/p"), (":authority", "a"), ("te", "trailers"))
HELLO = PREFACE + frames.settings({})

Frame = tuple[int, int, int, bytes]


def block(*fields: tuple[str, str]) -> bytes:
    """Return a header block that leaves nothing in the peer's table."""
    encoder = hpack.Encoder()
    encoder.header_table_size = 0
    return bytes(encoder.encode(fields or FIELDS))


def cut(data: bytes) -> Iterator[Frame]:
    """Yield type, flags, stream and payload of each frame."""
    while data:
        high, low, kind, flags, stream = frames.HEADER.unpack_from(data)
        end = frames.HEADER_SIZE + (high << 16 | low)
        yield kind, flags, stream, data[frames.HEADER_SIZE : end]
        data = data[end:]


class Peer:
    """A connection that has said hello."""

    def __init__(self, hello: bytes = HELLO) -> None:
        self.core = Connection()
        self.events: list[Event] = []
        self.now = 0.0
        self.send(hello)
        self.read()

    def send(self, *parts: bytes) -> list[Event]:
        """Feed bytes, and return the events that they are."""
        found: list[Event] = []
        for part in parts:
            if not self.core.closed:
                data = memoryview(self.core.pending + part)
                found += self.core.receive(data, self.now)
        self.events += found
        return found

    def read(self) -> list[Frame]:
        """Return the frames that have come back."""
        data = b""
        while part := self.core.take():
            data += part
        return list(cut(data))

    def kinds(self) -> Sequence[int]:
        """Return the types of the frames that have come back."""
        return [kind for kind, *_ in self.read()]
