"""A daemon's namespace, through its API, as what `windlass_images` works on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from windlass.contracts.content import Info as BlobInfo
from windlass.contracts.diff import DETACHED
from windlass.contracts.images import Image
from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Info as SnapshotInfo
from windlass.contracts.snapshots import Kind, Usage
from windlass.contracts.values import Descriptor
from windlass.errors import NotFound
from windlass_api.containerd.services.diff.v1 import diff_pb2
from windlass_api.containerd.services.diff.v1.diff_pb2_grpc import DiffStub
from windlass_api.containerd.services.images.v1 import images_pb2
from windlass_client.client import Client
from windlass_remote.messages import from_descriptor, from_mounts, from_timestamp, to_descriptor, to_mounts

APPLY_TIMEOUT = 1800.0
SNAPSHOTTER = "io.containerd.snapshotter.v1"


class ClientStore:
    """Implements `windlass_images.store.Store`."""

    def __init__(self, client: Client) -> None:
        """Work through ``client``, in its namespace and under its lease."""
        self._client = client
        self.content = ClientContent(client)
        self.images = ClientImages(client)
        self.snapshots = ClientSnapshots(client)

    @property
    def lease_id(self) -> str:
        """The client's lease, empty for none."""
        return self._client.connection.lease

    @asynccontextmanager
    async def lease(self, label: str = "") -> AsyncIterator[ClientStore]:
        """Give a store under a new lease."""
        async with self._client.lease(label=label) as leased:
            yield ClientStore(leased)

    async def apply(self, desc: Descriptor, mounts: Sequence[Mount], detached: bool = False) -> Descriptor:
        """Have the daemon's differ apply a layer."""
        connection = self._client.connection
        request = diff_pb2.ApplyRequest(diff=to_descriptor(desc), mounts=to_mounts(mounts))
        if detached:
            request.payloads[DETACHED].SetInParent()
        applied = (await connection.call(DiffStub(connection.channel).Apply, request, APPLY_TIMEOUT)).applied
        return from_descriptor(applied)


class ClientContent:
    """Implements `windlass_images.store.Content`."""

    def __init__(self, client: Client) -> None:
        self._content = client.content
        self.label = client.content.label
        self.read = client.content.read
        self.head = client.content.head
        self.chunks = client.content.chunks
        self.write = client.content.write

    async def info(self, digest: str) -> BlobInfo:
        """Return size and labels of a blob."""
        info = await self._content.info(digest)
        created, updated = from_timestamp(info.created_at), from_timestamp(info.updated_at)
        return BlobInfo(info.digest, info.size, created, updated, dict(info.labels))


class ClientImages:
    """Implements `windlass_images.store.Images`."""

    def __init__(self, client: Client) -> None:
        self._images = client.images
        self.create = client.images.create
        self.delete = client.images.delete

    async def get(self, name: str) -> Image:
        """Return an image."""
        return _image(await self._images.get(name))

    async def list(self, *filters: str) -> Sequence[Image]:
        """Return the images that match."""
        return [_image(message) for message in await self._images.list(*filters)]

    async def put(self, name: str, target: Descriptor, labels: Mapping[str, str] | None = None) -> Image:
        """Create or change an image."""
        return _image(await self._images.put(name, target, labels))


def _image(message: images_pb2.Image) -> Image:
    created, updated = from_timestamp(message.created_at), from_timestamp(message.updated_at)
    return Image(message.name, from_descriptor(message.target), dict(message.labels), created, updated)


class ClientSnapshots:
    """Implements `windlass_images.store.Snapshots`."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._snapshots = client.snapshots
        self._introspection = client.introspection
        self.remove = client.snapshots.remove

    async def stat(self, snapshotter: str, key: str) -> SnapshotInfo:
        """Return what is known of a snapshot."""
        info = await self._snapshots.stat(snapshotter, key)
        created, updated = from_timestamp(info.created_at), from_timestamp(info.updated_at)
        return SnapshotInfo(Kind(info.kind), info.name, info.parent, dict(info.labels), created, updated)

    async def hold(self, snapshotter: str, name: str) -> None:
        """Have the client's lease keep a snapshot."""
        lease = self._client.connection.lease
        if lease:
            await self._client.leases.add(lease, f"snapshots/{snapshotter}", name)

    async def usage(self, snapshotter: str, key: str) -> Usage:
        """Return what a snapshot itself takes."""
        usage = await self._snapshots.usage(snapshotter, key)
        return Usage(usage.inodes, usage.size)

    async def prepare(
        self, snapshotter: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Mount]:
        """Open a writable snapshot."""
        return from_mounts(await self._snapshots.prepare(snapshotter, key, parent, labels))

    async def view(self, snapshotter: str, key: str, parent: str = "") -> Sequence[Mount]:
        """Open a read-only snapshot."""
        return from_mounts(await self._snapshots.view(snapshotter, key, parent))

    async def commit(
        self, snapshotter: str, name: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> None:
        """Freeze an active snapshot."""
        await self._snapshots.commit(snapshotter, name, key, labels, parent, timeout=APPLY_TIMEOUT)

    async def capabilities(self, snapshotter: str) -> frozenset[str]:
        """Return what the daemon says of a snapshotter."""
        plugins = await self._introspection.plugins(f"type=={SNAPSHOTTER},id=={snapshotter}")
        if not plugins:
            raise NotFound(f"snapshotter {snapshotter} does not exist; `windlass plugins` lists those that do")
        return frozenset(plugins[0].capabilities)
