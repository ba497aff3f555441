"""Listeners without sockets: a peer's bytes go in, and nothing but the protocol's own answers may come out."""

from __future__ import annotations

import asyncio
import socket
from typing import Any  # what asyncio hands to its handlers

from server.grpc_echo import Echo

from windlass.contracts.services import TtrpcService
from windlass.errors import NotFound
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server
from windlass_server.http2 import frames
from windlass_server.ttrpc.listener import Connection

ANSWERS = 8 << 20
"""Bytes that one small input may be answered with."""


class Transport(asyncio.Transport):
    """Counts what is written."""

    def __init__(self, peer: socket.socket) -> None:
        super().__init__({"socket": peer})
        self.written = 0
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += len(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


class Peers:
    """A loop that keeps whatever goes wrong outside of the calls into it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._defects: list[BaseException] = []
        self._loop.set_exception_handler(self._defect)
        self._ours, self._theirs = socket.socketpair()

    def _defect(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self._defects.append(context.get("exception") or RuntimeError(context["message"]))

    def feed(self, data: bytes) -> None:
        """Send data on a connection of its own, and end it."""
        transport = Transport(self._ours)
        self._loop.run_until_complete(self._feed(data, transport))
        if self._defects:
            defect, self._defects = self._defects[0], []
            raise defect
        assert transport.written <= ANSWERS, f"{len(data)} bytes are answered with {transport.written}"

    async def _feed(self, data: bytes, transport: Transport) -> None:
        raise NotImplementedError

    async def _settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    def close(self) -> None:
        """End the loop."""
        self._loop.run_until_complete(self._settle())
        self._loop.close()
        self._ours.close()
        self._theirs.close()


METHODS = ("echo", "metadata", "hang", "code", "remaining", "total")


class Grpc(Peers):
    """The gRPC listener with unary methods that echo, wait and refuse."""

    def __init__(self) -> None:
        super().__init__()
        self._echo = Echo()
        self._server = Server(Limits(1 << 20, 1 << 20))
        methods = self._echo.methods()
        self._server.add("t.Echo", {name: methods[name] for name in METHODS})

    async def _feed(self, data: bytes, transport: Transport) -> None:
        connection = self._server.connection()
        connection.connection_made(transport)
        rest = memoryview(frames.PREFACE + data)
        while rest and not transport.closed:
            room = connection.get_buffer(-1)
            size = min(len(room), len(rest), 4099)
            room[:size] = rest[:size]
            connection.buffer_updated(size)
            rest = rest[size:]
            await asyncio.sleep(0)
        await self._settle()
        connection.connection_lost(None)
        await self._settle()
        assert not connection.held, f"{connection.held} bytes are kept for nobody"
        assert not connection.core.lingering, f"{connection.core.lingering} handlers go on for nobody"
        assert not self._echo.running


class Service:
    """A ttrpc service that echoes."""

    name = "t.Echo"

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        if method != "Say":
            raise NotFound(f"method {method}")
        return namespace.encode() + payload


class Ttrpc(Peers):
    """The ttrpc listener."""

    def __init__(self) -> None:
        super().__init__()
        self._services: dict[str, TtrpcService] = {"t.Echo": Service()}
        self._connections: set[Connection] = set()

    async def _feed(self, data: bytes, transport: Transport) -> None:
        connection = Connection(self._services, self._connections)
        connection.connection_made(transport)
        for start in range(0, len(data), 4099):
            connection.data_received(data[start : start + 4099])
            await asyncio.sleep(0)
        await self._settle()
        connection.connection_lost(None)
        await self._settle()
