"""Operations that a snapshotter takes part in: prepare, view and commit (docs/decisions/two-phase-operations.md).

An operation reserves its row in one change, calls the snapshotter without any
lock or transaction, and settles the row in another. Invariant: whatever the
snapshotter may have, a row says so. After a crash, or an answer that came too
late, `Abandoned` finishes the operation or undoes it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import LABEL_REF, Info, Kind, Snapshotter, inherited_labels
from windlass.contracts.values import check_labels
from windlass.errors import AlreadyExists, Error, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from windlass.filters.fieldpaths import kept_labels
from windlass_metadata import trash
from windlass_metadata.abandoned import Abandoned
from windlass_metadata.columns import now
from windlass_metadata.ledger import Busy, Ledger, ensure_namespace
from windlass_metadata.request_lease import RequestLease
from windlass_metadata.snapshot_rows import RowState, SnapshotRow, SnapshotRows

R = TypeVar("R")

Make = Callable[[str, str, Mapping[str, str]], tuple[Mount, ...]]
"""`Snapshotter.prepare` or `Snapshotter.view`."""


class _Taken(Exception):
    """The snapshot of that key is there already."""


class Operations:
    """The operations of one namespace's view of a snapshotter."""

    def __init__(
        self, ledger: Ledger, snapshotter: Snapshotter, abandoned: Abandoned, rows: SnapshotRows, lease: RequestLease
    ) -> None:
        """Have ``lease`` hold what is made; operations without an outcome go to ``abandoned``."""
        self._ledger = ledger
        self._snapshotter = snapshotter
        self._abandoned = abandoned
        self._rows = rows
        self._lease = lease

    def make(self, kind: Kind, make: Make, key: str, parent: str, labels: Mapping[str, str]) -> tuple[Mount, ...]:
        """Make an active snapshot or a view by ``make``, and return its mounts."""
        kept = _checked(key, labels)
        self._abandoned.resolve()
        row, base = self._reserved(lambda db: self._reserve(db, kind, key, parent, kept))
        try:
            mounts = make(row.backend, base, inherited_labels(kept))
        except AlreadyExists as error:
            if LABEL_REF not in kept:
                self._undo(row)
                raise self._explained(error, f"snapshot {key} cannot be made") from error
            raise self._adopted(row, base) from None
        except BaseException:
            self._ledger.suspects.add(self._rows.snapshotter)
            self._undo(row)
            raise
        # not durable: the files of an active snapshot would not survive a power failure either
        self._settle(row, lambda db: self._finish(db, row), durable=False)
        return mounts

    def commit(self, name: str, key: str, labels: Mapping[str, str], parent: str) -> None:
        """Commit an active snapshot as ``name``."""
        kept = _checked(name, labels)
        self._abandoned.resolve()
        row, source, base = self._reserved(lambda db: self._reserve_commit(db, name, key, kept, parent))
        try:
            self._snapshotter.commit(row.backend, source.backend, inherited_labels(kept), base)
        except (AlreadyExists, NotFound, FailedPrecondition, InvalidArgument) as error:
            self._undo(row)
            raise self._explained(error, f"snapshot {key} cannot be committed as {name}") from error
        except BaseException:
            # it may have happened all the same, for instance when the answer of a proxy was late
            self._abandoned.add(self._rows.namespace, name)
            raise
        self._settle(row, lambda db: self._finish_commit(db, row, self._parent_after(row, base)))

    def _reserve(
        self, db: sqlite3.Connection, kind: Kind, key: str, parent: str, labels: dict[str, str]
    ) -> tuple[SnapshotRow, str]:
        """Reserve a key; also return the parent's name in the snapshotter."""
        for name in (labels.get(LABEL_REF, ""), key):
            if name and self._rows.settled(db, name):
                raise _Taken(name)
        base = self._committed(db, parent) if parent else ""
        self._lease.require(db)
        ensure_namespace(db, self._rows.namespace)
        return self._rows.insert(db, key, kind, parent, labels), base

    def _reserve_commit(
        self, db: sqlite3.Connection, name: str, key: str, labels: dict[str, str], parent: str
    ) -> tuple[SnapshotRow, SnapshotRow, str]:
        """Reserve a name for a key; also return the key's row and the name, in the snapshotter, to rebase on."""
        if self._rows.settled(db, name):
            raise _Taken(name)
        source = self._rows.existing(db, key)
        if source.kind != Kind.ACTIVE:
            raise FailedPrecondition(
                f"snapshot {key} is {source.kind.name.lower()}; only an active one can be committed"
            )
        self._lease.require(db)
        rebased = parent if not source.parent else ""
        base = self._committed(db, rebased) if rebased else ""
        row = self._rows.insert(db, name, Kind.COMMITTED, source.parent or rebased, labels, source=key)
        self._rows.set_state(db, key, RowState.COMMITTING)
        return row, source, base

    def _committed(self, db: sqlite3.Connection, parent: str) -> str:
        row = self._rows.find(db, parent)
        if row is None:
            raise NotFound(f"parent snapshot {parent} does not exist")
        if row.kind != Kind.COMMITTED:
            raise InvalidArgument(f"parent snapshot {parent} is {row.kind.name.lower()}, not committed")
        if row.state != RowState.READY:
            raise Busy(f"snapshot {parent}")
        return row.backend

    def _finish(self, db: sqlite3.Connection, row: SnapshotRow) -> None:
        self._lease.require(db)
        moment = now()
        self._rows.write(db, replace(row, state=RowState.READY, created_at=moment, updated_at=moment))
        self._lease.hold(db, self._rows.type, row.key)

    def _finish_commit(self, db: sqlite3.Connection, row: SnapshotRow, parent: str) -> None:
        self._rows.finish_commit(db, row, parent)
        self._lease.let_go(db, self._rows.type, row.source)
        self._lease.hold(db, self._rows.type, row.key)

    def _parent_after(self, row: SnapshotRow, base: str) -> str:
        """Return the parent of what was committed: not every snapshotter rebases."""
        return row.parent if not base or self._snapshotter.stat(row.backend).parent == base else ""

    def _settle(self, row: SnapshotRow, change: Callable[[sqlite3.Connection], None], durable: bool = True) -> None:
        try:
            self._ledger.settle(change, durable=durable)
        except BaseException:
            self._abandoned.add(self._rows.namespace, row.key)
            raise

    def _undo(self, row: SnapshotRow) -> None:
        try:
            self._ledger.release(lambda db: self._rows.undo(db, row))
        except BaseException:
            self._abandoned.add(self._rows.namespace, row.key)
            raise

    def _adopted(self, row: SnapshotRow, base: str) -> Error:
        """Record the committed snapshot that the snapshotter has for a ref (docs/containerd 3.7, remote snapshots)."""
        target = row.labels[LABEL_REF]
        try:
            found = self._in_snapshotter(target, base)
        except BaseException:
            self._undo(row)
            raise
        if found is None:
            self._undo(row)
            return NotFound(
                f"snapshotter {self._rows.snapshotter} reported target snapshot {target}, but does not have it"
            )
        adopted = replace(row, key=target, backend=found.name, kind=Kind.COMMITTED, state=RowState.READY)
        self._settle(row, lambda db: self._adopt(db, row, adopted))
        try:
            self._snapshotter.stat(found.name)
        except NotFound:
            self._ledger.change(lambda db: self._rows.delete(db, adopted), deletion=True)
            return Unavailable(f"target snapshot {target} was being removed; try again")
        return AlreadyExists(f"target snapshot {target} already exists")

    def _in_snapshotter(self, target: str, base: str) -> Info | None:
        query = f"labels.{quoted(LABEL_REF)}=={quoted(target)},parent=={quoted(base)}"
        for info in self._snapshotter.walk([query]):
            if info.kind == Kind.COMMITTED and info.labels.get(LABEL_REF) == target and info.parent == base:
                return info
        return None

    def _adopt(self, db: sqlite3.Connection, row: SnapshotRow, adopted: SnapshotRow) -> None:
        self._rows.undo(db, row)
        if not self._rows.settled(db, adopted.key):
            trash.rescue(db, trash.SNAPSHOT, self._rows.snapshotter, adopted.backend)
            self._rows.write(db, adopted)
        self._lease.hold(db, self._rows.type, adopted.key)

    def _reserved(self, change: Callable[[sqlite3.Connection], R]) -> R:
        """Commit the first half of an operation; the lease holds a snapshot that is in the way, as in containerd."""
        while True:
            try:
                return self._ledger.reserve(change)
            except _Taken as taken:
                key = str(taken)
                # collected since: then it is not in the way any more
                if not self._lease.id or self._ledger.change(partial(self._hold_existing, key=key)):
                    raise AlreadyExists(f"snapshot {key} already exists") from None

    def _hold_existing(self, db: sqlite3.Connection, key: str) -> bool:
        if not self._rows.settled(db, key):
            return False
        self._lease.require(db)
        self._lease.hold(db, self._rows.type, key)
        return True

    def _explained(self, error: Error, what: str) -> Error:
        """Return an error of the snapshotter in our words.

        The keys we give it are new, so AlreadyExists would say nothing to the caller (docs/containerd 3.7).
        """
        kind = Error if isinstance(error, AlreadyExists) else type(error)
        return kind(f"{what}: snapshotter {self._rows.snapshotter} says: {error}")


def quoted(text: str) -> str:
    """Return a string as filters write it; JSON's escapes are among Go's."""
    return json.dumps(text, ensure_ascii=False)


def _checked(key: str, labels: Mapping[str, str]) -> dict[str, str]:
    if not key:
        raise InvalidArgument("the key of a snapshot must not be empty")
    check_labels(labels)
    return kept_labels(labels)
