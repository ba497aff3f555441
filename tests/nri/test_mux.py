"""What the multiplexer promises: ttrpc both ways over one socket, and no harm from peers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from windlass.errors import DeadlineExceeded, InvalidArgument, ResourceExhausted, Unavailable, Unimplemented
from windlass_api.ttrpc import framing
from windlass_nri import frames
from windlass_nri.ends import MOST_HELD
from windlass_nri.mux import MOST_UNREAD, PLUGIN_SERVICE, RUNTIME_SERVICE, Mux, attach, connect


class Echo:
    """Answers with what it was sent; some methods do otherwise."""

    name = "test.Echo"

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.ended: list[str] = []
        self.go_on = asyncio.Event()

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        self.calls.append(method)
        if method == "Hang":
            try:
                await self.go_on.wait()
            finally:
                self.ended.append(method)
        if method == "Refuse":
            raise InvalidArgument("no")
        if method == "Defect":
            raise ValueError("broken")
        if method == "Huge":
            return bytes(5 << 20)
        if method not in ("Echo", "Hang"):
            raise Unimplemented(method)
        return payload


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


@contextlib.asynccontextmanager
async def muxes() -> AsyncIterator[tuple[Mux, Mux]]:
    """Both sides of one connection."""
    ours, theirs = pair()
    left, right = await attach(ours, "left's peer"), await attach(theirs, "right's peer")
    try:
        yield left, right
    finally:
        left.close()
        right.close()
        await asyncio.gather(left.gone, right.gone)


@contextlib.asynccontextmanager
async def facing_raw(service: Echo) -> AsyncIterator[tuple[Mux, socket.socket]]:
    """A mux that serves the runtime's connection, and the bare socket of its peer."""
    ours, theirs = pair()
    theirs.setblocking(False)
    mux = await attach(ours, "plugin 10-bad")
    mux.serve(RUNTIME_SERVICE, [service])
    try:
        yield mux, theirs
    finally:
        mux.close()
        await mux.gone
        theirs.close()


def request(stream: int, method: str, payload: bytes = b"", connection: int = RUNTIME_SERVICE) -> bytes:
    body = framing.encode_request(framing.Request("test.Echo", method, payload))
    return frames.pack(connection, framing.pack_frame(stream, framing.REQUEST, 0, body))


async def send(peer: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(peer, data)


async def responses(peer: socket.socket, count: int) -> list[framing.Response]:
    decoder, inner = frames.Decoder(), framing.FrameDecoder()
    found: list[framing.Response] = []
    while len(found) < count:
        data = await asyncio.get_running_loop().sock_recv(peer, 1 << 16)
        assert data, "the connection ended before all answers came"
        for _, piece in decoder.feed(data):
            found += [framing.decode_response(frame.data) for frame in inner.feed(piece)]
    return found


# Frames, without sockets


@pytest.mark.parametrize("step", [1, 3, 7, 4096, 1 << 20])
def test_frames_arrive_however_they_were_cut(step: int) -> None:
    """Two connections' streams come out whole from any split of the trunk."""
    trunk = frames.pack(1, b"a" * 5000) + frames.pack(2, b"b" * 10) + frames.pack(1, b"c" * 4096)
    decoder = frames.Decoder()
    streams = {1: b"", 2: b""}
    for start in range(0, len(trunk), step):
        for connection, piece in decoder.feed(trunk[start : start + step]):
            streams[connection] += piece
    assert streams == {1: b"a" * 5000 + b"c" * 4096, 2: b"b" * 10}
    assert not decoder.pending


def test_a_long_message_is_two_payloads() -> None:
    """NRI's own reader has 4096 bytes for what it did not expect, so header and body go apart."""
    message = framing.pack_frame(1, framing.REQUEST, 0, bytes(4087))
    packed = frames.pack(2, message)
    assert frames.HEADER.unpack_from(packed) == (2, framing.HEADER.size)
    assert frames.HEADER.unpack_from(packed, 8 + 10) == (2, 4087)
    assert frames.pack(2, message[:-1])[:8] == frames.HEADER.pack(2, 4096)


@pytest.mark.parametrize(
    "header", [frames.HEADER.pack(0, 1), frames.HEADER.pack(1, frames.MAX_PAYLOAD + 1), b"GET / HTTP/1.1\r\n"]
)
def test_a_header_that_nobody_sends_is_an_error(header: bytes) -> None:
    """Connection 0 is reserved, and no payload exceeds a ttrpc message."""
    with pytest.raises(frames.FrameError):
        frames.Decoder().feed(header)


def test_a_truncated_trunk_is_noticed() -> None:
    """A decoder knows that it is inside a frame."""
    decoder = frames.Decoder()
    decoder.feed(frames.HEADER.pack(1, 5) + b"ab")
    assert decoder.pending


# Calls


async def test_calls_go_both_ways_at_once() -> None:
    """Each side serves one connection and calls on the other."""
    async with muxes() as (runtime, plugin):
        runtime.serve(RUNTIME_SERVICE, [Echo()])
        plugin.serve(PLUGIN_SERVICE, [Echo()])
        to_plugin, to_runtime = runtime.client(PLUGIN_SERVICE), plugin.client(RUNTIME_SERVICE)
        sizes = [0, 1, 4000, 4096, 5000, 1 << 20, 4_000_000]
        there = [to_plugin.call("test.Echo", "Echo", b"p" * size, 30) for size in sizes]
        back = [to_runtime.call("test.Echo", "Echo", b"r" * size, 30) for size in sizes]
        answers = await asyncio.gather(*there, *back)
    assert answers == [b"p" * size for size in sizes] + [b"r" * size for size in sizes]


async def test_errors_travel_as_they_are() -> None:
    """A refusal keeps its class, a defect is UNKNOWN, and an unknown service is UNIMPLEMENTED."""
    async with muxes() as (runtime, plugin):
        plugin.serve(PLUGIN_SERVICE, [Echo()])
        client = runtime.client(PLUGIN_SERVICE)
        with pytest.raises(InvalidArgument, match=r"^no$"):
            await client.call("test.Echo", "Refuse", b"", 30)
        with pytest.raises(Exception, match="ValueError: broken"):
            await client.call("test.Echo", "Defect", b"", 30)
        with pytest.raises(Unimplemented):
            await client.call("test.Other", "Echo", b"", 30)
        assert await client.call("test.Echo", "Echo", b"still here", 30) == b"still here"


async def test_messages_over_the_limit_fail_alone() -> None:
    """A request over 4 MiB is not sent, an answer over it is refused, and the connection lives on."""
    async with muxes() as (runtime, plugin):
        plugin.serve(PLUGIN_SERVICE, [Echo()])
        client = runtime.client(PLUGIN_SERVICE)
        with pytest.raises(ResourceExhausted, match="request of"):
            await client.call("test.Echo", "Echo", bytes(framing.MAX_DATA), 30)
        with pytest.raises(ResourceExhausted, match="answer of"):
            await client.call("test.Echo", "Huge", b"", 30)
        assert await client.call("test.Echo", "Echo", b"x", 30) == b"x"


async def test_a_call_without_an_answer_ends_at_its_deadline() -> None:
    """The caller gets DeadlineExceeded, the handler is ended by the same deadline, and other calls go on."""
    async with muxes() as (runtime, plugin):
        echo = Echo()
        plugin.serve(PLUGIN_SERVICE, [echo])
        client = runtime.client(PLUGIN_SERVICE)
        with pytest.raises(DeadlineExceeded, match=r"no answer of left's peer to Hang within 0\.05 s"):
            await client.call("test.Echo", "Hang", b"", 0.05)
        assert await client.call("test.Echo", "Echo", b"x", 30) == b"x"
        while not echo.ended:
            await asyncio.sleep(0.01)


async def test_calls_end_with_the_connection() -> None:
    """No caller waits for a peer that is gone, and no handler runs on for it."""
    async with muxes() as (runtime, plugin):
        echo = Echo()
        plugin.serve(PLUGIN_SERVICE, [echo])
        client = runtime.client(PLUGIN_SERVICE)
        call = asyncio.ensure_future(client.call("test.Echo", "Hang", b"", None))
        while not echo.calls:
            await asyncio.sleep(0)
        plugin.close()
        with pytest.raises(Unavailable, match="left's peer has closed the connection"):
            await call
        with pytest.raises(Unavailable):
            await client.call("test.Echo", "Echo", b"", None)
        await plugin.gone
        while not echo.ended:
            await asyncio.sleep(0)


async def test_what_came_before_the_mux_is_served() -> None:
    """A plugin may speak before the runtime has turned to it."""
    ours, theirs = pair()
    theirs.setblocking(False)
    theirs.send(request(1, "Echo", b"early"))
    mux = await attach(ours, "plugin")
    mux.serve(RUNTIME_SERVICE, [Echo()])
    assert (await responses(theirs, 1))[0].payload == b"early"
    mux.close()
    await mux.gone
    theirs.close()


async def test_a_socket_without_a_listener_is_unavailable(tmp_path: Path) -> None:
    """The error names the socket."""
    with pytest.raises(Unavailable, match=r"cannot connect to the NRI socket .*nri\.sock"):
        await connect(str(tmp_path / "nri.sock"))


# Peers that misbehave


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, bytes(64)])
async def test_garbage_ends_the_connection(data: bytes) -> None:
    """A peer that does not speak NRI is dropped at its first header."""
    async with facing_raw(Echo()) as (mux, peer):
        await send(peer, data)
        await mux.gone
        assert mux.reason.startswith("does not speak NRI")


async def test_a_frame_of_100_mb_ends_the_connection_at_its_header() -> None:
    """Nothing is set aside for what a header merely announces."""
    async with facing_raw(Echo()) as (mux, peer):
        await send(peer, frames.HEADER.pack(RUNTIME_SERVICE, 100 << 20))
        await mux.gone
        assert "over the limit" in mux.reason


async def test_a_message_of_100_mb_in_small_frames_is_refused_alone() -> None:
    """It is discarded as it comes, its call fails, and the next is served."""
    async with facing_raw(Echo()) as (_, peer):
        size, part = 100 << 20, 1 << 20
        await send(peer, frames.pack(RUNTIME_SERVICE, framing.HEADER.pack(size, 1, framing.REQUEST, 0)))
        for _ in range(size // part):
            await send(peer, frames.HEADER.pack(RUNTIME_SERVICE, part) + bytes(part))
        await send(peer, request(3, "Echo", b"small"))
        refused, served = await responses(peer, 2)
    assert refused.code == ResourceExhausted.code
    assert served.payload == b"small"


async def test_requests_that_hold_too_much_are_refused() -> None:
    """Calls under way have a budget of bytes; what exceeds it fails, and the budget comes back."""
    echo = Echo()
    async with facing_raw(echo) as (_, peer):
        size = 4_000_000
        fitting = MOST_HELD // size
        for index in range(fitting + 1):
            await send(peer, request(2 * index + 1, "Hang", bytes(size)))
        [refused] = await responses(peer, 1)
        assert refused.code == ResourceExhausted.code
        echo.go_on.set()
        assert [len(each.payload) for each in await responses(peer, fitting)] == [size] * fitting
        await send(peer, request(99, "Echo", bytes(size)))
        assert len((await responses(peer, 1))[0].payload) == size


async def test_a_peer_that_asks_and_does_not_read_is_dropped() -> None:
    """Its answers pile up to a limit, then it goes."""
    async with facing_raw(Echo()) as (mux, peer):
        question = request(1, "Echo", bytes(4_000_000))
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for index in range(2 * MOST_UNREAD // len(question)):
                await send(peer, request(2 * index + 1, "Echo", bytes(4_000_000)))
        await mux.gone
        assert mux.reason == "does not read what it asked for"


@pytest.mark.parametrize("seed", range(20))
async def test_whatever_a_peer_sends_another_call_is_served_or_the_connection_ends(seed: int) -> None:
    """Frames of NRI with random messages inside, of every type and on any stream, cause no defect here."""
    chance = random.Random(seed)
    echo = Echo()
    async with facing_raw(echo) as (mux, peer):
        for _ in range(30):
            body = chance.randbytes(chance.randrange(60))
            if chance.random() < 0.5:
                body = framing.encode_request(framing.Request("test.Echo", chance.choice(["Echo", "", "Defect"]), body))
                body = body[: chance.randrange(len(body) + 1)]
            stream, type = chance.choice([0, 1, 2, 3, 5, 7, 2**31]), chance.randrange(6)
            message = framing.pack_frame(stream, type, chance.randrange(256), body)
            await send(peer, frames.pack(chance.choice([1, RUNTIME_SERVICE, 2**32 - 1]), message))
        await send(peer, request(2**32 - 1, "Echo", b"last"))
        while all(each.payload != b"last" for each in await responses(peer, 1)):
            assert not mux.reason


async def test_unknown_connections_are_ignored() -> None:
    """What was sent to a connection that nobody opened is dropped, as NRI's own multiplexer does."""
    async with facing_raw(Echo()) as (_, peer):
        await send(peer, request(1, "Echo", b"lost", connection=77) + request(1, "Echo", b"heard"))
        assert (await responses(peer, 1))[0].payload == b"heard"


async def test_calls_wait_while_the_peer_does_not_read() -> None:
    """A client's requests do not pile up in memory: they wait, and end at their deadline."""
    ours, theirs = pair()
    mux = await attach(ours, "plugin 10-deaf")
    client = mux.client(PLUGIN_SERVICE)
    calls = [client.call("test.Echo", "Echo", bytes(4_000_000), 0.2) for _ in range(20)]
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, DeadlineExceeded) for each in ended)
    assert not mux.reason
    mux.close()
    await mux.gone
    theirs.close()


async def test_a_peer_that_reads_late_gets_all_calls() -> None:
    """Those that waited go out one after the other, and do not fill the memory at once."""
    ours, theirs = pair()
    theirs.setblocking(False)
    mux = await attach(ours, "plugin 10-late")
    client = mux.client(PLUGIN_SERVICE)
    size, count = 4_000_000, 2 * MOST_UNREAD // 4_000_000
    calls = [asyncio.ensure_future(client.call("test.Echo", "Echo", bytes(size), None)) for _ in range(count)]
    await asyncio.sleep(0)
    decoder, inner, arrived = frames.Decoder(), framing.FrameDecoder(), 0
    while arrived < count:
        for _, piece in decoder.feed(await asyncio.get_running_loop().sock_recv(theirs, 1 << 20)):
            arrived += len(inner.feed(piece))
    assert not mux.reason
    mux.close()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(each, Unavailable) for each in ended)
    theirs.close()


async def test_one_bad_peer_does_not_disturb_another() -> None:
    """Garbage on one socket leaves calls on another as they were."""
    async with muxes() as (runtime, plugin), facing_raw(Echo()) as (bad, peer):
        plugin.serve(PLUGIN_SERVICE, [Echo()])
        client = runtime.client(PLUGIN_SERVICE)
        await send(peer, b"\xff" * 4096)
        await bad.gone
        assert await client.call("test.Echo", "Echo", b"fine", 30) == b"fine"
