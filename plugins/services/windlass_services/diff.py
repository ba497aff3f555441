"""The Diff service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from windlass.contracts.diff import LAYER_GZIP, CompareOptions, Differ
from windlass.contracts.metadata import Metadata
from windlass.contracts.rpc import Call
from windlass.errors import Unimplemented
from windlass.gate import offloaded
from windlass_api.containerd.services.diff.v1 import diff_pb2 as pb
from windlass_remote.messages import from_descriptor, from_mounts, from_timestamp, payloads, to_descriptor

R = TypeVar("R")


class Diff:
    """``containerd.services.diff.v1.Diff``; asks differs in the configured order (docs/containerd 2.4)."""

    def __init__(self, metadata: Metadata, differs: Mapping[str, Differ], order: Sequence[str], sync_fs: bool) -> None:
        """Translate for those of ``differs`` that ``order`` names."""
        self._metadata = metadata
        self._differs = [differs[name] for name in order]
        self._sync_fs = sync_fs

    async def apply(self, request: pb.ApplyRequest, call: Call) -> pb.ApplyResponse:
        """Apply a layer. There is no deadline here: the differ watches the progress."""
        content = self._metadata.content(call.namespace, call.lease)
        desc, mounts = from_descriptor(request.diff), from_mounts(request.mounts)
        given, sync = payloads(request.payloads), request.sync_fs or self._sync_fs
        applied = await self._first(lambda differ: differ.apply(content, desc, mounts, given, sync))
        return pb.ApplyResponse(applied=to_descriptor(applied))

    async def diff(self, request: pb.DiffRequest, call: Call) -> pb.DiffResponse:
        """Make a layer."""
        content = self._metadata.content(call.namespace, call.lease)
        lower, upper = from_mounts(request.left), from_mounts(request.right)
        epoch = from_timestamp(request.source_date_epoch) if request.HasField("source_date_epoch") else None
        options = CompareOptions(request.media_type or LAYER_GZIP, request.ref, dict(request.labels), epoch)
        made = await self._first(lambda differ: differ.compare(content, lower, upper, options))
        return pb.DiffResponse(diff=to_descriptor(made))

    async def _first(self, call: Callable[[Differ], R]) -> R:
        """Return what the first differ that knows the media type answers."""
        problem = Unimplemented("no differ is configured")
        for differ in self._differs:
            try:
                return await offloaded(call, deadline=None)(differ)
            except Unimplemented as error:
                problem = error
        raise problem
