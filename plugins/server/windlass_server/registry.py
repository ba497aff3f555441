"""What is served: the handlers that services register, found by path; and the server object they register with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from windlass.errors import Code
from windlass_server.calls import Call, Limits, Method
from windlass_server.headers import Field
from windlass_server.http2 import BUFFER, Connection
from windlass_server.metadata import Metadata, Refused
from windlass_server.streams import Stream

MOST_CACHED = 4096


class _Details(grpc.HandlerCallDetails):
    def __init__(self, method: str, invocation_metadata: Metadata) -> None:
        self.method = method
        self.invocation_metadata = invocation_metadata


class Server:
    """Takes handlers as a `grpc.aio.Server` does, and makes the connections that serve them."""

    def __init__(self, limits: Limits) -> None:
        """Refuse larger messages than ``limits``."""
        self._limits = limits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._generic: list[grpc.GenericRpcHandler] = []
        self._methods: dict[str, Method] = {}
        self._names: set[str] = set()
        self._buffer = memoryview(bytearray(BUFFER))
        self.connections: set[Connection] = set()

    # Any, here and below: messages are of the types that the handler's service has.
    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Serve what these handle; the first that knows a method has it."""
        for handler in generic_rpc_handlers:
            self._generic.append(handler)
            if isinstance(handler, grpc.ServiceRpcHandler):
                self._names.add(handler.service_name())

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Serve these methods; they go before those of generic handlers."""
        self._names.add(service_name)
        for name, handler in method_handlers.items():
            path = f"/{service_name}/{name}"
            self._methods[path] = Method.of(path, handler)

    def connection(self) -> Connection:
        """Return the protocol of a new connection."""
        self._loop = asyncio.get_running_loop()
        return Connection(self._accept, self.connections, self._buffer)

    def _accept(self, stream: Stream, fields: list[Field] | None) -> Call:
        assert self._loop is not None
        call = Call(stream, self._limits, self._loop)
        call.begin(fields, self._find)
        return call

    def _find(self, path: str, metadata: Metadata) -> Method:
        method = self._methods.get(path)
        if method is not None:
            return method
        for generic in self._generic:
            handler = generic.service(_Details(path, metadata))
            if handler is not None:
                method = Method.of(path, handler)
                # one that speaks for a service answers the same for a path every time; others may look at metadata
                if isinstance(generic, grpc.ServiceRpcHandler) and len(self._methods) < MOST_CACHED:
                    self._methods[path] = method
                return method
        raise self._unknown(path)

    def _unknown(self, path: str) -> Refused:
        service, _, name = path.removeprefix("/").rpartition("/")
        if not path.startswith("/") or not service:
            return Refused(Code.UNIMPLEMENTED, f'malformed method name: "{path}"')
        if service in self._names:
            return Refused(Code.UNIMPLEMENTED, f"unknown method {name} for service {service}")
        return Refused(Code.UNIMPLEMENTED, f"unknown service {service}")

    async def stop(self, grace: float) -> None:
        """Let calls under way end for ``grace`` seconds, then end them; peers have as long again to read that."""
        for connection in list(self.connections):
            connection.drain()
        await self._all_lost(grace)
        for connection in list(self.connections):
            connection.refuse("the server stops")
        await self._all_lost(grace)
        for connection in list(self.connections):
            connection.abort()

    async def _all_lost(self, timeout: float) -> None:
        if self.connections:
            await asyncio.wait([connection.lost for connection in self.connections], timeout=timeout)
