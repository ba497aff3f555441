"""The Snapshots service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Protocol

from google.protobuf.empty_pb2 import Empty

from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call, Encoded
from windlass.contracts.snapshots import Info, Kind, Snapshotter
from windlass.gate import offload, take
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2 as pb
from windlass_remote.messages import to_mounts
from windlass_remote.records import to_snapshot
from windlass_services import encoded
from windlass_services.views import Views

BLOCK = 100
"""Snapshots of one message of a list, as in containerd."""
TAKEN = 500
"""Snapshots that one turn in a thread describes."""


class _NamesSnapshotter(Protocol):
    snapshotter: str


class Snapshots:
    """``containerd.services.snapshots.v1.Snapshots``."""

    def __init__(self, metadata: Metadata) -> None:
        """Translate for ``metadata``."""
        self._views = Views(metadata.snapshotter)

    def _view(self, request: _NamesSnapshotter, call: Call) -> Snapshotter:
        return self._views.at(request.snapshotter, call.namespace, call.lease)

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
        return pb.StatSnapshotResponse(info=to_snapshot(await offload(self._view(request, call).stat, request.key)))

    async def update(self, request: pb.UpdateSnapshotRequest, call: Call) -> pb.UpdateSnapshotResponse:
        """Change labels."""
        info = Info(Kind.ACTIVE, request.info.name, labels=dict(request.info.labels))
        paths = list(request.update_mask.paths)
        updated = await offload(self._view(request, call).update, info, paths)
        return pb.UpdateSnapshotResponse(info=to_snapshot(updated))

    async def list(
        self, request: pb.ListSnapshotsRequest, call: Call
    ) -> AsyncIterator[pb.ListSnapshotsResponse | Encoded]:
        """Return all that match, in blocks of 100."""
        view = self._view(request, call)
        if (ready := await encoded.walk(view, request.filters, BLOCK, TAKEN)) is not None:
            async for several in ready:
                yield several
            return
        walk = await offload(view.walk, list(request.filters))
        while block := await offload(take, walk):
            yield pb.ListSnapshotsResponse(info=map(to_snapshot, block))

    async def usage(self, request: pb.UsageRequest, call: Call) -> pb.UsageResponse:
        """Measure a snapshot."""
        usage = await offload(self._view(request, call).usage, request.key)
        return pb.UsageResponse(size=usage.size, inodes=usage.inodes)

    async def cleanup(self, request: pb.CleanupRequest, call: Call) -> Empty:
        """Delete what removal has left."""
        await offload(self._view(request, call).cleanup)
        return Empty()
