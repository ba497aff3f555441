"""The Containers service."""

from __future__ import annotations

from collections.abc import AsyncIterator

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.containers import Container
from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call
from windlass.gate import offload
from windlass_api.containerd.services.containers.v1 import containers_pb2 as pb
from windlass_remote.messages import any_of, from_any, payloads, to_any, to_timestamp
from windlass_services import lists


def to_proto(container: Container) -> pb.Container:
    """Return a container's record as a message."""
    message = pb.Container(
        id=container.id,
        labels=container.labels,
        image=container.image,
        runtime=pb.Container.Runtime(name=container.runtime, options=to_any(container.runtime_options)),
        spec=to_any(container.spec),
        snapshotter=container.snapshotter,
        snapshot_key=container.snapshot_key,
        created_at=to_timestamp(container.created_at),
        updated_at=to_timestamp(container.updated_at),
        sandbox=container.sandbox,
    )
    for key, payload in container.extensions.items():
        message.extensions[key].CopyFrom(any_of(payload))
    return message


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
        self._metadata = metadata

    async def get(self, request: pb.GetContainerRequest, call: Call) -> pb.GetContainerResponse:
        """Return one record."""
        container = await offload(self._metadata.containers(call.namespace).get, request.id)
        return pb.GetContainerResponse(container=to_proto(container))

    async def list(self, request: pb.ListContainersRequest, call: Call) -> pb.ListContainersResponse:
        """Return all records that match."""
        containers = await offload(self._metadata.containers(call.namespace).list, list(request.filters))
        response = pb.ListContainersResponse()
        await lists.fill(response.containers, containers, to_proto)
        return response

    async def list_stream(
        self, request: pb.ListContainersRequest, call: Call
    ) -> AsyncIterator[pb.ListContainerMessage]:
        """Return all records that match, one by one."""
        for container in await offload(self._metadata.containers(call.namespace).list, list(request.filters)):
            yield pb.ListContainerMessage(container=to_proto(container))

    async def create(self, request: pb.CreateContainerRequest, call: Call) -> pb.CreateContainerResponse:
        """Record a container."""
        container = from_proto(request.container)
        created = await offload(self._metadata.containers(call.namespace).create, container)
        return pb.CreateContainerResponse(container=to_proto(created))

    async def update(self, request: pb.UpdateContainerRequest, call: Call) -> pb.UpdateContainerResponse:
        """Change what the mask names."""
        container, paths = from_proto(request.container), list(request.update_mask.paths)
        updated = await offload(self._metadata.containers(call.namespace).update, container, paths)
        return pb.UpdateContainerResponse(container=to_proto(updated))

    async def delete(self, request: pb.DeleteContainerRequest, call: Call) -> Empty:
        """Forget a record."""
        await offload(self._metadata.containers(call.namespace).delete, request.id)
        return Empty()
