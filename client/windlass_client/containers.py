"""The containers service: specs and labels, nothing that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.field_mask_pb2 import FieldMask

from windlass_api.containerd.services.containers.v1 import containers_pb2 as pb
from windlass_api.containerd.services.containers.v1.containers_pb2_grpc import ContainersStub
from windlass_client.connection import Connection

EXIT_STATUS = "windlass.client/exit-status"
"""Label of a container whose task has ended and was deleted."""


class Containers:
    """Containers of the namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = ContainersStub(connection.channel)

    async def get(self, id: str) -> pb.Container:
        """Return a container. Raises NotFound."""
        return (await self._connection.call(self._stub.Get, pb.GetContainerRequest(id=id))).container

    async def list(self, *filters: str) -> Sequence[pb.Container]:
        """Return the containers that match one of the filters."""
        request = pb.ListContainersRequest(filters=filters)
        return (await self._connection.call(self._stub.List, request)).containers

    async def create(self, container: pb.Container) -> pb.Container:
        """Create a container. Raises AlreadyExists."""
        request = pb.CreateContainerRequest(container=container)
        return (await self._connection.call(self._stub.Create, request)).container

    async def label(self, id: str, labels: Mapping[str, str]) -> None:
        """Set labels of a container; an empty value removes one."""
        container = pb.Container(id=id, labels=labels)
        mask = FieldMask(paths=[f"labels.{label}" for label in labels])
        request = pb.UpdateContainerRequest(container=container, update_mask=mask)
        await self._connection.call(self._stub.Update, request)

    async def delete(self, id: str) -> None:
        """Delete a container; its snapshot stays. Raises NotFound."""
        await self._connection.call(self._stub.Delete, pb.DeleteContainerRequest(id=id))

    async def set_spec(self, id: str, spec: AnyMessage, labels: Mapping[str, str] | None = None) -> None:
        """Replace the spec of a container, which its next task gets, and set labels. Raises NotFound."""
        container = pb.Container(id=id, spec=spec, labels=labels)
        mask = FieldMask(paths=["spec", *(f"labels.{label}" for label in labels or {})])
        request = pb.UpdateContainerRequest(container=container, update_mask=mask)
        await self._connection.call(self._stub.Update, request)
