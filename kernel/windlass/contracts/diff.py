"""Contract: differs, which turn layers into directory trees and trees into layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Protocol

from windlass.contracts.content import ContentStore
from windlass.contracts.mounts import Mount
from windlass.contracts.values import Descriptor, Payload
from windlass.plugin import PluginType, contract
from windlass.records import dataclass

LAYER = "application/vnd.oci.image.layer.v1.tar"
LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
LABEL_UNCOMPRESSED = "containerd.io/uncompressed"
"""On a compressed layer's blob: its diff ID."""
DETACHED = "io.windlass.detached"
"""Among the payloads of `Differ.apply`: what is below the layer will be there only later.

A differ that knows it refuses, with FailedPrecondition, a layer that would come out otherwise on what is below it.
"""


@dataclass(frozen=True)
class StreamProcessor:
    """A program that turns a layer of one media type into one of another: section ``stream_processors``."""

    #: Media types that it reads.
    accepts: list[str] = field(default_factory=list)
    #: Media type that it writes.
    returns: str = ""
    path: str = ""
    args: list[str] = field(default_factory=list)
    env: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How `Differ.compare` writes its layer; ``source_date_epoch`` is in nanoseconds, None is not to clamp."""

    media_type: str = LAYER_GZIP
    ref: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    source_date_epoch: int | None = None


@contract
class Differ(Protocol):
    """Applies and makes layers. Synchronous, thread-safe; both calls may take minutes."""

    def apply(
        self,
        content: ContentStore,
        desc: Descriptor,
        mounts: Sequence[Mount],
        payloads: Mapping[str, Payload] | None = None,
        sync_fs: bool = False,
    ) -> Descriptor:
        """Apply the layer ``desc`` onto ``mounts``; return type, diff ID and size of its plain tar.

        Raises Unimplemented for a media type that this differ does not know (the next
        one is tried), InvalidArgument for an archive that is damaged or tries to leave
        the target. What was written until then is the caller's to discard.
        """
        ...

    def compare(
        self, content: ContentStore, lower: Sequence[Mount], upper: Sequence[Mount], options: CompareOptions
    ) -> Descriptor:
        """Write the layer that turns ``lower`` into ``upper`` to ``content`` and describe it."""
        ...


DIFFER: PluginType[Differ] = PluginType("io.containerd.differ.v1", Differ)
