"""gRPC's own clients find in our server what they find in gRPC's."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from server.grpc_echo import LIMIT, Echo, eventually, serving

from windlass_server.grpc.server import Server

Code = grpc.StatusCode
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
"""A method without types of messages: bytes both ways."""


class Client:
    """Calls of ``t.Echo`` by name."""

    def __init__(self, channel: Any, echo: Echo, server: Server) -> None:
        self.channel, self.service, self.server = channel, echo, server

    def __getattr__(self, name: str) -> Any:
        kinds = {"count": "unary_stream", "push": "unary_stream", "total": "stream_unary", "pull": "stream_unary"}
        kind = kinds.get(name, "stream_stream" if name in ("chat", "deaf") else "unary_unary")
        return getattr(self.channel, kind)(f"/t.Echo/{name}")


@pytest.fixture(params=[False, True], ids=["tasks", "quick"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Client]:
    address = f"unix:{tmp_path}/s"
    async with (
        serving(tmp_path / "s", request.param) as (echo, server),
        grpc.aio.insecure_channel(address, options=OPTIONS) as channel,
    ):
        yield Client(channel, echo, server)


async def refused(call: Any) -> tuple[Code, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


async def test_all_four_kinds(client: Client) -> None:
    """Requests and responses alone and in streams."""
    assert await client.echo(b"hi") == b"hi"
    assert await client.echo(b"") == b""
    assert [each async for each in client.count(b"3")] == [b"0", b"1", b"2"]
    assert await client.total(iter([b"ab", b"", b"c"])) == b"3"
    assert [each async for each in client.chat(iter([b"x", b"y"]))] == [b"x", b"y"]


async def test_handlers_that_read_one_by_one(client: Client) -> None:
    """And those that know what they send before they are asked."""
    assert [each async for each in client.push(b"")] == [b"0", b"1", b"2"]
    assert await client.pull(iter([b"one"])) == b"one"


async def test_a_conversation_takes_turns_and_either_side_may_end_it(client: Client) -> None:
    """Each answer comes before the next request is sent."""
    call = client.chat()
    for word in (b"a", b"b" * 100_000, b"c"):
        await call.write(word)
        assert await call.read() == word
    await call.write(b"stop")
    assert await call.read() is grpc.aio.EOF
    assert await call.code() == Code.OK


async def test_metadata_both_ways(client: Client) -> None:
    """Text and bytes, with the first response and with the status."""
    call = client.metadata(b"", metadata=(("x-a", "1"), ("x-a", "2"), ("x-b-bin", b"\x00\xfe")))
    answer = await call
    for each in (b"('x-a', '1'), ('x-a', '2')", b"('x-b-bin', b'\\x00\\xfe')", b"('user-agent', 'grpc-python"):
        assert each in answer
    assert b"content-type" not in answer and b"':path'" not in answer
    assert dict(await call.initial_metadata())["x-head"] == "h"
    assert dict(await call.trailing_metadata()) == {"x-tail": "t", "x-tail-bin": b"\x00\xff"}


async def test_errors_travel_whole(client: Client) -> None:
    """Percent signs, umlauts and line ends included."""
    call = client.abort(b"")
    assert await refused(call) == (Code.NOT_FOUND, "nicht da: 100 % ü\n")
    assert dict(await call.trailing_metadata())["x-why"] == "gone"
    assert await refused(client.code(b"")) == (Code.ABORTED, "set")


async def test_a_defect_of_a_handler_is_unknown_and_logged(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """As grpc.aio has it."""
    code, details = await refused(client.fail(b""))
    assert (code, details) == (Code.UNKNOWN, "Unexpected <class 'ZeroDivisionError'>: by zero")
    assert "/t.Echo/fail failed" in caplog.text


async def test_whatever_a_handler_raises_is_its_defect(client: Client) -> None:
    """The client gets it instead of waiting for ever, and the server goes on."""
    assert await refused(client.exit(b"")) == (Code.UNKNOWN, "Unexpected <class 'SystemExit'>: 3")
    code, details = await refused(client.panic(b""))
    assert (code, details.partition(": ")[2]) == (Code.UNKNOWN, "as extensions in Rust raise it")
    assert await client.echo(b"x") == b"x"


async def test_each_failed_call_is_a_line_on_level_debug(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Method, status and message, whether it failed in its handler or found none; what succeeds says nothing."""
    caplog.set_level("DEBUG", "windlass_server")
    await client.echo(b"x")
    assert not caplog.records
    await refused(client.channel.unary_unary("/t.Echo/gone")(b""))
    assert "/t.Echo/gone failed: Unimplemented: " in caplog.text
    await refused(client.abort(b""))
    assert "/t.Echo/abort failed: NotFound: nicht da" in caplog.text
    _, details = await refused(client.fail(b""))
    assert f"/t.Echo/fail failed: Unknown: {details}" in caplog.text


async def test_what_is_not_served_is_unimplemented(client: Client) -> None:
    """In the words of grpc-go, which containerd's clients know."""
    channel = client.channel
    assert await refused(channel.unary_unary("/t.Echo/Nothing")(b"")) == (
        Code.UNIMPLEMENTED,
        "unknown method Nothing for service t.Echo",
    )
    assert await refused(channel.unary_unary("/t.Other/x")(b"")) == (Code.UNIMPLEMENTED, "unknown service t.Other")


async def test_the_largest_message_passes_and_a_larger_one_does_not(client: Client) -> None:
    """In both directions, and the connection goes on."""
    assert len(await client.echo(bytes(LIMIT))) == LIMIT
    code, details = await refused(client.echo(bytes(LIMIT + 1)))
    assert (code, details) == (
        Code.RESOURCE_EXHAUSTED,
        f"grpc: received message larger than max ({LIMIT + 1} vs. {LIMIT})",
    )
    code, _ = await refused(client.size(b"%d" % (LIMIT + 1)))
    assert code == Code.RESOURCE_EXHAUSTED
    assert await client.total(iter([bytes(LIMIT)] * 3)) == b"%d" % (3 * LIMIT)
    assert await client.echo(b"on") == b"on"
    assert [each.held for each in client.server.connections] == [0]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
async def test_compressed_requests_are_read(client: Client, compression: grpc.Compression) -> None:
    """Small ones on the loop, large ones in a thread; a bomb is refused."""
    for size in (100, 1 << 20, 12 << 20):
        assert await client.echo(bytes(size), compression=compression) == bytes(size)
    code, _ = await refused(client.echo(bytes(LIMIT + 1), compression=compression))
    assert code == Code.RESOURCE_EXHAUSTED
    assert await client.total(iter([b"a" * 5000, b"b"]), compression=compression) == b"5001"


@pytest.mark.parametrize("size", [0, 100, 1 << 20, LIMIT])
async def test_a_client_that_sends_gzip_can_read_what_it_gets(client: Client, size: int) -> None:
    """Small messages are compressed on the loop, large ones in a thread."""
    assert await client.echo(bytes(size), compression=grpc.Compression.Gzip) == bytes(size)
    counted = client.count(b"3 5000", compression=grpc.Compression.Gzip)
    assert [each async for each in counted] == [b"%d" % each + bytes(5000) for each in range(3)]


async def test_errors_and_metadata_for_a_client_that_sends_gzip(client: Client) -> None:
    """An answer without message names no encoding; too large a message is refused, whatever it is compressed to."""
    call = client.abort(b"x", compression=grpc.Compression.Gzip)
    assert await refused(call) == (Code.NOT_FOUND, "nicht da: 100 % ü\n")
    metadata = client.metadata(b"x", compression=grpc.Compression.Gzip)
    assert b"user-agent" in await metadata
    assert dict(await metadata.initial_metadata())["x-head"] == "h"
    code, _ = await refused(client.size(b"%d" % (LIMIT + 1), compression=grpc.Compression.Gzip))
    assert code == Code.RESOURCE_EXHAUSTED


async def test_a_thousand_calls_at_once(client: Client) -> None:
    """Each has its own answer; the handlers that hang do not hold up the others."""
    hanging = [client.hang(b"") for _ in range(1000)]
    await eventually(lambda: client.service.running == 1000)
    answers = await asyncio.gather(*(client.echo(b"%d" % each) for each in range(1000)))
    assert answers == [b"%d" % each for each in range(1000)]
    for each in hanging:
        each.cancel()


async def test_a_cancelled_call_cancels_its_handler(client: Client) -> None:
    """So that nothing goes on for a client that has gone; done callbacks are called."""
    echo = client.service
    call = client.hang(b"")
    await eventually(lambda: echo.running == 1)
    call.cancel()
    await eventually(lambda: echo.ended == ["cancelled"] and echo.done == 1)
    assert [each.core.lingering for each in client.server.connections] == [0]


async def test_a_deadline_cancels_the_handler(client: Client) -> None:
    """And is visible to it before."""
    echo = client.service
    code, _ = await refused(client.hang(b"", timeout=0.1))
    assert code == Code.DEADLINE_EXCEEDED
    await eventually(lambda: echo.ended == ["cancelled"])
    peer, left, cancelled = eval(await client.remaining(b"", timeout=50))
    assert peer == "unix:" and 40 < left <= 51 and not cancelled
    assert eval(await client.remaining(b""))[1] is None


async def test_a_lost_connection_cancels_its_handlers(client: Client, tmp_path: Path) -> None:
    """Also those that stream."""
    echo = client.service
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        hang: Unary = channel.unary_unary("/t.Echo/hang")
        count: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/t.Echo/count")
        calls = [hang(b""), count(b"100000 65536")]
        await eventually(lambda: echo.running == 2)
    await eventually(lambda: echo.running == 0)
    del calls
    assert await client.echo(b"still") == b"still"


async def test_a_slow_reader_holds_up_its_handler_and_nobody_else(client: Client) -> None:
    """The handler waits instead of filling memory, and goes on with the reader."""
    echo = client.service
    call = client.count(b"2000 65536")
    messages = aiter(call)
    assert await anext(messages)
    await asyncio.sleep(0.3)
    sent = echo.sent
    assert sent < 500
    await asyncio.sleep(0.1)
    assert echo.sent == sent
    assert await client.echo(b"now") == b"now"
    assert len([each async for each in messages]) == 1999
    await eventually(lambda: echo.running == 0)


async def test_a_handler_that_does_not_read_holds_up_its_writer_and_nobody_else(client: Client) -> None:
    """What it has not taken stays with the client."""
    call = client.deaf()
    written = 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            while True:
                await call.write(bytes(65536))
                written += 65536
    assert all(each.held <= 2 << 20 for each in client.server.connections)
    assert await client.echo(b"now") == b"now"
    call.cancel()
    await eventually(lambda: all(each.held == 0 for each in client.server.connections))


async def test_at_the_end_calls_under_way_are_told(tmp_path: Path) -> None:
    """Short ones may end; long ones are UNAVAILABLE."""
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        async with serving(tmp_path / "s") as (echo, _):
            hang: Unary = channel.unary_unary("/t.Echo/hang")
            call = hang(b"")
            await eventually(lambda: echo.running == 1)
        assert (await refused(call))[0] == Code.UNAVAILABLE
        assert echo.running == 0


async def test_the_synchronous_client(client: Client, tmp_path: Path) -> None:
    """Threads, each with calls of all kinds, on one channel."""

    def work(channel: grpc.Channel) -> None:
        echo: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/t.Echo/echo")
        count: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/t.Echo/count")
        total: grpc.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary("/t.Echo/total")
        chat: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream("/t.Echo/chat")
        for number in range(20):
            assert echo(b"%d" % number) == b"%d" % number
        assert len(list(count(b"100 10000"))) == 100
        assert total(iter([bytes(100_000)] * 10)) == b"1000000"
        assert list(chat(iter([b"1", b"2"]))) == [b"1", b"2"]
        done.append(True)

    def all_at_once() -> None:
        with grpc.insecure_channel(f"unix:{tmp_path}/s") as channel:
            threads = [threading.Thread(target=work, args=(channel,)) for _ in range(8)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()

    done: list[bool] = []
    await asyncio.to_thread(all_at_once)
    assert len(done) == 8
