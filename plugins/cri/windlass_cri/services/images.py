"""``runtime.v1.ImageService``: requests to calls, answers to messages."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping

from windlass.contracts.rpc import Call, Encoded
from windlass.errors import NotFound
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.images.images import Image, Images
from windlass_cri.runtime import CriRuntime
from windlass_cri.views import image_entry, image_item

BATCH = 5000
"""Images of one answer of the streamed list."""
HANDLER = "io.containerd.cri.runtime-handler"
"""The annotation by which older kubelets say for which runtime handler they pull."""


class ImageService:
    """Images for the kubelet."""

    def __init__(self, runtime: CriRuntime) -> None:
        """Serve ``runtime``, once it is ready."""
        self._runtime = runtime

    async def list_images(self, request: cri.ListImagesRequest, call: Call) -> Encoded:
        """List images; the filter is for nothing, as with containerd."""
        images = (await self._runtime.ready()).images
        return Encoded(b"".join(map(image_entry, images.all())))

    async def stream_images(self, request: cri.StreamImagesRequest, call: Call) -> AsyncIterator[Encoded]:
        """List images in parts."""
        found = (await self._runtime.ready()).images.all()
        for start in range(0, len(found), BATCH):
            yield Encoded(b"".join(map(image_entry, found[start : start + BATCH])))

    async def image_status(self, request: cri.ImageStatusRequest, call: Call) -> cri.ImageStatusResponse:
        """Describe an image; one that is not here has no description."""
        images = (await self._runtime.ready()).images
        found = images.find(request.image.image)
        if found is None:
            return cri.ImageStatusResponse()
        info = await _info(images, found) if request.verbose else {}
        return cri.ImageStatusResponse(image=image_item(found), info=info)

    async def pull_image(self, request: cri.PullImageRequest, call: Call) -> cri.PullImageResponse:
        """Pull an image."""
        runtime = await self._runtime.ready()
        handler = request.image.runtime_handler or request.sandbox_config.annotations.get(HANDLER, "")
        snapshotter = runtime.snapshotters.of(handler)
        return cri.PullImageResponse(image_ref=await runtime.pulls.pull(request.image.image, request.auth, snapshotter))

    async def image_fs_info(self, request: cri.ImageFsInfoRequest, call: Call) -> cri.ImageFsInfoResponse:
        """Say how much the snapshots of each snapshotter take."""
        response = cri.ImageFsInfoResponse()
        for usage in (await self._runtime.ready()).usage:
            measured = await usage.total()
            filesystem = response.image_filesystems.add(timestamp=measured.at)
            filesystem.fs_id.mountpoint = usage.root
            filesystem.used_bytes.value = measured.size
            filesystem.inodes_used.value = measured.inodes
        return response

    async def remove_image(self, request: cri.RemoveImageRequest, call: Call) -> cri.RemoveImageResponse:
        """Remove an image with all of its names."""
        await (await self._runtime.ready()).images.remove(request.image.image)
        return cri.RemoveImageResponse()


async def _info(images: Images, image: Image) -> Mapping[str, str]:
    """Return what a verbose status has beyond the image, in containerd's form."""
    try:
        config = json.loads(await images.config(image))
    except NotFound:
        return {}
    return {"info": json.dumps({"chainID": image.chain_id, "imageSpec": config})}
