"""Contract: services, the faces of the daemon on its sockets."""

from __future__ import annotations

from typing import Any, Protocol

from windlass.plugin import PluginType


class Service(Protocol):
    """A gRPC service; servers take every one that started."""

    @property
    def name(self) -> str:
        """Return the full name, such as ``containerd.services.version.v1.Version``."""
        ...

    # Any: what a grpc.aio.Server has for this, which the kernel does not import.
    def register(self, server: Any) -> None:
        """Add this service's handlers, whose functions are ``async``, to a server.

        It has ``add_generic_rpc_handlers`` and ``add_registered_method_handlers``, so
        `windlass.contracts.rpc.serve` and grpc's generated ``add_…Servicer_to_server`` take it.
        Handlers get a context with the methods of `grpc.aio.ServicerContext`.
        """
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
