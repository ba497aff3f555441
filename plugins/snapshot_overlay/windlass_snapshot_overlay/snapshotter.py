"""Snapshots as directories of differences; `windlass_snapshot_overlay.layers` says how they are shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import LABEL_PREFIX, Info, Kind, Usage
from windlass.errors import NotFound
from windlass.typing import override
from windlass_snapshot_overlay import layers
from windlass_snapshot_overlay.layers import Features
from windlass_storage import trees, upper_directories
from windlass_storage.metastore import Record
from windlass_storage.snapshot_directories import DirectorySnapshotter
from windlass_storage.upper_directories import UPPER, owner_of

LABEL_UPPERDIR = LABEL_PREFIX + "overlay.upperdir"


class OverlaySnapshotter(DirectorySnapshotter):
    """Keeps snapshots as layers of overlayfs."""

    def __init__(
        self,
        root: Path,
        features: Features,
        *,
        mount_options: Sequence[str] = (),
        sync_remove: bool = False,
        upperdir_label: bool = False,
    ) -> None:
        super().__init__(root)
        self._features = features
        self._mount_options = tuple(mount_options)
        self._sync_remove = sync_remove
        self._upperdir_label = upperdir_label

    @override
    def stat(self, key: str) -> Info:
        return self._labelled(self._store.stat(key))

    @override
    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        return self._labelled(self._store.update(info, fieldpaths))

    @override
    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        for info in self._store.walk(filters):
            # What is removed during the walk has no label to show any more.
            with suppress(NotFound):
                info = self._labelled(info)
            yield info

    @override
    def usage(self, key: str) -> Usage:
        record = self._store.lookup(key)
        return trees.measure(self._upper(record.id)) if record.kind == Kind.ACTIVE else record.usage

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
        usage = trees.measure(self._upper(self._store.lookup(key).id))
        self._store.commit(name, key, usage, labels, parent)

    @override
    def remove(self, key: str) -> None:
        """Remove a snapshot; its files now or at the next cleanup."""
        self._directories.remove(key, now=self._sync_remove)

    def _create(self, kind: Kind, key: str, parent: str, labels: Mapping[str, str]) -> Record:
        def fill(directory: Path, parents: Sequence[int]) -> None:
            below = self._directories.path(parents[0]) if parents else None
            upper_directories.make(directory, kind, owner_of(labels, below, self._features.remap_ids))

        return self._directories.create(kind, key, parent, labels, fill)

    def _upper(self, id: int) -> Path:
        return self._directories.path(id) / UPPER

    def _mounts(self, record: Record) -> tuple[Mount, ...]:
        return layers.mounts(record, self._directories.path, self._features, self._mount_options)

    def _labelled(self, info: Info) -> Info:
        if not self._upperdir_label:
            return info
        upper = str(self._upper(self._store.lookup(info.name).id))
        return replace(info, labels={**info.labels, LABEL_UPPERDIR: upper})
