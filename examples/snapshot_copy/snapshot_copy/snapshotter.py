"""Each snapshot is a directory with all its files, copied from its parent's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Kind, Usage
from windlass_storage import trees
from windlass_storage.metastore import Record
from windlass_storage.snapshot_directories import Directories


class CopySnapshotter:
    def __init__(self, root: Path) -> None:
        self._directories = Directories(root)
        self._store = self._directories.store
        # These are about names, parents and labels only, and all that is kept in the metastore.
        self.stat, self.update, self.walk = self._store.stat, self._store.update, self._store.walk
        self.cleanup, self.close = self._directories.cleanup, self._directories.close

    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        return self._mounts(self._directories.create(Kind.ACTIVE, key, parent, labels, self._fill))

    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        return self._mounts(self._directories.create(Kind.VIEW, key, parent, labels, self._fill))

    def _fill(self, directory: Path, parents: Sequence[int]) -> None:
        directory.chmod(0o755)
        if parents:
            trees.copy(self._directories.path(parents[0]), directory)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        return self._mounts(self._store.get(key))

    def _mounts(self, record: Record) -> tuple[Mount, ...]:
        mode = "ro" if record.kind == Kind.VIEW else "rw"
        return (Mount("bind", str(self._directories.path(record.id)), (mode, "rbind")),)

    def usage(self, key: str) -> Usage:
        record = self._store.lookup(key)
        return self._measure(record) if record.kind == Kind.ACTIVE else record.usage

    def _measure(self, record: Record) -> Usage:
        return trees.measure(self._directories.path(record.id))

    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        # No capability "rebase", so clients never send a parent.
        self._store.commit(name, key, self._measure(self._store.lookup(key)), labels)

    def remove(self, key: str) -> None:
        self._directories.remove(key, now=True)
