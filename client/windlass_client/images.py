"""The images service: names for manifests and indexes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, NotFound, Unavailable
from windlass_api.containerd.services.images.v1 import images_pb2 as pb
from windlass_api.containerd.services.images.v1.images_pb2_grpc import ImagesStub
from windlass_client.connection import Connection
from windlass_remote.messages import to_descriptor

TRIES = 5


class Images:
    """Images of the namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = ImagesStub(connection.channel)

    async def get(self, name: str) -> pb.Image:
        """Return an image. Raises NotFound."""
        return (await self._connection.call(self._stub.Get, pb.GetImageRequest(name=name))).image

    async def list(self, *filters: str) -> Sequence[pb.Image]:
        """Return the images that match one of the filters."""
        return (await self._connection.call(self._stub.List, pb.ListImagesRequest(filters=filters))).images

    async def put(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> pb.Image:
        """Create an image, or let an existing one point to ``target``."""
        image = pb.Image(name=name, labels=labels or {}, target=to_descriptor(target))
        for _ in range(TRIES):
            try:
                return (await self._connection.call(self._stub.Create, pb.CreateImageRequest(image=image))).image
            except AlreadyExists:
                pass
            try:
                return (await self._connection.call(self._stub.Update, pb.UpdateImageRequest(image=image))).image
            except NotFound:
                pass
        raise Unavailable(f"image {name} is being created and deleted by another client; try again")

    async def create(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> pb.Image:
        """Create an image. Raises AlreadyExists."""
        image = pb.Image(name=name, labels=labels or {}, target=to_descriptor(target))
        return (await self._connection.call(self._stub.Create, pb.CreateImageRequest(image=image))).image

    async def delete(self, name: str, sync: bool = False) -> None:
        """Delete an image; with ``sync`` its blobs and snapshots are gone on return. Raises NotFound."""
        await self._connection.call(self._stub.Delete, pb.DeleteImageRequest(name=name, sync=sync))
