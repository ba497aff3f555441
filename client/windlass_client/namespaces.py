"""The namespaces service: tenants' scopes, and the defaults that their labels set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2 as pb
from windlass_api.containerd.services.namespaces.v1.namespaces_pb2_grpc import NamespacesStub
from windlass_client.connection import Connection

RUNTIME = "containerd.io/defaults/runtime"
SNAPSHOTTER = "containerd.io/defaults/snapshotter"
# what holds where a namespace sets nothing (docs/containerd 6.1)
BUILT_IN = {RUNTIME: "io.containerd.runc.v2", SNAPSHOTTER: "overlayfs"}


class Namespaces:
    """All namespaces of the daemon."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = NamespacesStub(connection.channel)

    async def get(self, name: str) -> pb.Namespace:
        """Return a namespace; one that was never created has no labels."""
        return (await self._connection.call(self._stub.Get, pb.GetNamespaceRequest(name=name))).namespace

    async def list(self) -> Sequence[pb.Namespace]:
        """Return every namespace."""
        return (await self._connection.call(self._stub.List, pb.ListNamespacesRequest())).namespaces

    async def create(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Create a namespace. Raises AlreadyExists."""
        namespace = pb.Namespace(name=name, labels=labels or {})
        await self._connection.call(self._stub.Create, pb.CreateNamespaceRequest(namespace=namespace))

    async def delete(self, name: str) -> None:
        """Delete an empty namespace. Raises FailedPrecondition when something is in it."""
        await self._connection.call(self._stub.Delete, pb.DeleteNamespaceRequest(name=name))

    async def default(self, label: str, explicit: str = "") -> str:
        """Return ``explicit``, or else what the connection's namespace sets, or else the built-in default."""
        if explicit:
            return explicit
        labels = (await self.get(self._connection.namespace)).labels
        return labels[label] if label in labels else BUILT_IN[label]
