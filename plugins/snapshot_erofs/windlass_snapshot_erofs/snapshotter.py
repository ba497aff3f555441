"""Snapshots as images, one on the other; `windlass_snapshot_erofs.layers` says how they are shown."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Kind, Usage
from windlass.errors import NotFound
from windlass.typing import override
from windlass_snapshot_erofs import images as images_module
from windlass_snapshot_erofs import layers
from windlass_snapshot_erofs.images import Images
from windlass_snapshot_erofs.layers import CONVERTED, IMAGE, MARK, Features
from windlass_storage import trees, upper_directories
from windlass_storage.metastore import Record
from windlass_storage.snapshot_directories import DirectorySnapshotter
from windlass_storage.upper_directories import UPPER, WORK, owner_of

logger = logging.getLogger(__name__)


class ErofsSnapshotter(DirectorySnapshotter):
    """Keeps snapshots as EROFS images, and shows them with overlayfs."""

    def __init__(self, root: Path, images: Images, features: Features, mount_options: Sequence[str] = ()) -> None:
        """Keep snapshots below ``root``."""
        super().__init__(root)
        self._images = images
        self._features = features
        self._mount_options = tuple(mount_options)

    @override
    def usage(self, key: str) -> Usage:
        record = self._store.lookup(key)
        if record.kind != Kind.ACTIVE:
            return record.usage
        directory = self._directories.path(record.id)
        return _size(directory / IMAGE) if self._is_image(directory) else trees.measure(directory / UPPER)

    @override
    def mounts(self, key: str) -> tuple[Mount, ...]:
        return self._mounts(self._store.get(key))

    @override
    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        return self._mounts(self._create(Kind.ACTIVE, key, parent, labels or {}))

    @override
    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        return self._mounts(self._create(Kind.VIEW, key, parent, labels or {}))

    @override
    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        record = self._store.lookup(key)
        directory = self._directories.path(record.id)
        image = directory / IMAGE
        if record.kind == Kind.ACTIVE and not self._is_image(directory):
            # First the mark: an image that a commit which failed has left may be out of date.
            (directory / CONVERTED).touch()
            self._images.make(directory / UPPER, image)
        usage = _size(image) if record.kind == Kind.ACTIVE else Usage(0, 0)
        self._store.commit(name, key, usage, labels, parent)
        self._images.seal(image)
        self._strip(directory)

    @override
    def remove(self, key: str) -> None:
        """Remove a snapshot; its files at the next cleanup."""
        record = self._directories.remove(key, now=False)
        images_module.thaw(self._directories.path(record.id) / IMAGE)

    @override
    def cleanup(self) -> None:
        for info in self._store.walk(["kind==committed"]):
            with suppress(NotFound):
                self._strip(self._directories.path(self._store.lookup(info.name).id))
        self._thaw_unknown()
        self._directories.cleanup()

    def _create(self, kind: Kind, key: str, parent: str, labels: Mapping[str, str]) -> Record:
        def fill(directory: Path, parents: Sequence[int]) -> None:
            below = self._directories.path(parents[0]) if parents else None
            upper_directories.make(directory, kind, owner_of(labels, below, self._features.remap_ids))
            if kind == Kind.ACTIVE:
                (directory / MARK).touch()

        return self._directories.create(kind, key, parent, labels, fill)

    def _is_image(self, directory: Path) -> bool:
        """Return whether the differ has put an image there."""
        return (directory / IMAGE).exists() and not (directory / CONVERTED).exists()

    def _strip(self, directory: Path) -> None:
        """Delete what an image was made of; an empty directory stays, to tell the owner of its root."""
        work, upper = directory / WORK, directory / UPPER
        if not work.exists():
            return
        try:
            trees.empty(upper)
            for left in directory.glob(f".{IMAGE}-*"):
                # Of a daemon that died while it made the image.
                left.unlink(missing_ok=True)
            trees.remove(work)
        except OSError as error:
            logger.warning("what %s was made of stays until the next cleanup: %s", directory / IMAGE, error)

    def _thaw_unknown(self) -> None:
        """Let images be deleted whose rows are gone, should a crash have left them immutable."""
        top = self._directories.path(0).parent
        with self._store.ids_held() as ids:
            doomed = [each for each in top.iterdir() if not (each.name.isdigit() and int(each.name) in ids)]
        for each in doomed:
            images_module.thaw(each / IMAGE)

    def _mounts(self, record: Record) -> tuple[Mount, ...]:
        return layers.mounts(record, self._directories.path, self._features, self._mount_options)


def _size(image: Path) -> Usage:
    return Usage(inodes=1, size=image.stat().st_blocks * 512)
