"""Small blobs, images and snapshots for the cases of a metadata store, and whether they are there."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from windlass.contracts.content import ContentStore
from windlass.contracts.images import Image
from windlass.contracts.metadata import Metadata
from windlass.contracts.snapshots import Snapshotter
from windlass.contracts.values import Descriptor
from windlass.errors import NotFound

INDEX = "application/vnd.oci.image.index.v1+json"
ROOT = "containerd.io/gc.root"
REF = "containerd.io/gc.ref"
EXPIRE = "containerd.io/gc.expire"


def digest_of(data: bytes) -> str:
    """Return the digest of bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put(store: ContentStore, text: str, labels: Mapping[str, str] | None = None) -> str:
    """Write a blob and return its digest."""
    data = text.encode()
    writer = store.writer(f"ref-{digest_of(data)}", len(data), digest_of(data))
    try:
        if not writer.status().offset:  # another namespace may have all of it
            writer.write(data)
        writer.commit(len(data), digest_of(data), labels)
    finally:
        writer.close()
    return digest_of(data)


def image(name: str, text: str, labels: Mapping[str, str] | None = None) -> Image:
    """Return an image that points to the blob of a text."""
    data = text.encode()
    return Image(name, Descriptor(INDEX, digest_of(data), len(data)), labels or {})


def has_blob(store: ContentStore, digest: str) -> bool:
    """Return whether a blob exists."""
    try:
        store.info(digest)
    except NotFound:
        return False
    return True


def has_snapshot(snapshotter: Snapshotter, key: str) -> bool:
    """Return whether a snapshot exists."""
    try:
        snapshotter.stat(key)
    except NotFound:
        return False
    return True


def chain(snapshotter: Snapshotter, *names: str, labels: Mapping[str, str] | None = None) -> None:
    """Commit snapshots one on the other, the last one labelled."""
    parent = ""
    for name in names:
        snapshotter.prepare(f"key of {name}", parent, {ROOT: "now"})
        own = labels if name == names[-1] else None
        snapshotter.commit(name, f"key of {name}", own)
        parent = name


def moment(seconds: float) -> str:
    """Return a time from now, as labels have it."""
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def leased(metadata: Metadata, namespace: str, lease: str) -> set[tuple[str, str]]:
    """Return what a lease holds, as type and ID."""
    return {(each.type, each.id) for each in metadata.leases(namespace).resources(lease)}
