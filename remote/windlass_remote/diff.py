"""A differ behind a socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from windlass.contracts.content import ContentStore
from windlass.contracts.diff import CompareOptions
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor, Payload
from windlass_api.containerd.services.diff.v1 import diff_pb2 as pb
from windlass_api.containerd.services.diff.v1.diff_pb2_grpc import DiffStub
from windlass_remote.messages import any_of, from_descriptor, to_descriptor, to_mounts, to_timestamp
from windlass_remote.peer import Peer

TIMEOUT = 4 * 3600.0
"""Seconds for one layer: how long is the peer's to say, which alone sees its progress."""


class RemoteDiffer:
    """A `windlass.contracts.diff.Differ`; blobs are those that the peer finds by their namespace."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._stub = DiffStub(peer.channel)

    def apply(
        self,
        content: ContentStore,
        desc: Descriptor,
        mounts: Sequence[Mount],
        payloads: Mapping[str, Payload] | None = None,
        sync_fs: bool = False,
    ) -> Descriptor:
        """Have a layer applied."""
        given = {key: any_of(payload) for key, payload in (payloads or {}).items()}
        request = pb.ApplyRequest(diff=to_descriptor(desc), mounts=to_mounts(mounts), payloads=given, sync_fs=sync_fs)
        return from_descriptor(self._peer.call(self._stub.Apply, request, TIMEOUT, _namespace(content)).applied)

    def compare(
        self, content: ContentStore, lower: Sequence[Mount], upper: Sequence[Mount], options: CompareOptions
    ) -> Descriptor:
        """Have a layer made."""
        epoch = None if options.source_date_epoch is None else to_timestamp(options.source_date_epoch)
        request = pb.DiffRequest(
            left=to_mounts(lower),
            right=to_mounts(upper),
            media_type=options.media_type,
            ref=options.ref,
            labels=options.labels,
            source_date_epoch=epoch,
        )
        return from_descriptor(self._peer.call(self._stub.Diff, request, TIMEOUT, _namespace(content)).diff)


def _namespace(content: ContentStore) -> str:
    """Return the namespace that a store is a view of, empty if it is none."""
    return str(getattr(content, "namespace", ""))
