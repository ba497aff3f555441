"""gRPC messages: five bytes, then as many as those say, perhaps compressed."""

from __future__ import annotations

import asyncio
import struct
import zlib

from windlass.errors import Code
from windlass_server.grpc.metadata import ACCEPT, Refused

PREFIX = struct.Struct(">BI")
PREFIX_SIZE = PREFIX.size
INLINE = 4 << 10
"""Compressed bytes that are expanded on the loop; more go to a thread."""

APART = 64 << 10
"""Bytes of a message whose prefix is sent apart, in a frame of its own: to copy a list of megabytes takes longer."""

GZIP = "gzip"
IDENTITY = "identity"
_FORMATS = {GZIP: 31, "deflate": 15}
"""zlib's wbits."""


def frame(message: bytes, limit: int) -> tuple[bytes, bytes]:
    """Return what to send of a message: both parts, of which the first may be empty.

    Raises Refused when it is larger than ``limit``.
    """
    size = len(message)
    if size > limit:
        raise Refused(Code.RESOURCE_EXHAUSTED, f"grpc: trying to send message larger than max ({size} vs. {limit})")
    prefix = PREFIX.pack(0, size)
    return (prefix, message) if size >= APART else (b"", prefix + message)


async def gzipped(message: bytes, limit: int) -> tuple[bytes, bytes]:
    """Return the same of a message that is compressed. Raises Refused when it is larger than ``limit`` before."""
    if not message or len(message) > limit:
        return frame(message, limit)
    data = compress(message) if len(message) <= INLINE else await asyncio.to_thread(compress, message)
    return b"", PREFIX.pack(1, len(data)) + data


def compress(message: bytes) -> bytes:
    """Return a message as gzip."""
    return zlib.compress(message, wbits=_FORMATS[GZIP])


class Incoming:
    """The messages of one request as they arrive, kept as bytes until they are taken."""

    __slots__ = ("_buffer", "_encoding", "_limit")

    def __init__(self, limit: int) -> None:
        """Take messages of up to ``limit`` bytes."""
        self._buffer: bytearray | None = None
        self._limit = limit
        self._encoding = IDENTITY

    def encoded(self, encoding: str) -> None:
        """Take messages in this encoding. Raises Refused for one that is not known."""
        if encoding != IDENTITY and encoding not in _FORMATS:
            message = f'grpc: Decompressor is not installed for grpc-encoding "{encoding}"'
            raise Refused(Code.UNIMPLEMENTED, message, headers=ACCEPT)
        self._encoding = encoding

    def whole(self, data: memoryview) -> bytes | None:
        """Return the message that ``data`` is, None when it is not exactly one, or not a plain one."""
        size = len(data)
        if self._buffer or size < PREFIX_SIZE or size > self._limit:
            return None
        flag, length = PREFIX.unpack_from(data)
        return bytes(data[PREFIX_SIZE:]) if not flag and length == size - PREFIX_SIZE else None

    def append(self, data: memoryview) -> None:
        """Keep data."""
        if self._buffer is None:
            self._buffer = bytearray(data)
        else:
            self._buffer += data

    def clear(self) -> None:
        """Forget what is kept."""
        self._buffer = None

    def __len__(self) -> int:
        """Return how many bytes are kept."""
        return len(self._buffer) if self._buffer else 0

    def ready(self) -> bool:
        """Return whether a message can be taken. Raises Refused when it is larger than the limit."""
        if len(self) < PREFIX_SIZE:
            return False
        assert self._buffer is not None
        flag, length = PREFIX.unpack_from(self._buffer)
        if flag > 1 or (flag and self._encoding == IDENTITY):
            raise Refused(Code.INTERNAL, "grpc: compressed flag set with identity or empty encoding")
        if length > self._limit:
            raise Refused(
                Code.RESOURCE_EXHAUSTED, f"grpc: received message larger than max ({length} vs. {self._limit})"
            )
        return len(self) >= PREFIX_SIZE + int(length)

    def take(self) -> tuple[bool, bytes]:
        """Return the first message and whether it is compressed; `ready` has said that it is there."""
        assert self._buffer is not None
        flag, length = PREFIX.unpack_from(self._buffer)
        end = PREFIX_SIZE + length
        with memoryview(self._buffer) as view:
            message = bytes(view[PREFIX_SIZE:end])
        del self._buffer[:end]
        return bool(flag), message

    async def expand(self, message: bytes) -> bytes:
        """Return a compressed message as it was. Raises Refused."""
        wbits = _FORMATS[self._encoding]
        if len(message) <= INLINE:
            return expand(message, wbits, self._limit)
        return await asyncio.to_thread(expand, message, wbits, self._limit)


def expand(message: bytes, wbits: int, limit: int) -> bytes:
    """Return what ``message`` was before compression. Raises Refused."""
    stream = zlib.decompressobj(wbits)
    try:
        data = stream.decompress(message, limit + 1)
    except zlib.error as error:
        raise Refused(Code.INTERNAL, f"grpc: failed to decompress the received message: {error}") from None
    if len(data) > limit:
        raise Refused(Code.RESOURCE_EXHAUSTED, f"grpc: received message after decompression larger than max {limit}")
    if not stream.eof or stream.unused_data:
        raise Refused(Code.INTERNAL, "grpc: failed to decompress the received message: it does not end where it should")
    return data
