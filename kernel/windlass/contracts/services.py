"""Contract: services, the faces of the daemon on its sockets."""

from __future__ import annotations

from typing import Protocol

from windlass.contracts.rpc import Server
from windlass.plugin import PluginType


class Service(Protocol):
    """A gRPC service; servers take every one that started."""

    @property
    def name(self) -> str:
        """Return the full name, such as ``containerd.services.version.v1.Version``."""
        ...

    def register(self, server: Server) -> None:
        """Add this service to a server, by `windlass.contracts.rpc.serve` or ``server.add``."""
        ...


class TtrpcService(Protocol):
    """A ttrpc service, for the socket that shims report to."""

    @property
    def name(self) -> str:
        """Return the full name, such as ``containerd.services.events.ttrpc.v1.Events``."""
        ...

    async def call(self, method: str, namespace: str, payload: bytes) -> bytes:
        """Answer one unary call. Raises `windlass.errors.Unimplemented` for an unknown method."""
        ...


GRPC: PluginType[Service] = PluginType("io.containerd.grpc.v1", Service)
TTRPC: PluginType[TtrpcService] = PluginType("io.containerd.ttrpc.v1", TtrpcService)
SERVER: PluginType[object] = PluginType("io.containerd.server.v1")
