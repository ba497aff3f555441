"""Snapshots as full copies: each is a directory with all its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Kind, Usage
from windlass.errors import FailedPrecondition
from windlass.typing import override
from windlass_storage import trees
from windlass_storage.metastore import Record
from windlass_storage.snapshot_directories import DirectorySnapshotter

ROOT_MODE = 0o755


class NativeSnapshotter(DirectorySnapshotter):
    """Keeps snapshots as full copies."""

    @override
    def usage(self, key: str) -> Usage:
        """Measure an active snapshot; a view takes nothing, as in containerd."""
        record = self._store.lookup(key)
        return trees.measure(self._directories.path(record.id)) if record.kind == Kind.ACTIVE else record.usage

    @override
    def mounts(self, key: str) -> tuple[Mount, ...]:
        return self._mounts(self._store.get(key))

    @override
    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        def fill(directory: Path, parents: Sequence[int]) -> None:
            directory.chmod(ROOT_MODE)
            if parents:
                trees.copy(self._directories.path(parents[0]), directory)

        return self._mounts(self._directories.create(Kind.ACTIVE, key, parent, labels, fill))

    @override
    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        def fill(directory: Path, _parents: Sequence[int]) -> None:
            directory.chmod(ROOT_MODE)

        return self._mounts(self._directories.create(Kind.VIEW, key, parent, labels, fill))

    @override
    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        record = self._store.lookup(key)
        if parent and self._store.stat(key).parent != parent:
            raise FailedPrecondition(
                f"snapshot {key} was not prepared on {parent}, and native cannot rebase; prepare it there"
            )
        self._store.commit(name, key, trees.measure(self._directories.path(record.id)), labels)

    @override
    def remove(self, key: str) -> None:
        self._directories.remove(key, now=True)

    def _mounts(self, record: Record) -> tuple[Mount, ...]:
        if record.kind == Kind.ACTIVE:
            return (Mount("bind", str(self._directories.path(record.id)), ("rbind", "rw")),)
        shown = record.parents[0] if record.parents else record.id
        return (Mount("bind", str(self._directories.path(shown)), ("rbind", "ro")),)
