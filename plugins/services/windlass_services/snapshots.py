"""The Snapshots service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call
from windlass.contracts.snapshots import Info, Kind, Snapshotter
from windlass.gate import offload, take
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2 as pb
from windlass_remote.messages import to_mounts, to_timestamp


def to_proto(info: Info) -> pb.Info:
    """Return a snapshot's description as a message."""
    return pb.Info(
        name=info.name,
        parent=info.parent,
        kind=pb.Kind.ValueType(info.kind),
        created_at=to_timestamp(info.created_at),
        updated_at=to_timestamp(info.updated_at),
        labels=info.labels,
    )


class _NamesSnapshotter(Protocol):
    snapshotter: str


class Snapshots:
    """``containerd.services.snapshots.v1.Snapshots``."""

    def __init__(self, metadata: Metadata) -> None:
        """Translate for ``metadata``."""
        self._metadata = metadata

    def _view(self, request: _NamesSnapshotter, call: Call) -> Snapshotter:
        return self._metadata.snapshotter(request.snapshotter, call.namespace, call.lease)

    async def prepare(self, request: pb.PrepareSnapshotRequest, call: Call) -> pb.PrepareSnapshotResponse:
        """Make an active snapshot."""
        labels = dict(request.labels)
        mounts = await offload(self._view(request, call).prepare, request.key, request.parent, labels)
        return pb.PrepareSnapshotResponse(mounts=to_mounts(mounts))

    async def view(self, request: pb.ViewSnapshotRequest, call: Call) -> pb.ViewSnapshotResponse:
        """Make a read-only snapshot."""
        labels = dict(request.labels)
        mounts = await offload(self._view(request, call).view, request.key, request.parent, labels)
        return pb.ViewSnapshotResponse(mounts=to_mounts(mounts))

    async def mounts(self, request: pb.MountsRequest, call: Call) -> pb.MountsResponse:
        """Return the mounts of a snapshot."""
        mounts = await offload(self._view(request, call).mounts, request.key)
        return pb.MountsResponse(mounts=to_mounts(mounts))

    async def commit(self, request: pb.CommitSnapshotRequest, call: Call) -> Empty:
        """Freeze an active snapshot."""
        labels = dict(request.labels)
        await offload(self._view(request, call).commit, request.name, request.key, labels, request.parent)
        return Empty()

    async def remove(self, request: pb.RemoveSnapshotRequest, call: Call) -> Empty:
        """Remove a snapshot."""
        await offload(self._view(request, call).remove, request.key)
        return Empty()

    async def stat(self, request: pb.StatSnapshotRequest, call: Call) -> pb.StatSnapshotResponse:
        """Describe a snapshot."""
        return pb.StatSnapshotResponse(info=to_proto(await offload(self._view(request, call).stat, request.key)))

    async def update(self, request: pb.UpdateSnapshotRequest, call: Call) -> pb.UpdateSnapshotResponse:
        """Change labels."""
        info = Info(Kind.ACTIVE, request.info.name, labels=dict(request.info.labels))
        paths = list(request.update_mask.paths)
        updated = await offload(self._view(request, call).update, info, paths)
        return pb.UpdateSnapshotResponse(info=to_proto(updated))

    async def list(self, request: pb.ListSnapshotsRequest, call: Call) -> AsyncIterator[pb.ListSnapshotsResponse]:
        """Return all that match, in blocks of 100."""
        view = self._view(request, call)
        walk = await offload(view.walk, list(request.filters))
        while block := await offload(take, walk):
            yield pb.ListSnapshotsResponse(info=map(to_proto, block))

    async def usage(self, request: pb.UsageRequest, call: Call) -> pb.UsageResponse:
        """Measure a snapshot."""
        usage = await offload(self._view(request, call).usage, request.key)
        return pb.UsageResponse(size=usage.size, inodes=usage.inodes)

    async def cleanup(self, request: pb.CleanupRequest, call: Call) -> Empty:
        """Delete what removal has left."""
        await offload(self._view(request, call).cleanup)
        return Empty()
