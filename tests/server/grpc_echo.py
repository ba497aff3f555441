"""A service with a method of each kind, served by the listener's own server on a unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from windlass.contracts.rpc import Call, Method
from windlass.errors import Aborted, NotFound
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server

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

    async def echo(self, request: bytes, call: Call) -> bytes:
        return request

    async def metadata(self, request: bytes, call: Call) -> bytes:
        call.set_trailers((("x-tail", "t"), ("x-tail-bin", b"\x00\xff")))
        call.send_headers((("x-head", "h"),))
        return repr([tuple(each) for each in call.metadata]).encode()

    async def hang(self, request: bytes, call: Call) -> bytes:
        call.add_done_callback(lambda: self._count(call))
        self.running += 1
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        finally:
            self.running -= 1
        return b""

    def _count(self, call: Call) -> None:
        assert call.over
        self.done += 1

    async def fail(self, request: bytes, call: Call) -> bytes:
        raise ZeroDivisionError("by zero")

    async def exit(self, request: bytes, call: Call) -> bytes:
        raise SystemExit(3)

    async def panic(self, request: bytes, call: Call) -> bytes:
        raise Panic("as extensions in Rust raise it")

    async def abort(self, request: bytes, call: Call) -> bytes:
        call.set_trailers((("x-why", "gone"),))
        raise NotFound("nicht da: 100 % ü\n")

    async def code(self, request: bytes, call: Call) -> bytes:
        raise Aborted("set")

    async def size(self, request: bytes, call: Call) -> bytes:
        return bytes(int(request))

    async def remaining(self, request: bytes, call: Call) -> bytes:
        return repr((call.peer, call.remaining, call.over)).encode()

    async def count(self, request: bytes, call: Call) -> AsyncIterator[bytes]:
        number, _, size = request.partition(b" ")
        self.running += 1
        try:
            for each in range(int(number)):
                self.sent = each + 1
                yield b"%d" % each + bytes(int(size or 0))
        finally:
            self.running -= 1

    async def push(self, request: bytes, call: Call) -> AsyncIterator[bytes]:
        for each in range(3):
            yield b"%d" % each

    async def total(self, requests: AsyncIterator[bytes], call: Call) -> bytes:
        size = 0
        async for request in requests:
            size += len(request)
        return b"%d" % size

    async def pull(self, requests: AsyncIterator[bytes], call: Call) -> bytes:
        first = await anext(requests)
        assert await anext(requests, None) is None
        return first

    async def chat(self, requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        async for request in requests:
            if request == b"stop":
                return
            yield request

    async def deaf(self, requests: AsyncIterator[bytes], call: Call) -> AsyncIterator[bytes]:
        await asyncio.sleep(60)
        yield b""

    def methods(self, quick: bool = False) -> dict[str, Method]:
        """Return the table of all methods, whose messages are bytes; those without a stream are ``quick``, or not."""
        unary = ["echo", "metadata", "hang", "fail", "exit", "panic", "abort", "code", "size", "remaining"]
        streams = {"count": (False, True), "push": (False, True), "total": (True, False), "pull": (True, False)}
        streams |= {"chat": (True, True), "deaf": (True, True)}
        kinds = dict.fromkeys(unary, (False, False)) | streams
        return {
            name: Method(f"/t.Echo/{name}", getattr(self, name), bytes, _same, *kind, quick=quick and name in unary)
            for name, kind in kinds.items()
        }


def _same(message: object) -> bytes:
    assert isinstance(message, bytes)
    return message


@asynccontextmanager
async def serving(path: Path, quick: bool = False) -> AsyncIterator[tuple[Echo, Server]]:
    """Serve an `Echo` as service ``t.Echo`` on ``path``."""
    echo, server = Echo(), Server(Limits(LIMIT, LIMIT))
    server.add("t.Echo", echo.methods(quick))
    listener = await asyncio.get_running_loop().create_unix_server(server.connection, str(path))
    yield echo, server
    listener.close()
    await server.stop(0.2)


async def eventually(condition: Callable[[], object]) -> None:
    """Return when ``condition()`` holds."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
