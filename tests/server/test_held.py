"""Calls that come while the daemon starts: early services answer, the others' calls wait for them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from server.grpc_echo import LIMIT, Echo, eventually

from windlass.contracts import rpc
from windlass_server.counting import CallCounts
from windlass_server.grpc.listener import GrpcServer
from windlass_server.metrics import exposition
from windlass_server.sockets import listen


class Service:
    """An `Echo` with a name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.echo = Echo()

    def register(self, server: rpc.Server) -> None:
        server.add(self.name, self.echo.methods())


EARLY, LATE = Service("t.Early"), Service("t.Late")
SERVICES = {"early": EARLY, "late": LATE}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[GrpcServer]:
    server = GrpcServer(listen(tmp_path / "s", (-1, -1)), LIMIT, LIMIT)
    await server.open({"early": EARLY})
    yield server
    await server.stop()


@pytest.fixture
async def client(tmp_path: Path, server: GrpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s", options=rpc.authority("unix:")) as channel:
        yield channel


def same(data: bytes) -> bytes:
    return data


async def call(client: grpc.aio.Channel, path: str, request: bytes) -> bytes:
    return await client.unary_unary(path, same, same)(request, timeout=30)


async def held(server: GrpcServer, count: int) -> None:
    """Return when so many calls wait."""
    await eventually(lambda: len(server._server._held or ()) == count)


async def test_an_early_service_answers_before_the_others_are_there(client: grpc.aio.Channel) -> None:
    assert await call(client, "/t.Early/echo", b"hello") == b"hello"


async def test_a_call_waits_for_its_service_and_is_then_answered(server: GrpcServer, client: grpc.aio.Channel) -> None:
    """With its whole request, of several frames too, and counted as the calls that come later are."""
    big = bytes(range(256)) * 150
    waiting = [asyncio.create_task(call(client, "/t.Late/echo", each)) for each in (b"small", big)]
    sizes = client.stream_unary("/t.Late/total", same, same)(iter([b"one", b"four"]), timeout=30)
    await held(server, 3)
    counts = CallCounts(histogram=False)
    counts.turn_on()
    server.take(SERVICES, [counts])
    await server.start()
    assert await asyncio.gather(*waiting) == [b"small", big]
    assert await sizes == b"7"
    assert await call(client, "/t.Early/echo", b"x") == b"x"
    text = exposition(await counts.measure()).decode()
    lines = [line for line in text.splitlines() if line.startswith("grpc_server_started_total{") and '"echo"' in line]
    assert sorted(re.findall(r'"(t\..*?)".*\} (\d)', "\n".join(lines))) == [("t.Early", "1"), ("t.Late", "2")], lines


async def test_a_call_of_no_service_is_refused_once_all_are_there(server: GrpcServer, client: grpc.aio.Channel) -> None:
    waiting = asyncio.create_task(call(client, "/t.None/echo", b""))
    await held(server, 1)
    server.take(SERVICES, [])
    await server.start()
    with pytest.raises(grpc.aio.AioRpcError, match=r"unknown service t\.None"):
        await waiting


async def test_a_start_that_fails_ends_the_calls_that_wait(server: GrpcServer, client: grpc.aio.Channel) -> None:
    """At once: the time that calls under way are given at a stop would be lost."""
    waiting = asyncio.create_task(call(client, "/t.Late/echo", b""))
    await held(server, 1)
    await server.stop()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await waiting
    assert raised.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_a_client_that_leaves_is_not_waited_for(server: GrpcServer, client: grpc.aio.Channel) -> None:
    """Its handler never runs."""
    waiting = asyncio.create_task(call(client, "/t.Late/hang", b""))
    await held(server, 1)
    waiting.cancel()
    await held(server, 0)
    server.take(SERVICES, [])
    await server.start()
    assert await call(client, "/t.Late/echo", b"x") == b"x"
    assert not LATE.echo.running and not LATE.echo.ended
