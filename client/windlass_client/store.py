"""A daemon's namespace, through its API, as what `windlass_images` works on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cached_property

from windlass.contracts.content import Info as BlobInfo
from windlass.contracts.diff import DETACHED
from windlass.contracts.images import Image
from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Info as SnapshotInfo
from windlass.contracts.snapshots import Kind, Usage
from windlass.contracts.values import Descriptor
from windlass.errors import NotFound
from windlass.typing import override
from windlass_api.containerd.services.diff.v1 import diff_pb2
from windlass_api.containerd.services.diff.v1.diff_pb2_grpc import DiffStub
from windlass_api.containerd.services.images.v1 import images_pb2
from windlass_client.client import Client
from windlass_images.store import Content, Images, Snapshots, Store
from windlass_remote.messages import from_descriptor, from_mounts, from_timestamp, to_descriptor, to_mounts

APPLY_TIMEOUT = 1800.0
SNAPSHOTTER = "io.containerd.snapshotter.v1"


class ClientStore(Store):
    """One namespace behind a connection."""

    def __init__(self, client: Client) -> None:
        """Work through ``client``, in its namespace and under its lease."""
        self._client = client

    @cached_property
    @override
    def content(self) -> ClientContent:
        return ClientContent(self._client)

    @cached_property
    @override
    def images(self) -> ClientImages:
        return ClientImages(self._client)

    @cached_property
    @override
    def snapshots(self) -> ClientSnapshots:
        return ClientSnapshots(self._client)

    @property
    @override
    def lease_id(self) -> str:
        return self._client.connection.lease

    @override
    @asynccontextmanager
    async def lease(self, label: str = "") -> AsyncIterator[ClientStore]:
        async with self._client.lease(label=label) as leased:
            yield ClientStore(leased)

    @override
    async def apply(self, desc: Descriptor, mounts: Sequence[Mount], detached: bool = False) -> Descriptor:
        connection = self._client.connection
        request = diff_pb2.ApplyRequest(diff=to_descriptor(desc), mounts=to_mounts(mounts))
        if detached:
            request.payloads[DETACHED].SetInParent()
        applied = (await connection.call(DiffStub(connection.channel).Apply, request, APPLY_TIMEOUT)).applied
        return from_descriptor(applied)


class ClientContent(Content):
    """Blobs, as messages of the content service."""

    def __init__(self, client: Client) -> None:
        self._content = client.content

    @override
    async def info(self, digest: str) -> BlobInfo:
        info = await self._content.info(digest)
        created, updated = from_timestamp(info.created_at), from_timestamp(info.updated_at)
        return BlobInfo(info.digest, info.size, created, updated, dict(info.labels))

    @override
    async def label(self, digest: str, labels: Mapping[str, str]) -> None:
        await self._content.label(digest, labels)

    @override
    async def read(self, digest: str, limit: int) -> bytes:
        return await self._content.read(digest, limit)

    @override
    async def head(self, digest: str, size: int) -> bytes:
        return await self._content.head(digest, size)

    @override
    def chunks(self, digest: str) -> AsyncIterator[bytes]:
        return self._content.chunks(digest)

    @override
    async def write(
        self,
        ref: str,
        chunks: AsyncIterator[bytes],
        size: int,
        expected: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> str:
        return await self._content.write(ref, chunks, size, expected, labels)


class ClientImages(Images):
    """Images, as messages of the images service."""

    def __init__(self, client: Client) -> None:
        self._images = client.images

    @override
    async def get(self, name: str) -> Image:
        return _image(await self._images.get(name))

    @override
    async def list(self, *filters: str) -> Sequence[Image]:
        return [_image(message) for message in await self._images.list(*filters)]

    async def create(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> Image:
        """Create an image. Raises AlreadyExists."""
        return _image(await self._images.create(name, target, labels))

    @override
    async def put(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> Image:
        return _image(await self._images.put(name, target, labels))

    @override
    async def delete(self, name: str, sync: bool = False) -> None:
        await self._images.delete(name, sync)


def _image(message: images_pb2.Image) -> Image:
    created, updated = from_timestamp(message.created_at), from_timestamp(message.updated_at)
    return Image(message.name, from_descriptor(message.target), dict(message.labels), created, updated)


class ClientSnapshots(Snapshots):
    """Snapshots, as messages of the snapshots service."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._snapshots = client.snapshots

    @override
    async def stat(self, snapshotter: str, key: str) -> SnapshotInfo:
        info = await self._snapshots.stat(snapshotter, key)
        created, updated = from_timestamp(info.created_at), from_timestamp(info.updated_at)
        return SnapshotInfo(Kind(info.kind), info.name, info.parent, dict(info.labels), created, updated)

    @override
    async def hold(self, snapshotter: str, name: str) -> None:
        lease = self._client.connection.lease
        if lease:
            await self._client.leases.add(lease, f"snapshots/{snapshotter}", name)

    @override
    async def usage(self, snapshotter: str, key: str) -> Usage:
        usage = await self._snapshots.usage(snapshotter, key)
        return Usage(usage.inodes, usage.size)

    @override
    async def prepare(
        self, snapshotter: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Mount]:
        return from_mounts(await self._snapshots.prepare(snapshotter, key, parent, labels))

    @override
    async def view(self, snapshotter: str, key: str, parent: str = "") -> Sequence[Mount]:
        return from_mounts(await self._snapshots.view(snapshotter, key, parent))

    @override
    async def commit(
        self, snapshotter: str, name: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> None:
        await self._snapshots.commit(snapshotter, name, key, labels, parent, timeout=APPLY_TIMEOUT)

    @override
    async def remove(self, snapshotter: str, key: str) -> None:
        await self._snapshots.remove(snapshotter, key)

    @override
    async def capabilities(self, snapshotter: str) -> frozenset[str]:
        plugins = await self._client.introspection.plugins(f"type=={SNAPSHOTTER},id=={snapshotter}")
        if not plugins:
            raise NotFound(f"snapshotter {snapshotter} does not exist; `windlass plugins` lists those that do")
        return frozenset(plugins[0].capabilities)
