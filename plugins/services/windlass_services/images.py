"""The Images service."""

from __future__ import annotations

import logging

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.gc import Collector
from windlass.contracts.images import Image, ImageStore
from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call, Encoded
from windlass.errors import Error
from windlass.gate import offload
from windlass.marks import quick
from windlass_api.containerd.services.images.v1 import images_pb2 as pb
from windlass_remote.messages import from_descriptor, from_timestamp
from windlass_remote.records import to_image
from windlass_services import encoded, lists
from windlass_services.views import Views

logger = logging.getLogger(__name__)


def from_proto(message: pb.Image) -> Image:
    """Return an image; its times are ours to set."""
    return Image(message.name, from_descriptor(message.target), dict(message.labels))


class Images:
    """``containerd.services.images.v1.Images``."""

    def __init__(self, metadata: Metadata, collector: Collector) -> None:
        """Translate for ``metadata``, and have ``collector`` run where a deletion is to be waited for."""
        self._metadata = metadata
        self._views = Views(metadata.images)
        self._collector = collector

    def _store(self, call: Call) -> ImageStore:
        return self._metadata.images(call.namespace, call.lease) if call.lease else self._views.of(call)

    @quick
    async def get(self, request: pb.GetImageRequest, call: Call) -> pb.GetImageResponse | Encoded:
        """Return one image."""
        store = self._store(call)
        if (ready := await encoded.get(store, request.name)) is not None:
            return ready
        return pb.GetImageResponse(image=to_image(await offload(store.get, request.name)))

    async def list(self, request: pb.ListImagesRequest, call: Call) -> pb.ListImagesResponse | Encoded:
        """Return all images that match."""
        store = self._store(call)
        if (ready := await encoded.listed(store, request.filters)) is not None:
            return ready
        response = pb.ListImagesResponse()
        await lists.fill(response.images, await offload(store.list, list(request.filters)), to_image)
        return response

    async def create(self, request: pb.CreateImageRequest, call: Call) -> pb.CreateImageResponse:
        """Record an image."""
        at = from_timestamp(request.source_date_epoch) if request.HasField("source_date_epoch") else None
        image = await offload(self._store(call).create, from_proto(request.image), at)
        return pb.CreateImageResponse(image=to_image(image))

    async def update(self, request: pb.UpdateImageRequest, call: Call) -> pb.UpdateImageResponse:
        """Change what the mask names."""
        at = from_timestamp(request.source_date_epoch) if request.HasField("source_date_epoch") else None
        paths = list(request.update_mask.paths)
        image = await offload(self._store(call).update, from_proto(request.image), paths, at)
        return pb.UpdateImageResponse(image=to_image(image))

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
