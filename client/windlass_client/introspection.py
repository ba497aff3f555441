"""The introspection service: which plugins the daemon has, and how each started."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from windlass_api.containerd.services.introspection.v1 import introspection_pb2 as pb
from windlass_api.containerd.services.introspection.v1.introspection_pb2_grpc import IntrospectionStub
from windlass_client.connection import Connection


class Introspection:
    """What the daemon tells about itself."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = IntrospectionStub(connection.channel)

    async def plugins(self, *filters: str) -> Sequence[pb.Plugin]:
        """Return the plugins that match one of the filters, in the order they started."""
        return (await self._connection.call(self._stub.Plugins, pb.PluginsRequest(filters=filters))).plugins

    async def plugin_info(self, type: str, id: str, options: AnyMessage | None = None) -> pb.PluginInfoResponse:
        """Return what the daemon knows of one plugin; ``options`` ask the plugin itself."""
        request = pb.PluginInfoRequest(type=type, id=id, options=options)
        return await self._connection.call(self._stub.PluginInfo, request)

    async def server(self) -> pb.ServerResponse:
        """Return the daemon's UUID, pid and what it finds deprecated."""
        return await self._connection.call(self._stub.Server, Empty())
