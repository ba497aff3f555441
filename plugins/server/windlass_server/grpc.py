"""The gRPC listener, which serves clients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc
import grpc.aio

from windlass.errors import Unavailable
from windlass.services import Service
from windlass_server import sockets

GRACE = 1.0
"""Seconds that calls under way are given at stop; long ones (Wait, Subscribe) never end by themselves."""


class GrpcServer:
    """Serves every gRPC service on one unix socket."""

    def __init__(
        self, path: Path, owner: tuple[int, int], services: Sequence[Service], max_recv: int, max_send: int
    ) -> None:
        """Listen on ``path`` once started; sizes in bytes."""
        self._path = path
        self._owner = owner
        self._services = services
        self._options = (("grpc.max_receive_message_length", max_recv), ("grpc.max_send_message_length", max_send))
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Begin to listen. Raises InvalidArgument, FailedPrecondition, Unavailable."""
        server = grpc.aio.server(options=self._options)
        for service in self._services:
            service.register(server)
        with sockets.placed(self._path, self._owner) as short:
            try:
                server.add_insecure_port(f"unix:{short}")
            except RuntimeError as error:
                raise Unavailable(f"cannot listen on {self._path}: {error}") from None
            await server.start()
        self._server = server

    async def stop(self) -> None:
        """End calls, and stop listening."""
        if self._server is not None:
            sockets.remove(self._path)
            await self._server.stop(GRACE)
