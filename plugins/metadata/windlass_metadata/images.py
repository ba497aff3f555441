"""Images, named pointers to descriptors (docs/containerd 3.3)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from windlass.contracts.images import Image, ImageStore
from windlass.contracts.leases import LABEL_EXPIRE
from windlass.contracts.values import check_digest, check_label_keys, check_labels
from windlass.errors import InvalidArgument, NotFound
from windlass.filters.fieldpaths import kept_labels, updated_map
from windlass.typing import override
from windlass_api.containerd.services.images.v1.events_pb2 import ImageCreate, ImageDelete, ImageUpdate
from windlass_metadata import nodes
from windlass_metadata.columns import descriptor, strings
from windlass_metadata.encoded import framed
from windlass_metadata.fields import Mutable, Visible, labels
from windlass_metadata.ledger import Ledger
from windlass_metadata.records import Events, Kind, Records
from windlass_metadata.request_lease import RequestLease
from windlass_metadata.table import Table
from windlass_remote.records import to_image


def check_image(image: Image) -> None:
    """Raise InvalidArgument unless an image may be recorded as it is."""
    if not image.name:
        raise InvalidArgument("image name must not be empty")
    if not image.target.digest:
        raise InvalidArgument(f"image {image.name}: the digest of its target must not be empty")
    check_digest(image.target.digest)
    if image.target.size <= 0:
        raise InvalidArgument(f"image {image.name}: the size of its target must be greater than zero")
    if not image.target.media_type:
        raise InvalidArgument(f"image {image.name}: the media type of its target must not be empty")
    check_label_keys(image.target.annotations, "annotation")
    check_labels(image.labels)


def _annotations(current: Image, wanted: Image, path: str, what: str) -> Image:
    """Change the annotations of the target."""
    annotations = updated_map("annotations", current.target.annotations, wanted.target.annotations, [path], what)
    return replace(current, target=replace(current.target, annotations=annotations))


def _encoded(image: Image) -> bytes:
    message = to_image(image)
    return framed(message, message.labels, message.target.annotations)


IMAGES = Kind(
    Table(
        "images",
        "image",
        Image,
        (descriptor("target"), strings("labels")),
        encoded=_encoded,
    ),
    key=lambda image: image.name,
    node=nodes.image,
    check=check_image,
    visible=Visible(
        {"name": "name", "target.digest": "target.digest", "target.mediatype": "target.media_type"},
        {"labels": "labels", "annotations": "target.annotations"},
    ),
    mutable=Mutable({"labels": labels, "annotations": _annotations}, {"target": ("target",)}),
    events=Events(
        "/images",
        lambda image: ImageCreate(name=image.name, labels=image.labels),
        lambda image: ImageUpdate(name=image.name, labels=image.labels),
        lambda name: ImageDelete(name=name),
    ),
    update_makes_garbage=True,
)


class Images(Records[Image], ImageStore):
    """One namespace's images."""

    def __init__(self, ledger: Ledger, namespace: str, lease: str) -> None:
        """Read and write ``ledger``; what is recorded is held by ``lease`` if it may expire."""
        super().__init__(IMAGES, ledger, namespace)
        self._lease = RequestLease(ledger, namespace, lease)

    @override
    def update(self, image: Image, fieldpaths: Sequence[str] = (), at: int | None = None) -> Image:
        if not image.name:
            raise InvalidArgument("image name must not be empty")
        return super().update(image, fieldpaths, at)

    @override
    def delete(self, name: str, target: str = "") -> None:
        def let_go(db: sqlite3.Connection, image: Image) -> None:
            if target and image.target.digest != target:
                raise NotFound(f"image {name} points to {image.target.digest}, not to {target}")
            self._lease.let_go(db, "images", name)

        self._delete(name, let_go)

    @override
    def _write(self, db: sqlite3.Connection, image: Image) -> Image:
        target = replace(image.target, annotations=kept_labels(image.target.annotations), platform=None)
        kept = super()._write(db, replace(image, target=target))
        if LABEL_EXPIRE in kept.labels:  # others are roots of their own
            self._lease.require(db)
            self._lease.hold(db, "images", kept.name)
        return kept
