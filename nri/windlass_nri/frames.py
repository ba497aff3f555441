"""NRI's multiplexing without sockets: bytes in, pieces of numbered connections out, and back.

A frame is the connection's number and the payload's length, both of 32 bits and big-endian, and the payload.
What a connection carries is a stream: how its sender cut it into frames has no meaning.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

HEADER = struct.Struct(">II")
MAX_PAYLOAD = 10 + (4 << 20)
"""A ttrpc message of the greatest size with its header: NRI's own multiplexer sends no longer payload."""
SMALL = 4096
"""What NRI's own multiplexer can deliver whatever its reader asks for; see `pack`."""
TTRPC_HEADER = 10


class Piece(NamedTuple):
    """A part of a connection's stream."""

    connection: int
    data: bytes


class FrameError(ValueError):
    """The peer does not speak NRI; nothing that follows can be understood."""


class Decoder:
    """Cuts the trunk's bytes into pieces as they come; it keeps no more than a header."""

    __slots__ = ("_connection", "_header", "_left")

    def __init__(self) -> None:
        self._header = b""
        self._connection = 0
        self._left = 0

    @property
    def pending(self) -> bool:
        """Whether the trunk so far ends inside a frame; at its end that means that it was truncated."""
        return bool(self._header) or self._left > 0

    def feed(self, data: bytes) -> list[Piece]:
        """Return the pieces that ``data`` brings; raises FrameError for a header that no plugin or runtime sends."""
        view = memoryview(data)
        pieces = []
        while view:
            if self._left:
                taken = view[: self._left]
                pieces.append(Piece(self._connection, bytes(taken)))
                self._left -= len(taken)
            else:
                taken = view[: HEADER.size - len(self._header)]
                self._begin(bytes(taken))
            view = view[len(taken) :]
        return pieces

    def _begin(self, data: bytes) -> None:
        self._header += data
        if len(self._header) < HEADER.size:
            return
        connection, length = HEADER.unpack(self._header)
        if connection == 0:
            raise FrameError("a frame of connection 0, which is reserved")
        if length > MAX_PAYLOAD:
            raise FrameError(f"a frame of {length} bytes, over the limit of {MAX_PAYLOAD}")
        self._connection, self._left, self._header = connection, length, b""


def pack(connection: int, message: bytes) -> bytes:
    """Return a ttrpc message as frames of ``connection``.

    A reader of NRI's own multiplexer (containerd/nri pkg/net/multiplex) fails with ENOMEM when a payload is
    longer than its buffer: 4096 bytes while it waits for a ttrpc header, then the body's length. And it gives up
    a peer whose payloads queue up, 256 of them. So a long message is two payloads, its header and its body.
    """
    if len(message) <= SMALL:
        return HEADER.pack(connection, len(message)) + message
    body = memoryview(message)[TTRPC_HEADER:]
    return b"".join(
        (HEADER.pack(connection, TTRPC_HEADER), message[:TTRPC_HEADER], HEADER.pack(connection, len(body)), body)
    )
