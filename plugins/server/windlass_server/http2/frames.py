"""HTTP/2 frames: their layout, their numbers, and the bytes of those we send (RFC 9113, sections 4, 6 and 7)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER = struct.Struct(">BHBBI")
"""Length in two parts, type, flags, stream."""
HEADER_SIZE = HEADER.size
WORD = struct.Struct(">I")
PARAMETER = struct.Struct(">HI")
GOAWAY_BODY = struct.Struct(">II")

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITIZED = 0x20

ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = range(2, 7)

DEFAULT_WINDOW = 65535
LARGEST_WINDOW = (1 << 31) - 1
FRAME_SIZE = 16384
"""Largest payload that we accept, and that every peer does."""
LARGEST_FRAME_SIZE = (1 << 24) - 1
STREAM_MASK = (1 << 31) - 1


class ErrorCode(IntEnum):
    """Why a stream or a connection ends."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class ConnectionFailure(Exception):
    """The connection cannot go on; the peer gets ``code`` and the message."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        """Say why."""
        super().__init__(message)
        self.code = code


class StreamFailure(Exception):
    """One stream cannot go on; the others do."""

    def __init__(self, stream: int, code: ErrorCode, why: str = "") -> None:
        """Say which and why."""
        super().__init__(f"stream {stream}: {code.name}{why and ': '}{why}")
        self.stream = stream
        self.code = code


ON_CONNECTION = {SETTINGS, PING, GOAWAY}
ON_EITHER = {WINDOW_UPDATE}
SIZES = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}


def check(kind: int, stream: int, size: int) -> None:
    """Raise ConnectionFailure for a frame of a known type on the wrong kind of stream, or of a wrong size."""
    if kind > CONTINUATION or kind in ON_EITHER:
        wrong = False
    elif kind in ON_CONNECTION:
        wrong = stream != 0
    else:
        wrong = stream == 0 or (kind == HEADERS and not stream & 1)
    if wrong:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, f"a frame of type {kind} on stream {stream}")
    if SIZES.get(kind, size) != size:
        raise ConnectionFailure(ErrorCode.FRAME_SIZE_ERROR, f"a frame of type {kind} of {size} bytes")


def pack(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    size = len(payload)
    return HEADER.pack(size >> 16, size & 0xFFFF, kind, flags, stream) + payload


def data_header(size: int, flags: int, stream: int) -> bytes:
    """Return what precedes ``size`` bytes of data."""
    return HEADER.pack(size >> 16, size & 0xFFFF, DATA, flags, stream)


def headers(stream: int, block: bytes, flags: int = 0) -> bytes:
    """Return a header block as one HEADERS frame and as many CONTINUATIONs as it needs."""
    if len(block) <= FRAME_SIZE:
        return pack(HEADERS, flags | END_HEADERS, stream, block)
    parts = [block[start : start + FRAME_SIZE] for start in range(0, len(block), FRAME_SIZE)]
    first, *others = parts
    found = [pack(HEADERS, flags, stream, first)]
    found += [pack(CONTINUATION, 0, stream, part) for part in others[:-1]]
    found.append(pack(CONTINUATION, END_HEADERS, stream, others[-1]))
    return b"".join(found)


def settings(values: Mapping[int, int]) -> bytes:
    """Return our settings."""
    return pack(SETTINGS, 0, 0, b"".join(PARAMETER.pack(key, value) for key, value in values.items()))


SETTINGS_ACK = pack(SETTINGS, ACK, 0)


def rst_stream(stream: int, code: int) -> bytes:
    """Return the end of a stream by an error."""
    return pack(RST_STREAM, 0, stream, WORD.pack(code))


def window_update(stream: int, increment: int) -> bytes:
    """Return a grant of ``increment`` bytes."""
    return pack(WINDOW_UPDATE, 0, stream, WORD.pack(increment))


def goaway(last: int, code: int, message: str = "") -> bytes:
    """Return the announcement that streams above ``last`` are not served."""
    return pack(GOAWAY, 0, 0, GOAWAY_BODY.pack(last, code) + message.encode()[:256])


def content(flags: int, payload: memoryview) -> memoryview:
    """Return the payload without its padding. Raises ConnectionFailure when there is more padding than payload."""
    if not flags & PADDED:
        return payload
    size = len(payload)
    if not size or payload[0] >= size:
        raise ConnectionFailure(ErrorCode.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : size - payload[0]]
