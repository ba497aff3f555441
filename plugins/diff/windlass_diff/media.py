"""Which media types this differ takes, and which of them may be compressed (docs/containerd 3.16, "Processors")."""

from __future__ import annotations

from windlass.contracts.diff import LAYER, LAYER_GZIP, LAYER_ZSTD
from windlass.errors import Unimplemented

_OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
_DOCKER_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"

PLAIN = frozenset((LAYER, _OCI_FOREIGN))

# Docker's types without a suffix were used for gzip too; the first bytes decide.
COMPRESSED = frozenset(
    {LAYER_GZIP, LAYER_ZSTD, f"{_OCI_FOREIGN}+gzip", f"{_OCI_FOREIGN}+zstd"}
    | {plain + suffix for plain in (_DOCKER, _DOCKER_FOREIGN) for suffix in ("", ".gzip", ".zstd")}
)


def is_compressed(media_type: str) -> bool:
    """Return whether the blob's first bytes decide how it is read; raises Unimplemented for types unknown here."""
    if media_type in COMPRESSED:
        return True
    if media_type in PLAIN:
        return False
    remedy = "; it needs a stream processor, see [stream_processors]" if media_type.endswith("+encrypted") else ""
    raise Unimplemented(f"media type {media_type[:200]!r} is not a layer that this differ knows{remedy}")
