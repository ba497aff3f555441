"""The snapshots service, one snapshotter named per call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2 as pb
from windlass_api.containerd.services.snapshots.v1.snapshots_pb2_grpc import SnapshotsStub
from windlass_api.containerd.types.mount_pb2 import Mount
from windlass_client.connection import Connection


class Snapshots:
    """Snapshots of the namespace."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = SnapshotsStub(connection.channel)

    async def prepare(
        self, snapshotter: str, key: str, parent: str = "", labels: Mapping[str, str] | None = None
    ) -> Sequence[Mount]:
        """Open a writable snapshot over a committed parent and return its mounts."""
        request = pb.PrepareSnapshotRequest(snapshotter=snapshotter, key=key, parent=parent, labels=labels or {})
        return (await self._connection.call(self._stub.Prepare, request)).mounts

    async def view(self, snapshotter: str, key: str, parent: str = "") -> Sequence[Mount]:
        """Open a read-only snapshot over a committed parent and return its mounts."""
        request = pb.ViewSnapshotRequest(snapshotter=snapshotter, key=key, parent=parent)
        return (await self._connection.call(self._stub.View, request)).mounts

    async def mounts(self, snapshotter: str, key: str) -> Sequence[Mount]:
        """Return the mounts of an active snapshot or a view."""
        request = pb.MountsRequest(snapshotter=snapshotter, key=key)
        return (await self._connection.call(self._stub.Mounts, request)).mounts

    async def commit(
        self,
        snapshotter: str,
        name: str,
        key: str,
        labels: Mapping[str, str] | None = None,
        parent: str = "",
        timeout: float = 0,
    ) -> None:
        """Freeze an active snapshot under a name, rebased onto ``parent`` if given; its key is free afterwards."""
        request = pb.CommitSnapshotRequest(
            snapshotter=snapshotter, name=name, key=key, labels=labels or {}, parent=parent
        )
        await self._connection.call(self._stub.Commit, request, timeout)

    async def remove(self, snapshotter: str, key: str) -> None:
        """Remove a snapshot that has no children. Raises NotFound."""
        await self._connection.call(self._stub.Remove, pb.RemoveSnapshotRequest(snapshotter=snapshotter, key=key))

    async def stat(self, snapshotter: str, key: str) -> pb.Info:
        """Return what is known of a snapshot. Raises NotFound."""
        request = pb.StatSnapshotRequest(snapshotter=snapshotter, key=key)
        return (await self._connection.call(self._stub.Stat, request)).info

    async def label(self, snapshotter: str, key: str, labels: Mapping[str, str]) -> None:
        """Set labels of a snapshot; an empty value removes one."""
        info = pb.Info(name=key, labels=labels)
        mask = FieldMask(paths=[f"labels.{label}" for label in labels])
        request = pb.UpdateSnapshotRequest(snapshotter=snapshotter, info=info, update_mask=mask)
        await self._connection.call(self._stub.Update, request)

    async def list(self, snapshotter: str, *filters: str) -> Sequence[pb.Info]:
        """Return the snapshots that match one of the filters."""
        request = pb.ListSnapshotsRequest(snapshotter=snapshotter, filters=filters)
        return [info async for block in self._connection.stream(self._stub.List, request) for info in block.info]

    async def usage(self, snapshotter: str, key: str) -> pb.UsageResponse:
        """Return bytes and inodes that a snapshot itself takes."""
        return await self._connection.call(self._stub.Usage, pb.UsageRequest(snapshotter=snapshotter, key=key))
