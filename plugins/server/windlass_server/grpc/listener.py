"""The gRPC listener, which serves clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windlass.contracts.metrics import CallCounter
from windlass.contracts.services import Service
from windlass_server.accepting import Acceptor
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server
from windlass_server.sockets import Place

GRACE = 1.0
"""Seconds that calls under way are given at stop; long ones (Wait, Subscribe) never end by themselves."""


class GrpcServer:
    """Serves every gRPC service on one unix socket: first `open`, then `take`, `start`, `stop`."""

    def __init__(self, place: Place, max_recv: int, max_send: int) -> None:
        """Take connections from ``place``, which it owns, once opened; sizes in bytes."""
        self._place = place
        self._services: Mapping[str, Service] = {}
        self._early: Mapping[str, Service] = {}
        self._counting: Sequence[CallCounter] = ()
        self._server = Server(Limits(max_recv, max_send))
        self._acceptor: Acceptor | None = None

    def limit(self, max_recv: int, max_send: int) -> None:
        """Refuse larger messages of calls that begin from now on."""
        self._server.limits = Limits(max_recv, max_send)

    async def open(self, early: Mapping[str, Service]) -> None:
        """Take connections, and answer calls of the services that are there already; others wait for `start`."""
        self._early = early
        for service in early.values():
            service.register(self._server)
        self._server.hold()
        connections = self._server.connections
        self._acceptor = Acceptor(self._place.socket, self._server.connection, lambda: len(connections))

    def take(self, services: Mapping[str, Service], counting: Sequence[CallCounter]) -> None:
        """Have all ``services`` by ID, those of `open` among them, and what may count their calls, for `start`."""
        self._services, self._counting = services, counting

    async def start(self) -> None:
        """Begin to answer all calls."""
        for id, service in self._services.items():
            if id not in self._early:
                service.register(self._server)
        self._server.release(next((each for each in self._counting if each.on), None))

    async def stop(self) -> None:
        """Stop listening, and end calls."""
        if self._acceptor is not None:
            self._acceptor.close()
        self._place.close()
        await self._server.stop(GRACE)
