"""Images, named pointers to descriptors (docs/containerd 3.3)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from windlass.contracts.images import Image, ImageStore
from windlass.contracts.leases import LABEL_EXPIRE
from windlass.contracts.values import Descriptor, check_digest, check_label_keys, check_labels
from windlass.errors import AlreadyExists, InvalidArgument, NotFound
from windlass.filters import expressions as filter_expressions
from windlass.filters.fieldpaths import kept_labels, selects, updated_map
from windlass.plugin import quick
from windlass_api.containerd.services.images.v1.events_pb2 import ImageCreate, ImageDelete, ImageUpdate
from windlass_metadata import nodes
from windlass_metadata.ledger import Ledger, ensure_namespace, hold, let_go, require_lease
from windlass_metadata.rows import decode_map, encode_map, now

COLUMNS = "name, media_type, digest, size, annotations, labels, created_at, updated_at"


class Images(ImageStore):
    """One namespace's images."""

    def __init__(self, ledger: Ledger, namespace: str, lease: str) -> None:
        """Read and write ``ledger``; what is recorded is held by ``lease`` if it may expire."""
        self._ledger = ledger
        self._namespace = namespace
        self._lease = lease

    @quick
    def get(self, name: str) -> Image:
        """See the contract."""
        with self._ledger.read() as db:
            return self._existing(db, name)

    def list(self, filters: Sequence[str] = ()) -> list[Image]:
        """See the contract."""
        accepts = filter_expressions.parse(filters)
        query = f"SELECT {COLUMNS} FROM images WHERE namespace = ? ORDER BY name"  # noqa: S608 - columns of ours
        with self._ledger.read() as db:
            found = db.execute(query, (self._namespace,)).fetchall()
        images = [_image(*row) for row in found]
        return [image for image in images if accepts(adaptor(image))]

    def create(self, image: Image, at: int | None = None) -> Image:
        """See the contract."""
        check_image(image)
        moment = now() if at is None else at

        def insert(db: sqlite3.Connection) -> Image:
            if self._find(db, image.name):
                raise AlreadyExists(f"image {image.name} already exists")
            ensure_namespace(db, self._namespace)
            return self._write(db, replace(image, created_at=moment, updated_at=moment))

        created = self._ledger.change(insert)
        event = ImageCreate(name=created.name, labels=created.labels)
        self._ledger.publish(self._namespace, "/images/create", event)
        return created

    def update(self, image: Image, fieldpaths: Sequence[str] = (), at: int | None = None) -> Image:
        """See the contract."""
        if not image.name:
            raise InvalidArgument("image name must not be empty")

        def write(db: sqlite3.Connection) -> Image:
            current = self._existing(db, image.name)
            changed = replace(
                masked(current, image, fieldpaths),
                created_at=current.created_at,
                updated_at=now() if at is None else at,
            )
            check_image(changed)
            return self._write(db, changed)

        updated = self._ledger.change(write, deletion=True)
        event = ImageUpdate(name=updated.name, labels=updated.labels)
        self._ledger.publish(self._namespace, "/images/update", event)
        return updated

    def delete(self, name: str, target: str = "") -> None:
        """See the contract."""

        def remove(db: sqlite3.Connection) -> None:
            image = self._existing(db, name)
            if target and image.target.digest != target:
                raise NotFound(f"image {name} points to {image.target.digest}, not to {target}")
            db.execute("DELETE FROM images WHERE namespace = ? AND name = ?", (self._namespace, name))
            let_go(db, self._namespace, self._lease, "images", name)

        self._ledger.change(remove, deletion=True)
        self._ledger.publish(self._namespace, "/images/delete", ImageDelete(name=name))

    def _find(self, db: sqlite3.Connection, name: str) -> Image | None:
        query = f"SELECT {COLUMNS} FROM images WHERE namespace = ? AND name = ?"  # noqa: S608 - columns of ours
        row = db.execute(query, (self._namespace, name)).fetchone()
        return row and _image(*row)

    def _existing(self, db: sqlite3.Connection, name: str) -> Image:
        image = self._find(db, name)
        if image is None:
            raise NotFound(f"image {name} does not exist")
        return image

    def _write(self, db: sqlite3.Connection, image: Image) -> Image:
        target = replace(image.target, annotations=kept_labels(image.target.annotations), platform=None)
        image = replace(image, target=target, labels=kept_labels(image.labels))
        db.execute(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._namespace,
                image.name,
                target.media_type,
                target.digest,
                target.size,
                encode_map(target.annotations),
                encode_map(image.labels),
                image.created_at,
                image.updated_at,
            ),
        )
        self._ledger.touch(nodes.image(self._namespace, image.name))
        if LABEL_EXPIRE in image.labels:  # others are roots of their own
            require_lease(db, self._namespace, self._lease)
            hold(self._ledger, db, self._namespace, self._lease, "images", image.name)
        return image


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


def masked(current: Image, image: Image, fieldpaths: Sequence[str]) -> Image:
    """Return ``current`` with the fields of ``image`` that ``fieldpaths`` name; without any, all but the name."""
    if not fieldpaths:
        return image
    labels, target = current.labels, current.target
    for path in fieldpaths:
        if path == "target":
            target = image.target
        elif selects(path, "labels"):
            labels = updated_map("labels", labels, image.labels, [path], f"image {image.name}")
        elif selects(path, "annotations"):
            changes = image.target.annotations
            annotations = updated_map("annotations", target.annotations, changes, [path], f"image {image.name}")
            target = replace(target, annotations=annotations)
        else:
            raise InvalidArgument(
                f"cannot update field {path[:128]!r} of image {image.name}: "
                "only labels, annotations and target can change"
            )
    return replace(current, labels=labels, target=target)


def adaptor(image: Image) -> filter_expressions.Adaptor:
    """Show an image to a filter."""

    def field(path: Sequence[str]) -> tuple[str, bool]:
        match path:
            case ["name"]:
                return filter_expressions.value_of(image.name)
            case ["target", "digest"]:
                return filter_expressions.value_of(image.target.digest)
            case ["target", "mediatype"]:
                return filter_expressions.value_of(image.target.media_type)
            case ["labels", *_]:
                return filter_expressions.label_of(image.labels, path)
            case ["annotations", *_]:
                return filter_expressions.label_of(image.target.annotations, path)
        return filter_expressions.ABSENT

    return field


def _image(
    name: str, media_type: str, digest: str, size: int, annotations: str, labels: str, created: int, updated: int
) -> Image:
    target = Descriptor(media_type, digest, size, decode_map(annotations))
    return Image(name, target, decode_map(labels), created, updated)
