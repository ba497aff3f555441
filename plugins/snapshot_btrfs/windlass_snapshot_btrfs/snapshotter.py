"""Snapshots as subvolumes: a new one shares everything with its parent until it is written to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Kind, Usage
from windlass.errors import FailedPrecondition, NotFound
from windlass.typing import override
from windlass_snapshot_btrfs import subvolumes
from windlass_snapshot_btrfs.filesystem import filesystem_of
from windlass_storage import trees
from windlass_storage.metastore import Record
from windlass_storage.snapshot_directories import DirectorySnapshotter

SUBVOLUME = "fs"
ROOT_MODE = 0o755


class BtrfsSnapshotter(DirectorySnapshotter):
    """Keeps snapshots as subvolumes of btrfs (docs/containerd 2.2)."""

    def __init__(self, root: Path) -> None:
        """Keep snapshots below ``root``, which is on btrfs."""
        self._root = root
        super().__init__(root, _discard)
        for info in self._store.walk(["kind==active"]):
            self._thaw(info.name)

    @override
    def usage(self, key: str) -> Usage:
        record = self._store.lookup(key)
        return self._measure(record) if record.kind == Kind.ACTIVE else record.usage

    @override
    def mounts(self, key: str) -> tuple[Mount, ...]:
        return self._mounts(self._store.get(key))

    @override
    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        def fill(directory: Path, parents: Sequence[int]) -> None:
            if parents:
                subvolumes.snapshot(self._subvolume(parents[0]), directory / SUBVOLUME)
            else:
                _create(directory / SUBVOLUME)

        return self._mounts(self._directories.create(Kind.ACTIVE, key, parent, labels, fill))

    @override
    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        def fill(directory: Path, parents: Sequence[int]) -> None:
            if not parents:
                _create(directory / SUBVOLUME)

        return self._mounts(self._directories.create(Kind.VIEW, key, parent, labels, fill))

    @override
    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        record = self._store.lookup(key)
        if parent and self._store.stat(key).parent != parent:
            raise FailedPrecondition(
                f"snapshot {key} was not prepared on {parent}, and btrfs cannot rebase; prepare it there"
            )
        if record.kind != Kind.ACTIVE:
            self._store.commit(name, key, Usage(0, 0), labels)  # which refuses it
            return
        # Before its row is durable, or a crash could leave one that is writable, a power cut one without a subvolume.
        subvolumes.freeze(self._subvolume(record.id))
        try:
            subvolumes.sync(self._subvolume(record.id))
            self._store.commit(name, key, self._measure(record), labels)
        except BaseException:
            self._thaw(key)
            raise

    def _thaw(self, key: str) -> None:
        """Make a snapshot writable whose commit has failed or was cut short, unless it is committed all the same."""
        with suppress(NotFound, FailedPrecondition, FileNotFoundError):
            subvolumes.freeze(self._subvolume(self._store.get(key).id), False)

    @override
    def remove(self, key: str) -> None:
        self._directories.remove(key, now=True)

    def _subvolume(self, id: int) -> Path:
        return self._directories.path(id) / SUBVOLUME

    def _measure(self, record: Record) -> Usage:
        if record.kind == Kind.VIEW and record.parents:
            return Usage(0, 0)
        below = self._subvolume(record.parents[0]) if record.parents else None
        return trees.measure(self._subvolume(record.id), below)

    def _mounts(self, record: Record) -> tuple[Mount, ...]:
        active = record.kind == Kind.ACTIVE
        shown = record.id if active or not record.parents else record.parents[0]
        _, device = filesystem_of(self._root)
        options = (f"subvolid={subvolumes.id_of(self._subvolume(shown))}", *(() if active else ("ro",)))
        return (Mount("btrfs", device, options),)


def _create(place: Path) -> None:
    subvolumes.create(place)
    place.chmod(ROOT_MODE)


def _discard(directory: Path) -> None:
    subvolumes.delete(directory / SUBVOLUME)
    trees.remove(directory)
