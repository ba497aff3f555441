"""The Leases service."""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.gc import Collector
from windlass.contracts.leases import LeaseStore, Resource
from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call, Encoded
from windlass.gate import offload
from windlass_api.containerd.services.leases.v1 import leases_pb2 as pb
from windlass_remote.records import to_lease
from windlass_services import encoded, lists
from windlass_services.views import Views


class Leases:
    """``containerd.services.leases.v1.Leases``."""

    def __init__(self, metadata: Metadata, collector: Collector) -> None:
        """Translate for ``metadata``, and have ``collector`` run where a deletion is to be waited for."""
        self._views = Views(metadata.leases)
        self._collector = collector

    def _store(self, call: Call) -> LeaseStore:
        return self._views.of(call)

    async def create(self, request: pb.CreateRequest, call: Call) -> pb.CreateResponse:
        """Create a lease."""
        lease = await offload(self._store(call).create, request.id, dict(request.labels))
        return pb.CreateResponse(lease=to_lease(lease))

    async def delete(self, request: pb.DeleteRequest, call: Call) -> Empty:
        """Delete a lease; if the client asks, wait until what only it held is deleted."""
        await offload(self._store(call).delete, request.id)
        if request.sync:
            await self._collector.collect()
        return Empty()

    async def list(self, request: pb.ListRequest, call: Call) -> pb.ListResponse | Encoded:
        """Return all leases that match."""
        store = self._store(call)
        if (ready := await encoded.listed(store, request.filters)) is not None:
            return ready
        response = pb.ListResponse()
        await lists.fill(response.leases, await offload(store.list, list(request.filters)), to_lease)
        return response

    async def add_resource(self, request: pb.AddResourceRequest, call: Call) -> Empty:
        """Hold a resource."""
        resource = Resource(request.resource.id, request.resource.type)
        await offload(self._store(call).add_resource, request.id, resource)
        return Empty()

    async def delete_resource(self, request: pb.DeleteResourceRequest, call: Call) -> Empty:
        """Let a resource go."""
        resource = Resource(request.resource.id, request.resource.type)
        await offload(self._store(call).delete_resource, request.id, resource)
        return Empty()

    async def list_resources(self, request: pb.ListResourcesRequest, call: Call) -> pb.ListResourcesResponse | Encoded:
        """Return what a lease holds."""
        if (ready := await encoded.get(self._store(call), request.id, "resources_encoded")) is not None:
            return ready
        resources = await offload(self._store(call).resources, request.id)
        return pb.ListResourcesResponse(resources=[pb.Resource(id=each.id, type=each.type) for each in resources])
