"""Peers that wear the server down, and handlers with defects: what they cost, and whom."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from server.grpc_echo import Echo, eventually, serving
from server.http2_peer import Peer as Bare
from server.http2_peer import block
from server.test_http2 import Peer

from windlass.contracts.rpc import Call, Method
from windlass.errors import Code
from windlass_server.grpc import bodies
from windlass_server.grpc.server import Server
from windlass_server.http2 import frames, receiving
from windlass_server.http2.budgets import MOST_RESETS
from windlass_server.http2.events import Opened
from windlass_server.http2.frames import DATA, END_STREAM, GOAWAY, HEADERS, WINDOW_UPDATE, ErrorCode, pack

Connect = Callable[[], Awaitable[Peer]]
INITIAL_WINDOW = struct.Struct(">HI")


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[tuple[Echo, Server, Path]]:
    async with serving(tmp_path / "s") as (echo, server):
        yield echo, server, tmp_path / "s"


@pytest.fixture
async def connect(place: tuple[Echo, Server, Path]) -> AsyncIterator[Connect]:
    peers: list[Peer] = []

    async def connected() -> Peer:
        peers.append(await Peer.connect(place[2]))
        return peers[-1]

    yield connected
    for peer in peers:
        peer.writer.close()


def serve(server: Server, name: str, handler: object, takes_stream: bool = False) -> None:
    assert callable(handler)
    server.add("t.More", {name: Method(f"/t.More/{name}", handler, bytes, bytes, takes_stream)})


def message(data: bytes) -> bytes:
    return struct.pack(">BI", 0, len(data)) + data


# The core


def test_streams_that_end_before_their_turn_leave_nothing_in_the_queue() -> None:
    peer = Bare()
    for stream in range(1, 2001, 2):
        (opened,) = peer.send(frames.headers(stream, block(), END_STREAM))
        assert isinstance(opened, Opened)
        peer.core.send(opened.stream, b"", bytes(70_000), b"")  # more than the windows, which are not opened
        peer.read()
        peer.now += 2
        peer.send(frames.rst_stream(stream, ErrorCode.CANCEL))
    assert not peer.core.closed
    assert peer.core.backlog == 0
    assert len(peer.core.sender.ready or ()) <= 1


def test_only_the_last_value_of_a_setting_counts() -> None:
    # each change visits every stream: thousands of them in one frame would hold up the loop for minutes
    peer = Bare()
    peer.send(frames.headers(1, block()), frames.window_update(1, 1))
    values = INITIAL_WINDOW.pack(frames.INITIAL_WINDOW_SIZE, frames.LARGEST_WINDOW)
    values += INITIAL_WINDOW.pack(frames.INITIAL_WINDOW_SIZE, 10)
    peer.send(pack(frames.SETTINGS, 0, 0, values))
    assert not peer.core.closed
    assert peer.core.streams[1].send.size == 11


def test_a_refused_stream_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "MOST_STREAMS", 0)
    peer = Bare()
    streams = range(1, 2 * MOST_RESETS, 2)
    peer.send(*(frames.headers(stream, block(), END_STREAM) for stream in streams))
    assert not peer.core.closed
    peer.send(frames.headers(2 * MOST_RESETS + 1, block(), END_STREAM))
    assert peer.core.closed


# Behind a socket


async def test_refused_requests_leave_the_connections_window_whole(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "MOST_HELD", 1000)
    peer = await connect()
    await peer.until(WINDOW_UPDATE)  # the greeting's
    part = pack(DATA, 0, 1, struct.pack(">BI", 0, 1 << 20) + bytes(16379))[9:]
    granted = 0
    for stream in range(1, 521, 2):
        peer.open(stream, "/t.Echo/total")
        peer.send(pack(DATA, 0, stream, part))
        while True:
            kind, flags, id, payload = await peer.frame()
            granted += kind == WINDOW_UPDATE and id == 0
            if kind == HEADERS:
                peer.decoder.decode(payload)
                if flags & END_STREAM:
                    break
    assert granted == 1, "a quarter of the window was sent, and is granted again"


async def test_trailers_that_no_headers_can_hold_are_the_handlers_defect(
    place: tuple[Echo, Server, Path], connect: Connect
) -> None:
    async def bad(request: bytes, call: Call) -> bytes:
        call.set_trailers((("Not A Key", "x"),))
        return request

    serve(place[1], "bad", bad)
    peer = await connect()
    peer.call(1, path="/t.More/bad")
    code, why = await peer.status(1)
    assert code == Code.UNKNOWN
    assert "Not A Key" in why


async def test_a_request_that_was_reset_does_not_look_whole(place: tuple[Echo, Server, Path], connect: Connect) -> None:
    found: list[str] = []

    async def stubborn(requests: AsyncIterator[bytes], call: Call) -> bytes:
        await anext(requests)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            found.append("cancelled")
        try:
            found.extend([str(request) async for request in requests])
            found.append("whole")
        finally:
            found.append("over")
        return b""

    serve(place[1], "stubborn", stubborn, takes_stream=True)
    peer = await connect()
    peer.open(1, "/t.More/stubborn")
    peer.send(pack(DATA, END_STREAM, 1, message(b"one") + message(b"two")))
    await asyncio.sleep(0.1)
    peer.send(frames.rst_stream(1, ErrorCode.CANCEL))
    await eventually(lambda: "over" in found)
    assert found == ["cancelled", "over"]


async def test_a_connection_that_comes_while_the_server_stops_is_sent_away(
    place: tuple[Echo, Server, Path], connect: Connect
) -> None:
    await place[1].stop(0)
    peer = await connect()
    peer.call(1)
    assert struct.unpack_from(">II", (await peer.until(GOAWAY))[3]) == (0, ErrorCode.NO_ERROR)
    async with asyncio.timeout(30):
        assert not await peer.reader.read()
