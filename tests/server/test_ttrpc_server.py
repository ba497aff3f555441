"""The ttrpc listener answers what is well formed, refuses the rest, and lives on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from server.grpc_echo import eventually

from windlass.errors import Code, NotFound, Unimplemented
from windlass_api.ttrpc import (
    HEADER,
    MAX_DATA,
    REQUEST,
    Frame,
    FrameDecoder,
    Request,
    Response,
    decode_response,
    encode_request,
    pack_frame,
)
from windlass_server.sockets import listen
from windlass_server.ttrpc.listener import NAMESPACE, TtrpcServer


class Echo:
    """A service that says what it was asked, and in which namespace."""

    name = "test.Echo"

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        if method == "Slow":
            await asyncio.sleep(30)
        if method == "Missing":
            raise NotFound("thing 7 does not exist")
        if method == "Broken":
            raise KeyError("a defect")
        if method == "Cancelled":
            raise asyncio.CancelledError
        if method != "Say":
            raise Unimplemented(f"method {method} of {self.name}")
        return namespace.encode() + b":" + payload


class Peer:
    """A raw client: frames out, frames in."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.decoder, self.frames = FrameDecoder(), list[Frame]()

    def call(
        self, stream: int, method: str, payload: bytes = b"", service: str = "test.Echo", timeout: int = 0
    ) -> None:
        request = Request(service, method, payload, timeout, {NAMESPACE: ("ns",)})
        self.writer.write(pack_frame(stream, REQUEST, 0, encode_request(request)))

    async def answer(self) -> tuple[int, Response]:
        async with asyncio.timeout(30):
            while not self.frames:
                data = await self.reader.read(65536)
                assert data, "the connection ended"
                self.frames += self.decoder.feed(data)
        frame = self.frames.pop(0)
        return frame.stream, decode_response(frame.data)


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Peer]:
    path = tmp_path / "t.sock"
    server = TtrpcServer(listen(path, (-1, -1)), [Echo()])
    await server.start()
    reader, writer = await asyncio.open_unix_connection(path)
    yield Peer(reader, writer)
    writer.close()
    await server.stop()


async def test_a_call_is_answered_with_its_namespace(peer: Peer) -> None:
    """Metadata reaches the service."""
    peer.call(1, "Say", b"hi")
    assert await peer.answer() == (1, Response(payload=b"ns:hi"))


async def test_a_service_with_a_defect_still_answers(peer: Peer) -> None:
    """Its peer would wait for ever; the connection serves the next call."""
    peer.call(1, "Broken")
    stream, response = await peer.answer()
    assert (stream, response.code) == (1, Code.UNKNOWN)
    peer.call(3, "Say", b"hi")
    assert await peer.answer() == (3, Response(payload=b"ns:hi"))


async def test_a_service_that_gives_up_still_answers(peer: Peer) -> None:
    peer.call(1, "Cancelled")
    stream, response = await peer.answer()
    assert (stream, response.code) == (1, Code.CANCELLED)


async def test_calls_run_side_by_side(peer: Peer) -> None:
    """A slow one does not hold up the next."""
    peer.call(1, "Slow")
    peer.call(3, "Say", b"fast")
    assert await peer.answer() == (3, Response(payload=b"ns:fast"))


@pytest.mark.parametrize(
    ("service", "method", "code"),
    [
        ("test.Echo", "Missing", Code.NOT_FOUND),
        ("test.Echo", "Nothing", Code.UNIMPLEMENTED),
        ("test.Other", "Say", Code.UNIMPLEMENTED),
    ],
)
async def test_errors_travel_as_their_codes(peer: Peer, service: str, method: str, code: int) -> None:
    """Unknown services and methods among them."""
    peer.call(1, method, service=service)
    assert (await peer.answer())[1].code == code


async def test_a_call_ends_at_the_deadline_that_it_brought(peer: Peer) -> None:
    """The server does not go on for a client that has stopped waiting."""
    peer.call(1, "Slow", timeout=50_000_000)
    assert (await peer.answer())[1].code == Code.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (pack_frame(2, REQUEST, 0, b""), Code.INVALID_ARGUMENT),
        (pack_frame(1, REQUEST, 0, b"\xff\xff\xff"), Code.INVALID_ARGUMENT),
        (pack_frame(5, 3, 0, b"data for nobody"), Code.INVALID_ARGUMENT),
        (HEADER.pack(MAX_DATA + 1, 1, REQUEST, 0) + bytes(MAX_DATA + 1), Code.RESOURCE_EXHAUSTED),
    ],
)
async def test_a_bad_frame_is_refused_and_the_connection_lives_on(peer: Peer, frame: bytes, code: int) -> None:
    """Even streams, bodies that do not parse, data for an unknown stream, a body over 4 MiB."""
    peer.writer.write(frame)
    assert (await peer.answer())[1].code == code
    peer.call(7, "Say", b"still")
    assert await peer.answer() == (7, Response(payload=b"ns:still"))


async def test_frames_of_an_unknown_type_are_ignored(peer: Peer) -> None:
    """As wire/README.md has it."""
    peer.writer.write(pack_frame(1, 9, 0, b"whatever"))
    peer.call(1, "Say", b"x")
    assert (await peer.answer())[0] == 1


async def test_nothing_is_read_from_a_peer_that_does_not_read(tmp_path: Path) -> None:
    """Its questions would pile up as answers in the daemon's memory; when it reads again, it gets all of them."""
    server = TtrpcServer(listen(tmp_path / "t.sock", (-1, -1)), [Echo()])
    await server.start()
    peer = Peer(*await asyncio.open_unix_connection(tmp_path / "t.sock"))
    for number in range(64):
        peer.call(2 * number + 1, "Say", bytes(1 << 20))
    await eventually(lambda: server._connections)
    (connection,) = server._connections
    transport = connection._transport
    assert transport is not None
    await eventually(lambda: not transport.is_reading())
    assert transport.get_write_buffer_size() < 32 << 20
    assert {(await peer.answer())[1].code for _ in range(64)} == {Code.OK}
    peer.writer.close()
    await server.stop()
