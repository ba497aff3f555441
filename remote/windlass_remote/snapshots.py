"""A snapshotter behind a socket."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from google.protobuf.field_mask_pb2 import FieldMask

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Info, Kind, Usage
from windlass.errors import Internal
from windlass_api.containerd.services.snapshots.v1 import snapshots_pb2 as pb
from windlass_api.containerd.services.snapshots.v1.snapshots_pb2_grpc import SnapshotsStub
from windlass_remote.messages import from_mounts, from_timestamp
from windlass_remote.peer import Peer

WALK_TIMEOUT = 600.0
"""Seconds that a walk may take, with what is done about each snapshot meanwhile."""


class RemoteSnapshotter:
    """A `windlass.contracts.snapshots.Snapshotter`: ``name``, of the peer's."""

    def __init__(self, peer: Peer, name: str) -> None:
        self._peer = peer
        self._name = name
        self._stub = SnapshotsStub(peer.channel)

    def stat(self, key: str) -> Info:
        """Describe a snapshot of any kind."""
        request = pb.StatSnapshotRequest(snapshotter=self._name, key=key)
        return from_info(self._peer.call(self._stub.Stat, request).info)

    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        """Change labels."""
        wanted = pb.Info(name=info.name, parent=info.parent, kind=pb.Kind.ValueType(info.kind), labels=info.labels)
        mask = FieldMask(paths=fieldpaths) if fieldpaths else None
        request = pb.UpdateSnapshotRequest(snapshotter=self._name, info=wanted, update_mask=mask)
        return from_info(self._peer.call(self._stub.Update, request).info)

    def usage(self, key: str) -> Usage:
        """Measure a snapshot."""
        found = self._peer.call(self._stub.Usage, pb.UsageRequest(snapshotter=self._name, key=key))
        return Usage(found.inodes, found.size)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """Return the mounts of an active snapshot or view."""
        request = pb.MountsRequest(snapshotter=self._name, key=key)
        return from_mounts(self._peer.call(self._stub.Mounts, request).mounts)

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Make an active snapshot."""
        request = pb.PrepareSnapshotRequest(snapshotter=self._name, key=key, parent=parent, labels=labels)
        return from_mounts(self._peer.call(self._stub.Prepare, request).mounts)

    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """Make a read-only snapshot."""
        request = pb.ViewSnapshotRequest(snapshotter=self._name, key=key, parent=parent, labels=labels)
        return from_mounts(self._peer.call(self._stub.View, request).mounts)

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        """Freeze an active snapshot."""
        request = pb.CommitSnapshotRequest(snapshotter=self._name, name=name, key=key, labels=labels, parent=parent)
        self._peer.call(self._stub.Commit, request)

    def remove(self, key: str) -> None:
        """Remove a snapshot."""
        self._peer.call(self._stub.Remove, pb.RemoveSnapshotRequest(snapshotter=self._name, key=key))

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        """Yield what matches, as it arrives."""
        request = pb.ListSnapshotsRequest(snapshotter=self._name, filters=filters)
        blocks = self._peer.stream(self._stub.List, request, WALK_TIMEOUT)
        return (from_info(info) for block in blocks for info in block.info)

    def cleanup(self) -> None:
        """Have deleted what removal has left."""
        self._peer.call(self._stub.Cleanup, pb.CleanupRequest(snapshotter=self._name))


def from_info(message: pb.Info) -> Info:
    """Return a snapshot's description; raises Internal for a kind that there is not."""
    try:
        kind = Kind(message.kind)
    except ValueError:
        raise Internal(
            f"snapshot {message.name[:200]!r} is said to be of kind {message.kind}, which there is not"
        ) from None
    return Info(
        kind,
        message.name,
        message.parent,
        dict(message.labels),
        from_timestamp(message.created_at),
        from_timestamp(message.updated_at),
    )
