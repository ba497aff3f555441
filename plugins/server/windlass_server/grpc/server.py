"""What is served: the methods that services register, found by path."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

from windlass.contracts.metrics import CallCounter, Counter
from windlass.contracts.rpc import Method
from windlass.errors import AlreadyExists, Code
from windlass_server.counting import kind_of
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.calls import Call
from windlass_server.grpc.connection import BUFFER, Connection
from windlass_server.grpc.held import Held
from windlass_server.grpc.metadata import Refused
from windlass_server.http2.requests import Request
from windlass_server.http2.streams import Stream

STOPS = "the server stops"


class Server:
    """A `windlass.contracts.rpc.Server`: a table of methods, and the connections of clients that call them."""

    def __init__(self, limits: Limits) -> None:
        """Refuse larger messages than ``limits``."""
        self.limits = limits
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = False
        self._methods: dict[str, Method] = {}
        self._services: set[str] = set()
        self._counters: dict[str, Counter] = {}
        self.counting: CallCounter | None = None
        """What counts the calls of services that are added from now on."""
        self._held: set[Held] | None = None
        """Calls that wait for their service, None when all services are there."""
        self._buffer = memoryview(bytearray(BUFFER))
        self.connections: set[Connection] = set()

    def add(self, service: str, methods: Mapping[str, Method]) -> None:
        """Serve ``methods``, by their names on the wire, as the service with this full name.

        Raises AlreadyExists for a second service of one name, which would take the calls of the first.
        """
        if service in self._services:
            raise AlreadyExists(
                f"two plugins serve gRPC service {service}; name one of them in disabled_plugins, or uninstall it"
            )
        self._services.add(service)
        paths = {f"/{service}/{name}": method for name, method in methods.items()}
        self._methods.update(paths)
        self._count(paths)

    def _count(self, methods: Mapping[str, Method]) -> None:
        if self.counting is not None:
            counter = self.counting.counter
            self._counters.update({path: counter(path, kind_of(method)) for path, method in methods.items()})

    def hold(self) -> None:
        """Let calls of methods that are not known wait for `release` from now on."""
        self._held = set()

    def release(self, counting: CallCounter | None) -> None:
        """Begin the calls that wait, since every service is there; ``counting`` counts those that begin from now on."""
        self.counting = counting
        self._count(self._methods)
        held, self._held = self._held, None
        for each in list(held or ()):
            each.release()

    def connection(self) -> Connection:
        """Return the protocol of a new connection."""
        self._loop = asyncio.get_running_loop()
        connection = Connection(self._accept, self.connections, self._buffer)
        if self._stopping:  # it was accepted before the listener closed
            connection.core.drain(STOPS)
        return connection

    def _accept(self, connection: Connection, stream: Stream, request: Request | None) -> Call | Held:
        assert self._loop is not None
        call = partial(Call, connection, stream, self.limits, self._loop)
        if self._held is None or request is None or request.path in self._methods:
            return self._begin(request, call())
        held = Held(stream, call, partial(self._begin, request), self._held.discard)
        self._held.add(held)
        return held

    def _begin(self, request: Request | None, call: Call) -> Call:
        call.begin(request, self._find, self._counters)
        return call

    def _find(self, path: str) -> Method:
        method = self._methods.get(path)
        if method is None:
            raise self._unknown(path)
        return method

    def _unknown(self, path: str) -> Refused:
        service, _, name = path.removeprefix("/").rpartition("/")
        if not path.startswith("/") or not service:
            return Refused(Code.UNIMPLEMENTED, f'malformed method name: "{path}"')
        if service in self._services:
            return Refused(Code.UNIMPLEMENTED, f"unknown method {name} for service {service}")
        return Refused(Code.UNIMPLEMENTED, f"unknown service {service}")

    async def stop(self, grace: float) -> None:
        """Let calls under way end for ``grace`` seconds, then end them; peers have as long again to read that."""
        self._stopping = True
        held, self._held = self._held, None
        for each in list(held or ()):
            each.refuse(STOPS)
        for connection in list(self.connections):
            connection.drain(STOPS)
        await self._all_lost(grace)
        for connection in list(self.connections):
            connection.refuse(STOPS)
        await self._all_lost(grace)
        for connection in list(self.connections):
            connection.abort()

    async def _all_lost(self, timeout: float) -> None:
        if self.connections:
            await asyncio.wait([connection.lost for connection in self.connections], timeout=timeout)
