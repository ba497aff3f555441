"""ttrpc without sockets: bytes to frames and back, and the Request and Response envelopes.

Imports neither protobuf nor grpc, nor dataclasses or typing: the shim, which must
stay small, uses it too. Rules and limits are in wire/README.md, "ttrpc frames".
"""

from __future__ import annotations

import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MAX_DATA = 4 << 20
"""Longest body; a sender refuses more, a receiver discards it and fails that stream."""

REQUEST = 1
RESPONSE = 2
DATA = 3

REMOTE_CLOSED = 0x01
REMOTE_OPEN = 0x02
NO_DATA = 0x04

HEADER = struct.Struct(">IIBB")

INVALID_ARGUMENT = 3
RESOURCE_EXHAUSTED = 8

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types of protobuf; groups are not spoken here."""

MAX_VARINT_BYTES = 10


class Malformed(ValueError):
    """The bytes are not what they should be; the message says where."""


class Record:
    """Values with names: what `typing.NamedTuple` makes, without its module."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


class Frame(Record):
    """One ttrpc message; ``length`` is the announced one, and ``data`` is empty when that was over the limit."""

    __slots__ = ("data", "flags", "length", "stream", "type")

    def __init__(self, stream: int, type: int, flags: int, data: bytes, length: int) -> None:
        self.stream = stream
        self.type = type
        self.flags = flags
        self.data = data
        self.length = length

    @property
    def oversized(self) -> bool:
        """Whether the body was discarded; its stream has failed, the connection lives on."""
        return self.length > MAX_DATA


def pack_frame(stream: int, type: int, flags: int, data: bytes) -> bytes:
    """Return a frame; raises ValueError for a body over the limit, which no peer would take."""
    if len(data) > MAX_DATA:
        raise ValueError(f"ttrpc message of {len(data)} bytes exceeds the limit of {MAX_DATA}")
    return HEADER.pack(len(data), stream, type, flags) + data


class FrameDecoder:
    """Cuts a byte stream into frames, however it was split on the way."""

    __slots__ = ("_buffer", "_skip")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skip = 0

    @property
    def pending(self) -> bool:
        """Whether the stream so far ends inside a frame; at end of file that means it was truncated."""
        return bool(self._buffer) or self._skip > 0

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that ``data`` completes; an oversized one is reported at its header."""
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        self._buffer += data
        frames = []
        while (frame := self._cut()) is not None:
            frames.append(frame)
        return frames

    def _cut(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < HEADER.size:
            return None
        length, stream, type, flags = HEADER.unpack_from(buffer)
        end = HEADER.size + length
        if length > MAX_DATA:
            self._skip = max(0, end - len(buffer))
            del buffer[:end]
            return Frame(stream, type, flags, b"", length)
        if len(buffer) < end:
            return None
        body = bytes(buffer[HEADER.size : end])
        del buffer[:end]
        return Frame(stream, type, flags, body, length)


class Request(Record):
    """A call; ``timeout_nano`` is the time left when it was sent, 0 for none."""

    __slots__ = ("metadata", "method", "payload", "service", "timeout_nano")

    def __init__(
        self,
        service: str,
        method: str,
        payload: bytes = b"",
        timeout_nano: int = 0,
        metadata: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.service = service
        self.method = method
        self.payload = payload
        self.timeout_nano = timeout_nano
        self.metadata = metadata or {}


class Response(Record):
    """An answer; ``code`` is gRPC's, 0 for success."""

    __slots__ = ("code", "message", "payload")

    def __init__(self, code: int = 0, message: str = "", payload: bytes = b"") -> None:
        self.code = code
        self.message = message
        self.payload = payload


def refusal(frame: Frame, last_stream: int) -> Response | None:
    """Return what a server that knows only unary calls answers to a frame that opens no call, or None to serve it.

    ``last_stream`` is the highest stream so far. A frame of an unknown type is
    not answered at all; the caller ignores it before asking.
    """
    if frame.oversized:
        return Response(RESOURCE_EXHAUSTED, f"message of {frame.length} bytes exceeds the limit of {MAX_DATA}")
    if frame.type != REQUEST:
        return Response(INVALID_ARGUMENT, f"stream {frame.stream} is not open")
    if frame.stream % 2 == 0:
        return Response(INVALID_ARGUMENT, f"stream {frame.stream} is even, clients open odd ones")
    if frame.stream <= last_stream:
        return Response(INVALID_ARGUMENT, f"stream {frame.stream} is not above {last_stream}, the last one")
    return None


def encode_request(request: Request) -> bytes:
    """Return the body of a request frame."""
    out = bytearray(string(1, request.service) + string(2, request.method) + blob(3, request.payload))
    out += number(4, request.timeout_nano)
    for key, values in request.metadata.items():
        for value in values:
            out += tag(5, BYTES) + prefixed(string(1, key) + string(2, value))
    return bytes(out)


def decode_request(data: bytes) -> Request:
    """Parse the body of a request frame; raises Malformed."""
    metadata: dict[str, list[str]] = {}
    values = _decode(data, {1: BYTES, 2: BYTES, 3: BYTES, 4: VARINT, 5: BYTES})
    for entry in values.get(5, ()):
        pair = _decode(as_bytes(entry), {1: BYTES, 2: BYTES})
        metadata.setdefault(_text(pair, 1), []).append(_text(pair, 2))
    timeout = _last(values, 4, 0)
    assert isinstance(timeout, int)
    return Request(_text(values, 1), _text(values, 2), as_bytes(_last(values, 3, b"")), timeout, metadata)


def encode_response(response: Response) -> bytes:
    """Return the body of a response frame."""
    if not response.code:
        return blob(2, response.payload)
    return tag(1, BYTES) + prefixed(number(1, response.code) + string(2, response.message))


def decode_response(data: bytes) -> Response:
    """Parse the body of a response frame, its status details left out; raises Malformed."""
    values = _decode(data, {1: BYTES, 2: BYTES})
    status = _decode(as_bytes(_last(values, 1, b"")), {1: VARINT, 2: BYTES})
    code = _last(status, 1, 0)
    assert isinstance(code, int)
    return Response(code, _text(status, 2), as_bytes(_last(values, 2, b"")))


def varint(value: int) -> bytes:
    """Encode an integer; a negative one as its 64-bit complement, as protobuf's int32 and int64 do."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(field_number: int, wire_type: int) -> bytes:
    """Encode what precedes a field's value."""
    return varint(field_number << 3 | wire_type)


def prefixed(data: bytes) -> bytes:
    """Encode bytes with their length before them."""
    return varint(len(data)) + data


def number(field_number: int, value: int) -> bytes:
    """Encode an integer field, as nothing when it is 0."""
    return tag(field_number, VARINT) + varint(value) if value else b""


def blob(field_number: int, value: bytes) -> bytes:
    """Encode a bytes field, as nothing when it is empty."""
    return tag(field_number, BYTES) + prefixed(value) if value else b""


def string(field_number: int, value: str) -> bytes:
    """Encode a string field, as nothing when it is empty."""
    return blob(field_number, value.encode())


def fields(data: bytes) -> Iterator[tuple[int, int, int | bytes]]:
    """Yield number, wire type and value of each field; fixed-width values stay bytes. Raises Malformed."""
    position, end = 0, len(data)
    while position < end:
        key, position = _varint_at(data, position)
        wire_type = key & 7
        if wire_type == VARINT:
            value, position = _varint_at(data, position)
            yield key >> 3, wire_type, value
            continue
        if wire_type == BYTES:
            size, position = _varint_at(data, position)
        elif wire_type in (FIXED64, FIXED32):
            size = 8 if wire_type == FIXED64 else 4
        else:
            raise Malformed(f"wire type {wire_type} at byte {position} is not known")
        if size > end - position:
            raise Malformed(f"field {key >> 3} of {size} bytes ends after the message")
        yield key >> 3, wire_type, data[position : position + size]
        position += size


def as_bytes(value: int | bytes) -> bytes:
    """Return ``value``, which its wire type says is bytes."""
    assert isinstance(value, bytes)
    return value


def _varint_at(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for count, byte in enumerate(data[position : position + MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & ((1 << 64) - 1), position + count + 1
    raise Malformed(f"integer at byte {position} has no end")


def _decode(data: bytes, wire_types: Mapping[int, int]) -> dict[int, list[int | bytes]]:
    found: dict[int, list[int | bytes]] = {}
    for field_number, wire_type, value in fields(data):
        expected = wire_types.get(field_number)
        if expected is None:
            continue
        if wire_type != expected:
            raise Malformed(f"field {field_number} has wire type {wire_type}, not {expected}")
        found.setdefault(field_number, []).append(value)
    return found


def _last(values: Mapping[int, Sequence[int | bytes]], field_number: int, default: int | bytes) -> int | bytes:
    found = values.get(field_number)
    return found[-1] if found else default


def _text(values: Mapping[int, Sequence[int | bytes]], field_number: int) -> str:
    try:
        return as_bytes(_last(values, field_number, b"")).decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"field {field_number} is not UTF-8") from error
