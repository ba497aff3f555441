"""The Images service."""

from __future__ import annotations

import logging

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.gc import Collector
from windlass.contracts.images import Image, ImageStore
from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call
from windlass.errors import Error
from windlass.gate import offload
from windlass_api.containerd.services.images.v1 import images_pb2 as pb
from windlass_remote.messages import from_descriptor, from_timestamp, put_timestamp, to_descriptor
from windlass_services import lists

logger = logging.getLogger(__name__)


def to_proto(image: Image) -> pb.Image:
    """Return an image as a message."""
    message = pb.Image(name=image.name, labels=image.labels or None, target=to_descriptor(image.target))
    put_timestamp(message.created_at, image.created_at)
    put_timestamp(message.updated_at, image.updated_at)
    return message


def from_proto(message: pb.Image) -> Image:
    """Return an image; its times are ours to set."""
    return Image(message.name, from_descriptor(message.target), dict(message.labels))


class Images:
    """``containerd.services.images.v1.Images``."""

    def __init__(self, metadata: Metadata, collector: Collector) -> None:
        """Translate for ``metadata``, and have ``collector`` run where a deletion is to be waited for."""
        self._metadata = metadata
        self._collector = collector

    def _store(self, call: Call) -> ImageStore:
        return self._metadata.images(call.namespace, call.lease)

    async def get(self, request: pb.GetImageRequest, call: Call) -> pb.GetImageResponse:
        """Return one image."""
        return pb.GetImageResponse(image=to_proto(await offload(self._store(call).get, request.name)))

    async def list(self, request: pb.ListImagesRequest, call: Call) -> pb.ListImagesResponse:
        """Return all images that match."""
        images = await offload(self._store(call).list, list(request.filters))
        response = pb.ListImagesResponse()
        await lists.fill(response.images, images, to_proto)
        return response

    async def create(self, request: pb.CreateImageRequest, call: Call) -> pb.CreateImageResponse:
        """Record an image."""
        at = from_timestamp(request.source_date_epoch) if request.HasField("source_date_epoch") else None
        image = await offload(self._store(call).create, from_proto(request.image), at)
        return pb.CreateImageResponse(image=to_proto(image))

    async def update(self, request: pb.UpdateImageRequest, call: Call) -> pb.UpdateImageResponse:
        """Change what the mask names."""
        at = from_timestamp(request.source_date_epoch) if request.HasField("source_date_epoch") else None
        paths = list(request.update_mask.paths)
        image = await offload(self._store(call).update, from_proto(request.image), paths, at)
        return pb.UpdateImageResponse(image=to_proto(image))

    async def delete(self, request: pb.DeleteImageRequest, call: Call) -> Empty:
        """Forget an image; if the client asks, wait until what only it referred to is deleted."""
        target = request.target.digest if request.HasField("target") else ""
        await offload(self._store(call).delete, request.name, target)
        if request.sync:
            try:
                await self._collector.collect()
            except Error as error:  # the image is deleted whatever becomes of the collection (docs/containerd 3.3)
                logger.warning("garbage collection after deleting image %s: %s", request.name, error)
        return Empty()
