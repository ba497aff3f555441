"""Snapshots as files with a filesystem in them: a new one is a copy of its parent's, or of the empty one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Kind, Usage
from windlass.errors import FailedPrecondition
from windlass.typing import override
from windlass_linux import loop
from windlass_storage import trees
from windlass_storage.metastore import Record
from windlass_storage.snapshot_directories import DirectorySnapshotter

FILE = "blockfile"


class BlockfileSnapshotter(DirectorySnapshotter):
    """Keeps snapshots in files that are mounted by loop devices (docs/containerd 2.2)."""

    def __init__(self, root: Path, scratch: Path, fs_type: str, mount_options: Sequence[str] = ()) -> None:
        """Keep snapshots below ``root``; those without a parent are copies of ``scratch``, which holds ``fs_type``."""
        super().__init__(root)
        self._scratch = scratch
        self._fs_type = fs_type
        self._options = tuple(mount_options) if "loop" in mount_options else (*mount_options, "loop")

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
            trees.copy_file(self._file(parents[0]) if parents else self._scratch, directory / FILE)

        return self._mounts(self._directories.create(Kind.ACTIVE, key, parent, labels, fill))

    @override
    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        def fill(directory: Path, parents: Sequence[int]) -> None:
            if not parents:
                trees.copy_file(self._scratch, directory / FILE)

        return self._mounts(self._directories.create(Kind.VIEW, key, parent, labels, fill))

    @override
    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        record = self._store.lookup(key)
        if parent and self._store.stat(key).parent != parent:
            raise FailedPrecondition(
                f"snapshot {key} was not prepared on {parent}, and blockfile cannot rebase; prepare it there"
            )
        if record.kind == Kind.ACTIVE and not _settled(self._file(record.id)):
            raise FailedPrecondition(f"snapshot {key} is mounted, a commit would tear it; unmount it first")
        self._store.commit(name, key, self._measure(record), labels)

    @override
    def remove(self, key: str) -> None:
        self._directories.remove(key, now=True)

    def _file(self, id: int) -> Path:
        return self._directories.path(id) / FILE

    def _measure(self, record: Record) -> Usage:
        if record.kind == Kind.VIEW and record.parents:
            return Usage(0, 0)
        below = _taken(self._file(record.parents[0])) if record.parents else 0
        return Usage(inodes=1, size=max(0, _taken(self._file(record.id)) - below))

    def _mounts(self, record: Record) -> tuple[Mount, ...]:
        active = record.kind == Kind.ACTIVE
        shown = record.id if active or not record.parents else record.parents[0]
        return (Mount(self._fs_type, str(self._file(shown)), (*self._options, "rw" if active else "ro")),)


def _taken(file: Path) -> int:
    return file.stat().st_blocks * trees.BLOCK


def _settled(file: Path) -> bool:
    """Write a file to its disk and return whether all writers, such as a loop device, are gone."""
    if loop.is_written(file):
        return False
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        # Before its row is durable.
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True
