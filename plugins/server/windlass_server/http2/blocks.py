"""Header blocks, put together from HEADERS and CONTINUATION frames and decoded."""

from __future__ import annotations

from windlass_server.http2 import frames
from windlass_server.http2.frames import END_HEADERS, END_STREAM, ConnectionFailure, ErrorCode
from windlass_server.http2.headers import Decoder, Field, HeaderFailure

HEADER_LIST = 32 << 10
"""Bytes of one call's headers, as they come and as RFC 9113 section 6.5.2 counts them."""
MOST_CONTINUATIONS = 64
PRIORITY_SIZE = 5


class Blocks:
    """One connection's header blocks; nothing may come between the frames of one."""

    __slots__ = ("_block", "_continuations", "_decoder", "_ended", "stream")

    def __init__(self) -> None:
        """Begin with an empty table."""
        self._decoder = Decoder(HEADER_LIST)
        self._block: bytearray | None = None
        self._continuations = 0
        self.stream = 0
        """The one whose block is not whole, so that only its CONTINUATION may come; 0 for none."""
        self._ended = False

    def begin(self, flags: int, id: int, payload: memoryview) -> bytes | None:
        """Take a HEADERS frame; return the block if that was all of it."""
        block = frames.content(flags, payload)
        if flags & frames.PRIORITIZED:
            if len(block) < PRIORITY_SIZE:
                raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority")
            block = block[PRIORITY_SIZE:]
        self._ended = bool(flags & END_STREAM)
        if flags & END_HEADERS:
            return bytes(block)
        self._block, self.stream, self._continuations = bytearray(block), id, 0
        return None

    def go_on(self, flags: int, payload: memoryview) -> bytes | None:
        """Take a CONTINUATION frame; return the block if that was the rest of it."""
        if self._block is None:
            raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of nothing")
        self._block += payload
        self._continuations += 1
        if len(self._block) > HEADER_LIST or self._continuations > MOST_CONTINUATIONS:
            raise ConnectionFailure(ErrorCode.ENHANCE_YOUR_CALM, "a header block is too long")
        if not flags & END_HEADERS:
            return None
        block, self._block, self.stream = bytes(self._block), None, 0
        return block

    def decode(self, block: bytes) -> tuple[list[Field] | None, bool]:
        """Return a block's fields, None when they are too many, and whether the peer's side of the stream ended."""
        try:
            return self._decoder.decode(block), self._ended
        except HeaderFailure as error:
            raise ConnectionFailure(ErrorCode.COMPRESSION_ERROR, str(error)) from None
