"""The Containers service."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.containers import Container
from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call, Encoded
from windlass.gate import offload
from windlass.marks import quick
from windlass_api.containerd.services.containers.v1 import containers_pb2 as pb
from windlass_remote.messages import from_any, payloads
from windlass_remote.records import to_container
from windlass_services import encoded, lists
from windlass_services.views import Views


def from_proto(message: pb.Container) -> Container:
    """Return a container's record; its times are ours to set."""
    return Container(
        id=message.id,
        runtime=message.runtime.name,
        runtime_options=from_any(message.runtime.options),
        spec=from_any(message.spec),
        labels=dict(message.labels),
        image=message.image,
        snapshotter=message.snapshotter,
        snapshot_key=message.snapshot_key,
        extensions=payloads(message.extensions),
        sandbox=message.sandbox,
    )


class Containers:
    """``containerd.services.containers.v1.Containers``."""

    def __init__(self, metadata: Metadata) -> None:
        """Translate for ``metadata``."""
        self._views = Views(metadata.containers)

    @quick
    async def get(self, request: pb.GetContainerRequest, call: Call) -> pb.GetContainerResponse | Encoded:
        """Return one record."""
        store = self._views.of(call)
        if (ready := await encoded.get(store, request.id)) is not None:
            return ready
        return pb.GetContainerResponse(container=to_container(await offload(store.get, request.id)))

    async def list(self, request: pb.ListContainersRequest, call: Call) -> pb.ListContainersResponse | Encoded:
        """Return all records that match."""
        store = self._views.of(call)
        if (ready := await encoded.listed(store, request.filters)) is not None:
            return ready
        response = pb.ListContainersResponse()
        await lists.fill(response.containers, await offload(store.list, list(request.filters)), to_container)
        return response

    async def list_stream(
        self, request: pb.ListContainersRequest, call: Call
    ) -> AsyncIterator[pb.ListContainerMessage | Encoded]:
        """Return all records that match, one by one."""
        store = self._views.of(call)
        if (ready := await encoded.each(store, request.filters)) is not None:
            for record in ready:
                yield Encoded(record)
            return
        for container in await offload(store.list, list(request.filters)):
            yield pb.ListContainerMessage(container=to_container(container))

    async def create(self, request: pb.CreateContainerRequest, call: Call) -> pb.CreateContainerResponse:
        """Record a container."""
        container = from_proto(request.container)
        created = await offload(self._views.of(call).create, container)
        return pb.CreateContainerResponse(container=to_container(created))

    async def update(self, request: pb.UpdateContainerRequest, call: Call) -> pb.UpdateContainerResponse:
        """Change what the mask names."""
        container, paths = from_proto(request.container), list(request.update_mask.paths)
        updated = await offload(self._views.of(call).update, container, paths)
        return pb.UpdateContainerResponse(container=to_container(updated))

    async def delete(self, request: pb.DeleteContainerRequest, call: Call) -> Empty:
        """Forget a record."""
        await offload(self._views.of(call).delete, request.id)
        return Empty()
