"""SPDY/3.1 as servers of Kubernetes speak it, without sockets: bytes in, events out (SPDY Protocol, Draft 3.1).

Flow control is not used: the library behind `kubectl` and the kubelet neither sends nor heeds window updates, so that
a server that waited for them would stop for ever. The connection's own backpressure is all there is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = 3
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 1
PROTOCOL_ERROR, INVALID_STREAM, REFUSED_STREAM, CANCEL, STREAM_CLOSED = 1, 2, 3, 5, 9
HEADER = struct.Struct(">IB3s")
CONTROL_LIMIT = 32 << 10
"""Bytes of one control frame."""
HEADERS_LIMIT = 64 << 10
"""Bytes of one header block when it is decompressed."""
STREAMS_LIMIT = 2048
"""Streams of one connection that are open at once."""
STREAM_ID = 0x7FFFFFFF

_NAMES = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status"
)
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden"
    "404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _text(value: str) -> bytes:
    return struct.pack(">I", len(value)) + value.encode("latin-1")


DICTIONARY = (
    b"".join(
        map(
            _text,
            [*_NAMES.split(), "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"],
        )
    )
    + _REST.encode()
)
"""What header blocks are compressed against (section 2.6.10.1)."""


class ProtocolError(Exception):
    """The peer does not speak SPDY/3.1, or more of it than is allowed; the connection has to end."""


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The client has opened a stream; it waits for `Connection.accept`."""

    stream: int
    headers: Mapping[str, str]
    """With names in lower case; of several values the first."""
    fin: bool


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream, or of a part of a frame; ``fin`` is on the last of the stream."""

    stream: int
    data: bytes
    fin: bool


@dataclass(frozen=True, slots=True)
class Reset:
    """The client has given a stream up."""

    stream: int


@dataclass(frozen=True, slots=True)
class GoAway:
    """The client opens no more streams."""


Event = StreamOpened | Data | Reset | GoAway


class Connection:
    """The server's end of one connection. What is to be sent is returned, or collected for `to_send`."""

    def __init__(self) -> None:
        """Begin, after the upgrade."""
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._out = bytearray()
        self._last = 0
        self._receiving: set[int] = set()
        self._sending: set[int] = set()
        self._data: tuple[int, int, bool] | None = None
        """The stream of a data frame of which not all has come, the bytes left, and whether it ends the stream."""

    def to_send(self) -> bytes:
        """Return the answers to what was received, once."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes of the peer and return what they say. Raises ProtocolError."""
        self._buffer += data
        events: list[Event] = []
        while self._data is not None or len(self._buffer) >= HEADER.size:
            event = self._next()
            if event is None:
                break
            events += event
        return events

    def _next(self) -> list[Event] | None:
        """Return the events of the next frame, or of the part of a data frame that is there; None to wait for more."""
        if self._data is not None:
            return self._data_part()
        first, flags, size = HEADER.unpack_from(self._buffer)
        length = int.from_bytes(size, "big")
        if not first & ~STREAM_ID:
            del self._buffer[: HEADER.size]
            self._data = (first, length, bool(flags & FIN))
            return self._data_part() if self._buffer or not length else []
        if length > CONTROL_LIMIT:
            raise ProtocolError(f"a control frame of {length} bytes is larger than {CONTROL_LIMIT}")
        if len(self._buffer) < HEADER.size + length:
            return None
        payload = bytes(self._buffer[HEADER.size : HEADER.size + length])
        del self._buffer[: HEADER.size + length]
        if first >> 16 & 0x7FFF != VERSION:
            raise ProtocolError(f"version {first >> 16 & 0x7FFF} of SPDY is not 3")
        try:
            return self._control(first & 0xFFFF, flags, payload)
        except (struct.error, IndexError):
            raise ProtocolError(f"a control frame of type {first & 0xFFFF} is too short") from None

    def _data_part(self) -> list[Event] | None:
        assert self._data is not None  # checked by the caller
        stream, left, fin = self._data
        if left and not self._buffer:
            return None
        part = bytes(self._buffer[:left])
        del self._buffer[:left]
        left -= len(part)
        self._data = (stream, left, fin) if left else None
        ends = fin and not left
        if stream not in self._receiving:
            return []  # it was reset, while this was on its way
        if ends:
            self._receiving.discard(stream)
        return [Data(stream, part, ends)] if part or ends else []

    def _control(self, kind: int, flags: int, payload: bytes) -> list[Event]:
        if kind == SYN_STREAM:
            return self._opened(flags, payload)
        if kind == RST_STREAM:
            stream = struct.unpack_from(">I", payload)[0] & STREAM_ID
            known = stream in self._receiving | self._sending
            self._forget(stream)
            return [Reset(stream)] if known else []
        if kind == PING:
            if struct.unpack(">I", payload)[0] % 2:  # those of clients are odd; the others answer ours
                self._out += _control(PING, 0, payload)
        elif kind == GOAWAY:
            return [GoAway()]
        elif kind in (HEADERS, SYN_REPLY):
            # Nothing is in them for us, but each block changes the state of the decompressor.
            self._headers(payload[4:])
            if flags & FIN and kind == HEADERS:
                return self._finished(struct.unpack_from(">I", payload)[0] & STREAM_ID)
        return []

    def _opened(self, flags: int, payload: bytes) -> list[Event]:
        stream = struct.unpack_from(">I", payload)[0] & STREAM_ID
        headers = self._headers(payload[10:])
        if stream % 2 == 0 or stream <= self._last:
            raise ProtocolError(f"stream {stream} is opened after stream {self._last}")
        self._last = stream
        if len(self._receiving | self._sending) >= STREAMS_LIMIT:
            self._out += _control(RST_STREAM, 0, struct.pack(">II", stream, REFUSED_STREAM))
            return []
        self._sending.add(stream)
        if not flags & FIN:
            self._receiving.add(stream)
        return [StreamOpened(stream, headers, bool(flags & FIN))]

    def _finished(self, stream: int) -> list[Event]:
        if stream not in self._receiving:
            return []
        self._receiving.discard(stream)
        return [Data(stream, b"", True)]

    def _headers(self, block: bytes) -> dict[str, str]:
        try:
            plain = self._inflate.decompress(block, HEADERS_LIMIT)
        except zlib.error as error:
            raise ProtocolError(f"a header block cannot be decompressed: {error}") from None
        if self._inflate.unconsumed_tail:
            raise ProtocolError(f"a header block is larger than {HEADERS_LIMIT} bytes")
        headers: dict[str, str] = {}
        if not plain:
            return headers
        position, count = 4, struct.unpack_from(">I", plain)[0]
        for _ in range(min(count, HEADERS_LIMIT)):
            name, position = _value(plain, position)
            value, position = _value(plain, position)
            headers.setdefault(name.lower(), value.partition("\0")[0])
        return headers

    def accept(self, stream: int) -> bytes:
        """Answer a stream that was opened."""
        block = self._deflate.compress(struct.pack(">I", 0)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)
        return _control(SYN_REPLY, 0, struct.pack(">I", stream) + block)

    def data(self, stream: int, data: bytes, fin: bool = False) -> bytes:
        """Return frames with bytes for a stream; empty for one that is closed or was reset."""
        if stream not in self._sending:
            return b""
        if fin:
            self._sending.discard(stream)
        frames = bytearray()
        for start in range(0, max(len(data), 1), 0xFFFFFF):
            part = data[start : start + 0xFFFFFF]
            last = fin and start + 0xFFFFFF >= len(data)
            frames += HEADER.pack(stream, FIN if last else 0, len(part).to_bytes(3, "big")) + part
        return bytes(frames)

    def reset(self, stream: int, status: int = CANCEL) -> bytes:
        """Give a stream up; empty for one that is closed already."""
        known = stream in self._receiving | self._sending
        self._forget(stream)
        return _control(RST_STREAM, 0, struct.pack(">II", stream, status)) if known else b""

    def go_away(self) -> bytes:
        """Say that the connection ends."""
        return _control(GOAWAY, 0, struct.pack(">II", self._last, 0))

    def _forget(self, stream: int) -> None:
        self._receiving.discard(stream)
        self._sending.discard(stream)


def _value(block: bytes, position: int) -> tuple[str, int]:
    length = struct.unpack_from(">I", block, position)[0]
    end = position + 4 + length
    if end > len(block):
        raise ProtocolError("a header block is cut off")
    return block[position + 4 : end].decode("latin-1"), end


def _control(kind: int, flags: int, payload: bytes) -> bytes:
    return HEADER.pack(0x80000000 | VERSION << 16 | kind, flags, len(payload).to_bytes(3, "big")) + payload
