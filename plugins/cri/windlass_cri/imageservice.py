"""``runtime.v1.ImageService``: requests to calls, answers to messages. What is missing here is UNIMPLEMENTED."""

from __future__ import annotations

from windlass.contracts.rpc import Call
from windlass_api.runtime.v1 import api_pb2 as cri
from windlass_cri.runtime import CriRuntime
from windlass_cri.views import image_item


class ImageService:
    """Images for the kubelet."""

    def __init__(self, runtime: CriRuntime) -> None:
        """Serve ``runtime``, once it is ready."""
        self._runtime = runtime

    async def list_images(self, request: cri.ListImagesRequest, call: Call) -> cri.ListImagesResponse:
        """List images."""
        images = (await self._runtime.ready()).images
        await images.refresh()
        return cri.ListImagesResponse(images=map(image_item, images.all()))

    async def image_status(self, request: cri.ImageStatusRequest, call: Call) -> cri.ImageStatusResponse:
        """Describe an image; one that is not here has no description."""
        images = (await self._runtime.ready()).images
        await images.refresh()
        found = images.find(request.image.image)
        return cri.ImageStatusResponse(image=image_item(found) if found else None)

    async def pull_image(self, request: cri.PullImageRequest, call: Call) -> cri.PullImageResponse:
        """Pull an image."""
        images = (await self._runtime.ready()).images
        return cri.PullImageResponse(image_ref=await images.pull(request.image.image, request.auth))

    async def image_fs_info(self, request: cri.ImageFsInfoRequest, call: Call) -> cri.ImageFsInfoResponse:
        """Say how much the snapshots take."""
        usage = (await self._runtime.ready()).usage
        measured = await usage.total()
        filesystem = cri.FilesystemUsage(timestamp=measured.at)
        filesystem.fs_id.mountpoint = usage.root
        filesystem.used_bytes.value = measured.size
        filesystem.inodes_used.value = measured.inodes
        return cri.ImageFsInfoResponse(image_filesystems=[filesystem], container_filesystems=[filesystem])

    async def remove_image(self, request: cri.RemoveImageRequest, call: Call) -> cri.RemoveImageResponse:
        """Remove an image with all of its names."""
        await (await self._runtime.ready()).images.remove(request.image.image)
        return cri.RemoveImageResponse()
