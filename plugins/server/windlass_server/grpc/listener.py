"""The gRPC listener, which serves clients."""

from __future__ import annotations

from collections.abc import Sequence

from windlass.contracts.metrics import CallCounter
from windlass.contracts.services import Service
from windlass_server.accepting import Acceptor
from windlass_server.grpc.answers import Limits
from windlass_server.grpc.server import Server
from windlass_server.sockets import Place

GRACE = 1.0
"""Seconds that calls under way are given at stop; long ones (Wait, Subscribe) never end by themselves."""


class GrpcServer:
    """Serves every gRPC service on one unix socket."""

    def __init__(
        self,
        place: Place,
        services: Sequence[Service],
        counting: Sequence[CallCounter],
        max_recv: int,
        max_send: int,
    ) -> None:
        """Take connections from ``place``, which it owns, once started; sizes in bytes."""
        self._place = place
        self._services = services
        self._counting = counting
        self._server = Server(Limits(max_recv, max_send))
        self._acceptor: Acceptor | None = None

    def limit(self, max_recv: int, max_send: int) -> None:
        """Refuse larger messages of calls that begin from now on."""
        self._server.limits = Limits(max_recv, max_send)

    async def start(self) -> None:
        """Begin to answer."""
        self._server.counting = next((each for each in self._counting if each.on), None)
        for service in self._services:
            service.register(self._server)
        connections = self._server.connections
        self._acceptor = Acceptor(self._place.socket, self._server.connection, lambda: len(connections))

    async def stop(self) -> None:
        """Stop listening, and end calls."""
        if self._acceptor is not None:
            self._acceptor.close()
        self._place.close()
        await self._server.stop(GRACE)
