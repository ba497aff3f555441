"""The gRPC listener, which serves clients."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from windlass.services import Service
from windlass_server import sockets
from windlass_server.calls import Limits
from windlass_server.registry import Server

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
        self._server = Server(Limits(max_recv, max_send))
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to listen. Raises InvalidArgument, FailedPrecondition, OSError."""
        for service in self._services:
            service.register(self._server)
        loop = asyncio.get_running_loop()
        listener = sockets.listen(self._path, self._owner)
        self._listener = await loop.create_unix_server(self._server.connection, sock=listener)

    async def stop(self) -> None:
        """End calls, and stop listening."""
        if self._listener is not None:
            sockets.remove(self._path)
            self._listener.close()
            await self._server.stop(GRACE)
