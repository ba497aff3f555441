"""The images of a namespace, over the contract of image stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windlass.contracts.gc import Collector
from windlass.contracts.images import Image, ImageStore
from windlass.contracts.values import Descriptor
from windlass.errors import AlreadyExists, NotFound
from windlass.gate import offload
from windlass.typing import override
from windlass_images.store import Images
from windlass_local.waiting import settled


class LocalImages(Images):
    """Images behind a view of the metadata store."""

    def __init__(self, view: ImageStore, collector: Collector) -> None:
        """Have ``collector`` remove what only a deleted image needed."""
        self._view = view
        self._collector = collector

    @override
    async def get(self, name: str) -> Image:
        return await offload(self._view.get, name)

    @override
    async def list(self, *filters: str) -> Sequence[Image]:
        return await offload(self._view.list, list(filters))

    @override
    async def put(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> Image:
        image = Image(name, target, labels or {})
        while True:
            try:
                return await settled(offload(self._view.create, image))
            except AlreadyExists:
                pass
            try:
                return await settled(offload(self._view.update, image))
            except NotFound:
                pass  # removed in between

    @override
    async def delete(self, name: str, sync: bool = False) -> None:
        await offload(self._view.delete, name)
        if sync:
            await self._collector.collect()
