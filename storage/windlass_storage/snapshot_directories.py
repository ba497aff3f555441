"""One directory for each snapshot, kept in step with the rows of `windlass_storage.metastore`.

A directory is filled under a temporary name and renamed while its row is being
written; on removal the row goes first. So whatever a crash leaves has no row,
and `Directories.cleanup` deletes it.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from windlass import faults
from windlass.contracts.checks import Problem
from windlass.contracts.snapshots import Info, Kind, Snapshotter
from windlass.typing import override
from windlass_storage import trees
from windlass_storage.disks import disk_errors, private_directory
from windlass_storage.metastore import Metastore, Record

logger = logging.getLogger(__name__)


DATABASE = "metadata.db"
SHOWN = 128


class Directories:
    """The directories below ``root/snapshots``, named by the IDs of the rows in ``root/metadata.db``."""

    def __init__(self, root: Path, discard: Callable[[Path], None] = trees.remove) -> None:
        """``discard`` deletes a snapshot's directory, whole or half made, where more is needed than deleting files."""
        self._top = root / "snapshots"
        self._discard = discard
        # The root may be an operator's own directory; what is below it is ours alone. Containers with user
        # namespaces need no way in: overlay looks its layers up as the daemon, and a bind mount has its own root.
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        private_directory(self._top)
        self.store = Metastore(root / DATABASE)
        # What carries another process's token was left by a crash.
        self._token = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def path(self, id: int) -> Path:
        """Return where the files of a snapshot are."""
        return self._top / str(id)

    def create(
        self,
        kind: Kind,
        key: str,
        parent: str,
        labels: Mapping[str, str] | None,
        fill: Callable[[Path, Sequence[int]], None],
    ) -> Record:
        """Make a snapshot; ``fill`` is given its directory, and the IDs of what is beneath, nearest first.

        Raises as `Metastore.create` (mostly before anything is filled), and ResourceExhausted.
        """
        parents = self.store.check(key, parent)
        temporary = self._temporary("new")
        try:
            with disk_errors(f"make snapshot {key[:SHOWN]}", self._top):
                temporary.mkdir(mode=0o700)
                fill(temporary, parents)
                return self.store.create(kind, key, parent, labels, place=lambda record: self._place(temporary, record))
        finally:
            # Not there when all went well.
            if temporary.exists():
                self._discard(temporary)

    def _place(self, temporary: Path, record: Record) -> None:
        place = self.path(record.id)
        # A power cut took back the row of this ID and left its directory.
        if place.exists():
            place.rename(self._temporary("rm"))
        faults.point("snapshots.place")
        temporary.rename(place)
        faults.point("snapshots.placed")

    def remove(self, key: str, *, now: bool) -> Record:
        """Remove a snapshot; its files at once, or with the next `cleanup`."""
        record = self.store.remove(key)
        if now:
            # Else a power cut could bring the row back and not the files.
            self.store.flush()
            self._delete([self.path(record.id)])
        return record

    def cleanup(self) -> None:
        """Delete every directory that has no row."""
        doomed: list[Path] = []
        with self.store.ids_held() as ids:
            for entry in list(self._top.iterdir()):
                if entry.name.isdigit() and int(entry.name) not in ids:
                    # The name must be free before its ID can be given again.
                    doomed.append(entry.rename(self._temporary("rm")))
                elif entry.name.startswith(("new-", "rm-")) and f"-{self._token}-" not in entry.name:
                    doomed.append(entry)
        self.store.flush()
        self._delete(doomed)

    def check(self, repair: bool = False) -> list[Problem]:
        """Compare the rows with the directories, as `windlass.contracts.checks.Checked` does."""
        with self.store.ids_held() as ids:
            there = {int(each.name) for each in self._top.iterdir() if each.name.isdigit()}
        lost = [
            Problem(f"snapshot {name}", f"has lost its directory {self.path(id)}", "remove it, and what was made on it")
            for id, name in sorted(ids.items())
            if id not in there
        ]
        unknown = sorted(there - ids.keys())
        if unknown and repair:
            self.cleanup()
        remedy = "it was deleted" if repair else "it is deleted at the next cleanup"
        return lost + [
            Problem(f"directory {self.path(id)}", "belongs to no snapshot", remedy, repair) for id in unknown
        ]

    def _delete(self, directories: Iterable[Path]) -> None:
        for directory in directories:
            try:
                faults.point("snapshots.delete")
                self._discard(directory)
            except OSError as error:
                logger.warning("cannot delete %s, the next cleanup after a start tries again: %s", directory, error)

    def _temporary(self, purpose: str) -> Path:
        return self._top / f"{purpose}-{self._token}-{next(self._numbers)}"

    def close(self) -> None:
        """Close the database; a second time is nothing."""
        self.store.close()


class DirectorySnapshotter(Snapshotter):
    """What snapshotters that keep directories have in common; to be inherited from, with the rest of the contract."""

    def __init__(self, root: Path, discard: Callable[[Path], None] = trees.remove) -> None:
        """Keep snapshots below ``root``; ``discard`` as for `Directories`."""
        self._directories = Directories(root, discard)
        self._store = self._directories.store

    def close(self) -> None:
        """Close the database; a second time is nothing."""
        self._directories.close()

    @override
    def stat(self, key: str) -> Info:
        return self._store.stat(key)

    @override
    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        return self._store.update(info, fieldpaths)

    @override
    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        return self._store.walk(filters)

    def check(self, repair: bool = False, deep: bool = False) -> list[Problem]:
        """Compare rows with directories; see `windlass.contracts.checks.Checked`."""
        return self._directories.check(repair)

    @override
    def cleanup(self) -> None:
        self._directories.cleanup()
