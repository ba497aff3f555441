"""The Namespaces service."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.metadata import Metadata
from windlass.contracts.namespaces import Namespace
from windlass.contracts.rpc import Call, Encoded
from windlass.gate import offload
from windlass.marks import quick
from windlass_api.containerd.services.namespaces.v1 import namespaces_pb2 as pb
from windlass_remote.records import to_namespace
from windlass_services import encoded


class Namespaces:
    """``containerd.services.namespaces.v1.Namespaces``."""

    def __init__(self, metadata: Metadata) -> None:
        """Translate for ``metadata``."""
        self._store = metadata.namespaces()

    @quick
    async def get(self, request: pb.GetNamespaceRequest, call: Call) -> pb.GetNamespaceResponse | Encoded:
        """Return one namespace."""
        if (ready := await encoded.get(self._store, request.name)) is not None:
            return ready
        return pb.GetNamespaceResponse(namespace=to_namespace(await offload(self._store.get, request.name)))

    async def list(self, request: pb.ListNamespacesRequest, call: Call) -> pb.ListNamespacesResponse | Encoded:
        """Return all; the filter is ignored (docs/containerd 3.1)."""
        if (ready := await encoded.listed(self._store, ())) is not None:
            return ready
        return pb.ListNamespacesResponse(namespaces=map(to_namespace, await offload(self._store.list)))

    async def create(self, request: pb.CreateNamespaceRequest, call: Call) -> pb.CreateNamespaceResponse:
        """Create a namespace."""
        namespace = Namespace(request.namespace.name, dict(request.namespace.labels))
        return pb.CreateNamespaceResponse(namespace=to_namespace(await offload(self._store.create, namespace)))

    async def update(self, request: pb.UpdateNamespaceRequest, call: Call) -> pb.UpdateNamespaceResponse:
        """Change labels; the response carries nothing (docs/containerd 3.4)."""
        namespace = Namespace(request.namespace.name, dict(request.namespace.labels))
        await offload(self._store.update, namespace, list(request.update_mask.paths))
        return pb.UpdateNamespaceResponse()

    async def delete(self, request: pb.DeleteNamespaceRequest, call: Call) -> Empty:
        """Delete an empty namespace."""
        await offload(self._store.delete, request.name)
        return Empty()
