"""A service with a method of each kind, served by the listener's own server on a unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from windlass_server.calls import Limits
from windlass_server.registry import Server

LIMIT = 16 << 20


class Panic(BaseException):
    """No Exception."""


class Echo:
    """Methods that speak bytes; ``running`` handlers have not returned, ``ended`` says how each of them did."""

    def __init__(self) -> None:
        self.running = 0
        self.ended: list[str] = []
        self.sent = 0
        self.done = 0

    async def echo(self, request: bytes, context: Any) -> bytes:
        return request

    async def metadata(self, request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("x-tail", "t"), ("x-tail-bin", b"\x00\xff")))
        await context.send_initial_metadata((("x-head", "h"),))
        return repr([tuple(each) for each in context.invocation_metadata()]).encode()

    async def hang(self, request: bytes, context: Any) -> bytes:
        context.add_done_callback(self._count)
        self.running += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        finally:
            self.running -= 1
        return b""

    def _count(self, context: Any) -> None:
        assert context.done()
        self.done += 1

    async def fail(self, request: bytes, context: Any) -> bytes:
        raise ZeroDivisionError("by zero")

    async def exit(self, request: bytes, context: Any) -> bytes:
        raise SystemExit(3)

    async def panic(self, request: bytes, context: Any) -> bytes:
        raise Panic("as extensions in Rust raise it")

    async def abort(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.NOT_FOUND, "nicht da: 100 % ü\n", (("x-why", "gone"),))
        raise AssertionError

    async def code(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.ABORTED)
        context.set_details("set")
        raise NotImplementedError

    async def size(self, request: bytes, context: Any) -> bytes:
        return bytes(int(request))

    async def remaining(self, request: bytes, context: Any) -> bytes:
        return repr((context.peer(), context.time_remaining(), context.cancelled())).encode()

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        number, _, size = request.partition(b" ")
        self.running += 1
        try:
            for each in range(int(number)):
                self.sent = each + 1
                yield b"%d" % each + bytes(int(size or 0))
        finally:
            self.running -= 1

    async def push(self, request: bytes, context: Any) -> None:
        for each in range(3):
            await context.write(b"%d" % each)

    async def total(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        size = 0
        async for request in requests:
            size += len(request)
        return b"%d" % size

    async def pull(self, requests: Any, context: Any) -> bytes:
        first = await context.read()
        assert await context.read() is grpc.aio.EOF
        return bytes(first)

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            if request == b"stop":
                return
            yield request

    async def deaf(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    def handlers(self) -> dict[str, Any]:
        unary = ["echo", "metadata", "hang", "fail", "exit", "panic", "abort", "code", "size", "remaining"]
        return {
            **{name: grpc.unary_unary_rpc_method_handler(getattr(self, name)) for name in unary},
            "count": grpc.unary_stream_rpc_method_handler(self.count),
            "push": grpc.unary_stream_rpc_method_handler(self.push),
            "total": grpc.stream_unary_rpc_method_handler(self.total),
            "pull": grpc.stream_unary_rpc_method_handler(self.pull),
            "chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "deaf": grpc.stream_stream_rpc_method_handler(self.deaf),
        }


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[tuple[Echo, Server]]:
    """Serve an `Echo` as service ``t.Echo`` on ``path``."""
    echo, server = Echo(), Server(Limits(LIMIT, LIMIT))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Echo", echo.handlers()),))
    listener = await asyncio.get_running_loop().create_unix_server(server.connection, str(path))
    yield echo, server
    listener.close()
    await server.stop(0.2)


async def eventually(condition: Any) -> None:
    """Return when ``condition()`` holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
