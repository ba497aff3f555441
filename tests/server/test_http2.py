"""Raw frames: what a hostile or clumsy peer sends costs it its stream or its connection, and others nothing."""

from __future__ import annotations

import asyncio
import struct
import time
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import hpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from server.grpc_echo import LIMIT, Echo, eventually, serving

from windlass_server.grpc import connection
from windlass_server.grpc.server import Server
from windlass_server.http2 import budgets, frames, receiving, streams
from windlass_server.http2.budgets import Budget
from windlass_server.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    pack,
)

Frame = tuple[int, int, int, bytes]


class Peer:
    """A raw client: bytes out, frames in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.encoder, self.decoder = hpack.Encoder(), hpack.Decoder()

    @classmethod
    async def connect(cls, path: Path) -> Peer:
        peer = cls(*await asyncio.open_unix_connection(path))
        peer.send(PREFACE + frames.settings({}))
        return peer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def block(self, path: str = "/t.Echo/echo", **extra: str) -> bytes:
        fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "%2Ftmp%2Fs"}
        fields |= {"content-type": "application/grpc", "te": "trailers"}
        fields |= {name.replace("_", "-"): value for name, value in extra.items()}
        return bytes(self.encoder.encode([(name.lstrip("-"), value) for name, value in fields.items() if value != "-"]))

    def open(self, stream: int, path: str = "/t.Echo/echo", flags: int = 0, **extra: str) -> None:
        self.send(frames.headers(stream, self.block(path, **extra), flags))

    def call(self, stream: int, message: bytes = b"hi", path: str = "/t.Echo/echo", **extra: str) -> None:
        self.open(stream, path, 0, **extra)
        self.send(pack(DATA, END_STREAM, stream, struct.pack(">BI", 0, len(message)) + message))

    async def frame(self) -> Frame:
        async with asyncio.timeout(30):
            high, low, kind, flags, stream = frames.HEADER.unpack(await self.reader.readexactly(9))
            return kind, flags, stream, await self.reader.readexactly(high << 16 | low)

    async def until(self, kind: int, stream: int = 0) -> Frame:
        """Return the next frame of a kind; header blocks on the way are read."""
        while True:
            frame = await self.frame()
            if frame[0] == kind and frame[2] == stream:
                return frame
            if frame[0] == HEADERS:
                self.decoder.decode(frame[3])

    async def answer(self, stream: int) -> tuple[dict[str, str], bytes]:
        """Return all headers and data of a stream to its end."""
        found: dict[str, str] = {}
        data = b""
        while True:
            kind, flags, id, payload = await self.frame()
            if kind == HEADERS:
                fields = {str(name): str(value) for name, value in self.decoder.decode(payload)}
                if id == stream:
                    found |= fields
            elif kind == DATA and id == stream:
                data += payload
            assert (kind, id) not in ((RST_STREAM, stream), (GOAWAY, 0)), payload
            if kind == HEADERS and id == stream and flags & END_STREAM:
                return found, data

    async def status(self, stream: int) -> tuple[int, str]:
        found, _ = await self.answer(stream)
        return int(found["grpc-status"]), found.get("grpc-message", "")

    async def reset(self, stream: int) -> ErrorCode:
        return ErrorCode(struct.unpack(">I", (await self.until(RST_STREAM, stream))[3])[0])

    async def sent_away(self) -> ErrorCode:
        """Return the code of GOAWAY; afterwards the connection ends."""
        *_, payload = await self.until(GOAWAY)
        code = ErrorCode(struct.unpack(">II", payload[:8])[1])
        async with asyncio.timeout(30):
            assert await self.reader.read(1 << 20) == b""
        return code


class Place:
    """A server and its address."""

    def __init__(self, path: Path, echo: Echo, server: Server) -> None:
        self.path, self.echo, self.server = path, echo, server

    async def check(self) -> None:
        """Fail unless the server answers another client and keeps nothing."""
        other = await Peer.connect(self.path)
        other.call(1, b"other")
        assert await other.answer(1) == (
            {":status": "200", "content-type": "application/grpc", "grpc-status": "0"},
            b"\0\0\0\0\5other",
        )
        other.writer.close()
        await eventually(lambda: all(not each.held and not each.core.lingering for each in self.server.connections))


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with serving(tmp_path / "s") as (echo, server):
        yield Place(tmp_path / "s", echo, server)


@pytest.fixture
async def peer(place: Place) -> AsyncIterator[Peer]:
    peer = await Peer.connect(place.path)
    yield peer
    peer.writer.close()
    await place.check()


async def test_an_answer_is_one_write(peer: Peer) -> None:
    """Headers, data and trailers arrive together, after the settings."""
    await peer.until(SETTINGS)
    peer.call(1)
    *_, data = await peer.until(DATA, 1)
    assert data == b"\0\0\0\0\2hi"


OPEN = b"".join((frames.headers(1, b"\x83"),))

CONNECTION_ERRORS = {
    "data on stream 0": (pack(DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "data on an idle stream": (pack(DATA, 0, 1, b"x"), ErrorCode.PROTOCOL_ERROR),
    "headers on stream 0": (pack(HEADERS, END_HEADERS, 0, b"\x83"), ErrorCode.PROTOCOL_ERROR),
    "headers on an even stream": (pack(HEADERS, END_HEADERS, 2, b"\x83"), ErrorCode.PROTOCOL_ERROR),
    "headers shorter than their priority": (pack(HEADERS, END_HEADERS | 0x20, 1, b"\0"), ErrorCode.FRAME_SIZE_ERROR),
    "a block that does not parse": (pack(HEADERS, END_HEADERS, 1, b"\xff\xff"), ErrorCode.COMPRESSION_ERROR),
    "more padding than payload": (pack(HEADERS, END_HEADERS | PADDED, 1, b"\x05\x83"), ErrorCode.PROTOCOL_ERROR),
    "an interrupted block": (pack(HEADERS, 0, 1, b"\x83") + pack(PING, 0, 0, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "continuation of another stream": (
        pack(HEADERS, 0, 1, b"\x83") + pack(CONTINUATION, END_HEADERS, 3, b""),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "continuation of nothing": (pack(CONTINUATION, END_HEADERS, 1, b"\x83"), ErrorCode.PROTOCOL_ERROR),
    "empty continuations": (pack(HEADERS, 0, 1) + pack(CONTINUATION, 0, 1) * 100, ErrorCode.ENHANCE_YOUR_CALM),
    "long continuations": (
        pack(HEADERS, 0, 1) + pack(CONTINUATION, 0, 1, bytes(16384)) * 3,
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a stream that goes back": (frames.headers(5, b"\x83") + frames.headers(3, b"\x83"), ErrorCode.STREAM_CLOSED),
    "settings on a stream": (pack(SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "settings of 5 bytes": (pack(SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "an ack with settings": (pack(SETTINGS, 1, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "push enabled twice over": (frames.settings({2: 2}), ErrorCode.PROTOCOL_ERROR),
    "too large a window": (frames.settings({4: 1 << 31}), ErrorCode.FLOW_CONTROL_ERROR),
    "too small a frame size": (frames.settings({5: 100}), ErrorCode.PROTOCOL_ERROR),
    "too large a frame size": (frames.settings({5: 1 << 24}), ErrorCode.PROTOCOL_ERROR),
    "settings over and over": (frames.settings({}) * 1000, ErrorCode.ENHANCE_YOUR_CALM),
    "a push": (pack(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "a ping on a stream": (pack(PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "a ping of 7 bytes": (pack(PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "goaway on a stream": (pack(GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "goaway of 7 bytes": (pack(GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "a window update of 0": (frames.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
    "a window update of 3 bytes": (pack(WINDOW_UPDATE, 0, 0, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "a window update on an idle stream": (frames.window_update(1, 1), ErrorCode.PROTOCOL_ERROR),
    "a window beyond 2^31": (frames.window_update(0, (1 << 31) - 1), ErrorCode.FLOW_CONTROL_ERROR),
    "a reset of 3 bytes": (pack(RST_STREAM, 0, 1, bytes(3)), ErrorCode.FRAME_SIZE_ERROR),
    "a reset of stream 0": (frames.rst_stream(0, 8), ErrorCode.PROTOCOL_ERROR),
    "a reset of an idle stream": (frames.rst_stream(1, 8), ErrorCode.PROTOCOL_ERROR),
    "priority on stream 0": (pack(PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
    "a frame over 16 KiB": (frames.HEADER.pack(0, 16385, DATA, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
    "pings without end": (pack(PING, 0, 0, bytes(8)) * 60_000, ErrorCode.ENHANCE_YOUR_CALM),
    "unknown frames without end": (pack(99, 0, 0) * 60_000, ErrorCode.ENHANCE_YOUR_CALM),
}


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
async def test_a_connection_error_is_answered_with_its_code(peer: Peer, name: str) -> None:
    """And the connection ends."""
    data, code = CONNECTION_ERRORS[name]
    peer.send(data)
    assert await peer.sent_away() == code


@pytest.mark.parametrize(
    "start", [b"GET / HTTP/1.1\r\n\r\n", PREFACE + pack(PING, 0, 0, bytes(8)), b"\x16\x03\x01\x02"]
)
async def test_a_peer_that_does_not_speak_http2_is_sent_away(place: Place, start: bytes) -> None:
    """HTTP/1, TLS, or a first frame that is not SETTINGS."""
    peer = Peer(*await asyncio.open_unix_connection(place.path))
    peer.send(start)
    assert await peer.sent_away() == ErrorCode.PROTOCOL_ERROR
    peer.writer.close()
    await place.check()


async def test_a_peer_is_sent_away_once(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    """What one that does not speak HTTP/2 sends afterwards is dropped, and neither judged nor answered again."""
    caplog.set_level("DEBUG", "windlass_server")
    peer = Peer(*await asyncio.open_unix_connection(place.path))
    peer.send(b"GET / HTTP/1.1\r\n\r\n")
    await peer.until(GOAWAY)
    for _ in range(5):
        peer.send(bytes(1 << 16))
        await peer.writer.drain()
    peer.writer.close()
    await eventually(lambda: not place.server.connections)
    assert caplog.text.count("closed the connection") == 1
    await place.check()


async def test_a_peer_that_says_nothing_is_sent_away(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a preface is nothing."""
    monkeypatch.setattr(connection, "HANDSHAKE_TIMEOUT", 0.1)
    peer = Peer(*await asyncio.open_unix_connection(place.path))
    peer.send(PREFACE[:10])
    assert await peer.sent_away() == ErrorCode.SETTINGS_TIMEOUT
    peer.writer.close()


async def test_a_loop_that_was_held_up_ends_no_connection(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What peers have sent meanwhile is read before their time is found to be over: it was ours."""
    monkeypatch.setattr(connection, "HANDSHAKE_TIMEOUT", 0.2)
    old = await Peer.connect(place.path)
    old.call(1)
    assert await old.status(1) == (0, "")
    new = Peer(*await asyncio.open_unix_connection(place.path))
    await asyncio.sleep(0.05)

    time.sleep(0.5)  # a plugin's blocking call
    new.send(PREFACE + frames.settings({}))
    for peer in (old, new):
        peer.call(3)

    for peer in (old, new):
        assert await peer.status(3) == (0, "")
        peer.writer.close()


async def test_a_connection_may_be_silent_once_it_has_said_hello(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients keep connections for hours."""
    monkeypatch.setattr(connection, "HANDSHAKE_TIMEOUT", 0.1)
    peer = await Peer.connect(place.path)
    await asyncio.sleep(0.3)
    peer.call(1)
    assert await peer.status(1) == (0, "")
    peer.writer.close()


@pytest.mark.parametrize(
    "fields",
    [
        {":method": "-"},
        {":path": "-"},
        {":scheme": "-"},
        {"te": "gzip"},
        {"connection": "close"},
        {"Upper": "x"},
        {":unknown": "x"},
        {"x": "a\r\nb"},
    ],
    ids=str,
)
async def test_a_malformed_request_loses_its_stream(peer: Peer, fields: dict[str, str]) -> None:
    """RFC 9113 section 8.1.1; the next one is served."""
    peer.open(1, "/t.Echo/echo", END_STREAM, **fields) if ":path" not in fields else peer.send(
        frames.headers(1, peer.block("-"), END_STREAM)
    )
    assert await peer.reset(1) == ErrorCode.PROTOCOL_ERROR
    peer.call(3)
    assert await peer.status(3) == (0, "")


@pytest.mark.parametrize(
    ("fields", "http", "status"),
    [
        ({"content_type": "text/html"}, "415", 3),
        ({":method": "GET"}, "405", 13),
        ({"grpc_timeout": "soon"}, "200", 13),
        ({"grpc_encoding": "br"}, "200", 12),
        ({"x_bin": "!"}, "200", 13),
        ({f"x_{each}": "0" * 5000 for each in range(8)}, "431", 8),
    ],
)
async def test_a_request_that_is_no_grpc_is_answered_with_why(
    peer: Peer, fields: dict[str, str], http: str, status: int
) -> None:
    """Before any handler runs."""
    peer.open(1, "/t.Echo/echo", END_STREAM, **fields)
    found, _ = await peer.answer(1)
    assert (found[":status"], int(found["grpc-status"])) == (http, status)
    assert ("grpc-accept-encoding" in found) == ("grpc_encoding" in fields)


GZIP = zlib.compress(bytes(LIMIT + 1), wbits=31)


@pytest.mark.parametrize(
    ("data", "encoding", "status"),
    [
        (b"", "identity", 13),
        (b"\0\0\0", "identity", 13),
        (b"\0\0\0\0\x05abc", "identity", 13),
        (b"\0\0\0\0\0" * 2, "identity", 13),
        (b"\x01\0\0\0\0", "identity", 13),
        (b"\x02\0\0\0\0", "gzip", 13),
        (b"\x01\0\0\0\x03abc", "gzip", 13),
        (b"\0\xff\xff\xff\xff", "identity", 8),
        (struct.pack(">BI", 1, len(GZIP)) + GZIP, "gzip", 8),
    ],
)
async def test_a_message_that_is_none_is_refused(peer: Peer, data: bytes, encoding: str, status: int) -> None:
    """Missing, cut, doubled, flagged without encoding, no gzip, too large, a bomb."""
    for stream, path in ((1, "/t.Echo/echo"), (3, "/t.Echo/total")):
        if path.endswith("total") and data in (b"", b"\0\0\0\0\0" * 2):
            continue  # no message and two messages are right there
        peer.open(stream, path, grpc_encoding=encoding)
        for start in range(0, len(data), 16384):
            peer.send(pack(DATA, 0, stream, data[start : start + 16384]))
        peer.send(pack(DATA, END_STREAM, stream))
        assert (await peer.status(stream))[0] == status


@pytest.mark.parametrize(
    ("fields", "compressed"),
    [
        ({"grpc_encoding": "gzip"}, True),
        ({"grpc_encoding": "gzip", "grpc_accept_encoding": "identity"}, True),
        ({"grpc_encoding": "deflate"}, False),
        ({"grpc_encoding": "identity", "grpc_accept_encoding": "gzip"}, False),
        ({"grpc_accept_encoding": "gzip"}, False),
    ],
    ids=str,
)
async def test_who_sends_gzip_gets_gzip(peer: Peer, fields: dict[str, str], compressed: bool) -> None:
    """As of grpc-go's servers, so of containerd: whatever is accepted, and also if the message itself is as it is."""
    peer.call(1, b"hi", **fields)
    found, data = await peer.answer(1)
    assert found.get("grpc-encoding") == ("gzip" if compressed else None)
    flag, size = struct.unpack(">BI", data[:5])
    assert (flag, size) == (int(compressed), len(data) - 5)
    assert (zlib.decompress(data[5:], wbits=31) if compressed else data[5:]) == b"hi"
    peer.call(3, b"", **fields)
    assert (await peer.answer(3))[1] == bytes(5)
    peer.call(5, b"", "/t.Echo/abort", **fields)
    assert "grpc-encoding" not in (await peer.answer(5))[0]


async def test_a_message_in_pieces_and_with_padding_is_whole(peer: Peer) -> None:
    """Byte by byte; a header block with CONTINUATION and PRIORITY too."""
    block = peer.block()
    peer.send(pack(HEADERS, PADDED | 0x20, 1, b"\x03" + bytes(5) + block[:10] + bytes(3)))
    peer.send(pack(CONTINUATION, 0, 1, block[10:20]) + pack(CONTINUATION, END_HEADERS, 1, block[20:]))
    for octet in b"\0\0\0\0\x03abc":
        peer.send(pack(DATA, PADDED, 1, bytes((2, octet, 0, 0))))
        await asyncio.sleep(0)
    peer.send(pack(DATA, END_STREAM, 1))
    assert (await peer.answer(1))[1] == b"\0\0\0\0\x03abc"


async def test_frames_on_a_stream_that_is_over(peer: Peer) -> None:
    """After END_STREAM: STREAM_CLOSED; after our own end: ignored."""
    peer.open(1, "/t.Echo/hang")
    peer.send(pack(DATA, END_STREAM, 1, b"\0\0\0\0\0") + pack(DATA, 0, 1, b"x"))
    assert await peer.reset(1) == ErrorCode.STREAM_CLOSED
    peer.open(3, "/t.Echo/nothing")
    assert (await peer.status(3))[0] == 12
    assert await peer.reset(3) == ErrorCode.NO_ERROR
    peer.send(pack(DATA, 0, 3, b"late") + frames.window_update(3, 5) + frames.rst_stream(3, 8))
    peer.open(3, flags=END_STREAM)
    peer.call(5)
    assert await peer.status(5) == (0, "")
    peer.send(pack(DATA, 0, 5, b"late"))
    assert await peer.reset(5) == ErrorCode.STREAM_CLOSED


async def test_a_peer_that_sends_more_than_its_window_loses_the_stream(peer: Peer) -> None:
    """A handler that does not read bounds what is kept for it."""
    peer.open(1, "/t.Echo/deaf")
    frame = pack(DATA, 0, 1, bytes(16384))
    peer.send(frame * (streams.STREAM_WINDOW // 16384 + 1))
    assert await peer.reset(1) == ErrorCode.FLOW_CONTROL_ERROR


async def test_a_peer_that_sends_more_than_the_connections_window_is_sent_away(peer: Peer) -> None:
    """However many streams it spreads that over."""
    count = receiving.WINDOW // streams.STREAM_WINDOW + 1
    for number in range(count):
        peer.open(2 * number + 1, "/t.Echo/deaf")
        peer.send(pack(DATA, 0, 2 * number + 1, b"\0\0\x10\0\0" + bytes(16379)))
        peer.send(pack(DATA, 0, 2 * number + 1, bytes(16384)) * (streams.STREAM_WINDOW // 16384 - 1))
        await peer.writer.drain()
    assert await peer.sent_away() == ErrorCode.FLOW_CONTROL_ERROR


async def test_windows_of_the_peer_are_respected(peer: Peer) -> None:
    """A stream's, the connection's, a change of the first one while data waits, and one byte at a time."""
    peer.send(frames.settings({4: 10}))
    peer.call(1, b"30000", "/t.Echo/size")
    assert len((await peer.until(DATA, 1))[3]) == 10
    peer.send(frames.window_update(1, 1))
    assert len((await peer.until(DATA, 1))[3]) == 1
    peer.send(frames.settings({4: 20}))
    assert len((await peer.until(DATA, 1))[3]) == 10
    peer.send(frames.settings({4: 0}))
    peer.send(frames.window_update(1, 40_000))
    sizes = [len((await peer.until(DATA, 1))[3]) for _ in range(2)]
    assert sizes == [16384, 30005 - 21 - 16384]
    assert (await peer.status(1))[0] == 0
    peer.send(frames.settings({4: 1 << 20}))
    peer.call(3, b"100000", "/t.Echo/size")
    got = 0
    while got < 65535 - 30005:
        got += len((await peer.until(DATA, 3))[3])
    assert got == 65535 - 30005
    peer.send(frames.window_update(0, 1 << 20))
    while got < 100_005:
        got += len((await peer.until(DATA, 3))[3])
    assert (await peer.status(3))[0] == 0


async def test_a_wider_window_is_used_after_it_has_been_acknowledged(peer: Peer) -> None:
    """grpc's C core counts it from then on, and drops a stream whose data is there before."""
    peer.send(frames.settings({4: 10}))
    peer.call(1, b"30000", "/t.Echo/size")
    await peer.until(DATA, 1)
    peer.send(frames.settings({4: 20}))
    while (frame := await peer.frame())[0] == HEADERS:
        pass
    assert frame[:2] == (SETTINGS, 1)
    assert len((await peer.until(DATA, 1))[3]) == 10


async def test_a_stream_window_that_overflows_loses_the_stream(peer: Peer) -> None:
    """And one of 0."""
    for stream, increment, code in ((1, (1 << 31) - 1, "FLOW_CONTROL_ERROR"), (3, 0, "PROTOCOL_ERROR")):
        peer.open(stream, "/t.Echo/deaf")
        peer.send(frames.window_update(stream, increment))
        assert (await peer.reset(stream)).name == code


async def test_trailers_end_a_request_and_must_say_so(peer: Peer) -> None:
    """Nothing is made of what they say."""
    peer.open(1, "/t.Echo/total")
    peer.send(frames.headers(1, bytes(peer.encoder.encode([("x", "y")])), END_STREAM))
    assert (await peer.status(1))[0] == 0
    peer.open(3, "/t.Echo/total")
    peer.send(frames.headers(3, bytes(peer.encoder.encode([("x", "y")]))))
    assert await peer.reset(3) == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("path", ["/t.Echo/echo", "/t.Echo/total", "/t.Echo/chat"])
@pytest.mark.parametrize(
    "field", [(":path", "/t.Echo/echo"), (":status", "200"), ("Upper", "x"), ("x", "a\nb")], ids=str
)
async def test_trailers_that_no_request_may_have(peer: Peer, path: str, field: tuple[str, str]) -> None:
    """Pseudo-headers, and what no header may be (RFC 9113, sections 8.1 and 8.2.1); the next call is served."""
    peer.open(1, path)
    peer.send(pack(DATA, 0, 1, b"\0\0\0\0\2hi"))
    peer.send(frames.headers(1, bytes(peer.encoder.encode([field])), END_STREAM))
    assert await peer.reset(1) == ErrorCode.PROTOCOL_ERROR
    peer.call(3)
    assert await peer.status(3) == (0, "")


@pytest.mark.parametrize("path", ["/t.Echo/echo", "/t.Echo/total", "/t.Echo/deaf"])
async def test_a_second_block_that_ends_nothing(peer: Peer, path: str) -> None:
    """Also one that looks like a request of its own."""
    peer.open(1, path)
    peer.send(frames.headers(1, peer.block(path)))
    assert await peer.reset(1) == ErrorCode.PROTOCOL_ERROR
    peer.call(3)
    assert await peer.status(3) == (0, "")


@pytest.mark.parametrize("path", ["/t.Echo/hang", "/t.Echo/deaf", "/t.Echo/count"])
async def test_a_deadline_that_has_passed(place: Place, peer: Peer, path: str) -> None:
    """The handler does not begin: no client could get what it does."""
    for stream, timeout in ((1, "0S"), (3, "0n"), (5, "1n")):
        peer.call(stream, b"1", path, grpc_timeout=timeout)
        assert (await peer.status(stream))[0] == 4
    assert (place.echo.running, place.echo.ended, place.echo.sent) == (0, [], 0)


async def test_streams_opened_and_reset_without_end(place: Place, peer: Peer) -> None:
    """CVE-2023-44487: the peer is sent away, and no handler is left behind."""
    for number in range(budgets.MOST_RESETS + 2000):
        peer.call(2 * number + 1, path="/t.Echo/hang")
        peer.send(frames.rst_stream(2 * number + 1, 8))
    assert await peer.sent_away() == ErrorCode.ENHANCE_YOUR_CALM
    assert place.echo.running == 0


async def test_many_old_calls_may_be_reset(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that stops waiting for thousands of containers is no attacker."""
    monkeypatch.setattr(budgets, "MOST_RESETS", 10)
    monkeypatch.setattr(budgets, "YOUNG", 0.05)
    peer = await Peer.connect(place.path)
    for number in range(200):
        peer.call(2 * number + 1, path="/t.Echo/hang")
    await eventually(lambda: place.echo.running == 200)
    await asyncio.sleep(0.1)
    for number in range(200):
        peer.send(frames.rst_stream(2 * number + 1, 8))
    peer.call(1001)
    assert await peer.status(1001) == (0, "")
    peer.writer.close()
    await place.check()


async def test_window_updates_without_end(peer: Peer) -> None:
    """Nothing was sent that could have used a window up."""
    peer.open(1, "/t.Echo/deaf")
    peer.send((frames.window_update(0, 1) + frames.window_update(1, 1)) * 30_000)
    assert await peer.sent_away() == ErrorCode.ENHANCE_YOUR_CALM


async def test_a_reader_may_update_its_windows_for_every_frame(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stream's and its connection's, as clients do that read a great deal, however many frames that are."""
    monkeypatch.setattr(budgets, "Budget", lambda what, burst, rate: Budget(what, min(burst, 50), 0))
    peer = await Peer.connect(place.path)
    peer.call(1, b"500 1000", "/t.Echo/count")
    for _ in range(500):
        size = len((await peer.until(DATA, 1))[3])
        peer.send(frames.window_update(0, size) + frames.window_update(1, size))
    assert (await peer.status(1))[0] == 0
    peer.writer.close()
    await place.check()


async def test_a_call_is_served_beside_many_that_wait(place: Place, peer: Peer) -> None:
    """An agent waits for each container of a machine on one connection; containerd takes any number."""
    count = 10_000
    for number in range(count):
        peer.call(2 * number + 1, path="/t.Echo/hang")
        if number % 100 == 0:
            await asyncio.sleep(0)
    peer.call(2 * count + 1)
    assert await peer.status(2 * count + 1) == (0, "")
    await eventually(lambda: place.echo.running == count)


async def test_more_calls_than_allowed_are_refused(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients may try those again; the others go on."""
    monkeypatch.setattr(receiving, "MOST_STREAMS", 3)
    for stream in (1, 3, 5, 7):
        peer.call(stream, path="/t.Echo/hang")
    assert await peer.reset(7) == ErrorCode.REFUSED_STREAM
    peer.send(frames.rst_stream(1, 8))
    await asyncio.sleep(0.05)
    peer.call(9)
    assert await peer.status(9) == (0, "")


async def test_a_peer_that_does_not_read_is_not_read(place: Place, peer: Peer) -> None:
    """Its answers do not pile up here."""
    peer.send(frames.window_update(0, 1 << 30))
    peer.reader._transport.pause_reading()  # type: ignore[attr-defined] # there is no other way to stop a StreamReader
    for number in range(6000):
        peer.call(2 * number + 1, bytes(1000))
        if number % 500 == 0:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    (ours,) = place.server.connections
    assert ours.core.congested and ours._transport is not None
    assert ours._transport.get_write_buffer_size() < 2 << 20
    peer.reader._transport.resume_reading()  # type: ignore[attr-defined] # as above


FRAMES = st.lists(
    st.one_of(
        st.builds(
            pack,
            st.integers(0, 12),
            st.integers(0, 255),
            st.sampled_from([0, 1, 2, 3, 5, 7]),
            st.one_of(st.binary(max_size=40), st.just(b"\x83\x86"), st.just(b"\0\0\0\0\x01a"), st.just(bytes(4))),
        ),
        st.sampled_from(["call", "open", "reset"]),
    ),
    max_size=25,
)


@given(FRAMES)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_frames_are_survived(tmp_path: Path, found: list[bytes | str]) -> None:
    """The connection goes on or is closed with a reason, nothing is logged as a defect, and nothing is left."""

    async def run() -> None:
        errors: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        path = tmp_path / "f"
        path.unlink(missing_ok=True)
        async with serving(path) as (echo, server):
            peer = await Peer.connect(path)
            for number, each in enumerate(found):
                if isinstance(each, bytes):
                    peer.send(each)
                elif each == "reset":
                    peer.send(frames.rst_stream(2 * number + 1, 8))
                elif each == "open":
                    peer.open(2 * number + 1, "/t.Echo/chat")
                else:
                    peer.call(2 * number + 1)
            peer.send(pack(PING, 0, 0, b"the last"))
            peer.writer.write_eof()
            async with asyncio.timeout(30):
                await peer.reader.read(-1)
            peer.writer.close()
            await Place(path, echo, server).check()
            assert echo.running == 0
        assert not errors

    asyncio.run(run())
