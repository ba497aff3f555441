"""One namespace's view of a snapshotter (docs/containerd 3.7).

Nothing is locked while the snapshotter works: an operation reserves its row,
calls the snapshotter, and settles the row. Removal only discards; the files go
with the next garbage collection, as in containerd.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from windlass.contracts.mounts import Mount
from windlass.contracts.snapshots import Info, Kind, Snapshotter, Usage, inherited_labels
from windlass.errors import FailedPrecondition, NotFound
from windlass.filters import expressions
from windlass.filters.fieldpaths import updated_labels
from windlass.gate import gate_of
from windlass.typing import override
from windlass_api.containerd.events.snapshot_pb2 import SnapshotCommit, SnapshotPrepare, SnapshotRemove
from windlass_metadata.abandoned import Abandoned
from windlass_metadata.columns import Value, now
from windlass_metadata.encoded import framed
from windlass_metadata.ledger import Ledger
from windlass_metadata.remembered import MOST
from windlass_metadata.request_lease import RequestLease
from windlass_metadata.snapshot_operations import Operations
from windlass_metadata.snapshot_rows import SNAPSHOTS, SnapshotRow, SnapshotRows
from windlass_remote.records import to_snapshot
from windlass_storage.snapshot_fields import adaptor

MANY = 16
"""Snapshots from which on a list asks the snapshotter once for all that it has, not for each of them."""
BACKEND = 1
"""The place of the snapshotter's name for a snapshot in a row."""


class Snapshots(Snapshotter):
    """A namespace's snapshots in one snapshotter; what is made is held by a lease if one is given."""

    def __init__(
        self, ledger: Ledger, snapshotter: Snapshotter, abandoned: Abandoned, name: str, namespace: str, lease: str
    ) -> None:
        """Show of ``snapshotter``, whose name is ``name``, what belongs to ``namespace``."""
        self._ledger = ledger
        self._snapshotter = snapshotter
        # a snapshotter that hangs fills its own pool and opens its own breaker, not the metadata store's
        self.gate = gate_of(snapshotter)
        self._abandoned = abandoned
        self._name = name
        self._namespace = namespace
        self._lease = RequestLease(ledger, namespace, lease)
        self._rows = SnapshotRows(ledger, name, namespace)
        self._operations = Operations(ledger, snapshotter, abandoned, self._rows, self._lease)

    @override
    def stat(self, key: str) -> Info:
        return self._described(self._visible(key))

    @override
    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        """Labels that the snapshotter may see are changed there first."""
        what = f"snapshot {info.name}"
        row = self._visible(info.name)
        wanted = updated_labels(row.labels, info.labels, fieldpaths, what)
        if inherited_labels(wanted) != inherited_labels(row.labels):
            self._snapshotter.update(
                Info(row.kind, row.backend, labels=inherited_labels(wanted)), _inherited_paths(fieldpaths)
            )

        def write(db: sqlite3.Connection) -> SnapshotRow:
            current = self._rows.existing(db, info.name)
            labels = updated_labels(current.labels, info.labels, fieldpaths, what)
            changed = replace(current, labels=labels, updated_at=now())
            self._rows.write(db, changed)
            return changed

        return self._described(self._ledger.change(write))

    @override
    def usage(self, key: str) -> Usage:
        row = self._visible(key)
        try:
            return self._snapshotter.usage(row.backend)
        except NotFound as error:
            raise self._lost(key) from error

    @override
    def mounts(self, key: str) -> tuple[Mount, ...]:
        row = self._visible(key)
        if row.kind == Kind.COMMITTED:
            raise FailedPrecondition(f"snapshot {key} is committed and has no mounts; make a view of it")
        try:
            return self._snapshotter.mounts(row.backend)
        except NotFound as error:
            raise self._lost(key) from error

    @override
    def prepare(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """The label ``containerd.io/snapshot.ref`` asks for a committed snapshot instead.

        AlreadyExists then says that it is there.
        """
        mounts = self._operations.make(Kind.ACTIVE, self._snapshotter.prepare, key, parent, labels or {})
        event = SnapshotPrepare(key=key, parent=parent, snapshotter=self._name)
        self._ledger.publish(self._namespace, "/snapshot/prepare", event)
        return mounts

    @override
    def view(self, key: str, parent: str = "", labels: Mapping[str, str] | None = None) -> tuple[Mount, ...]:
        """No event tells of a view, as in containerd."""
        return self._operations.make(Kind.VIEW, self._snapshotter.view, key, parent, labels or {})

    @override
    def commit(self, name: str, key: str, labels: Mapping[str, str] | None = None, parent: str = "") -> None:
        self._operations.commit(name, key, labels or {}, parent)
        event = SnapshotCommit(key=key, name=name, snapshotter=self._name)
        self._ledger.publish(self._namespace, "/snapshot/commit", event)

    @override
    def remove(self, key: str) -> None:
        self._abandoned.resolve()

        def remove(db: sqlite3.Connection) -> None:
            self._rows.remove(db, key)
            self._lease.let_go(db, self._rows.type, key)

        # not durable: its files go with a collection, which waits for the disk before it removes any
        self._ledger.change(remove, deletion=True, durable=False)
        event = SnapshotRemove(key=key, snapshotter=self._name)
        self._ledger.publish(self._namespace, "/snapshot/remove", event)

    @override
    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        accepts = expressions.parse(filters)
        self._abandoned.resolve()
        with self._ledger.read() as db:
            found = self._rows.all(db)
        return (info for info in self._each(found) if accepts(adaptor(info)))

    def walk_encoded(self, filters: Sequence[str] = ()) -> Iterator[bytes]:
        """Return what `walk` does as bytes, see `windlass.contracts.encoded`."""
        accepts = expressions.parse(filters) if filters else None
        self._abandoned.resolve()
        with self._ledger.read() as db:
            rows = self._rows.raw(db)
        found = self._each_known(rows)
        return (data for info, data in found if accepts is None or accepts(adaptor(info)))

    def _each_known(self, rows: Sequence[tuple[Value, ...]]) -> Iterator[tuple[Info, bytes]]:
        there = self._there(len(rows))
        for row in rows:
            backend = str(row[BACKEND])
            try:
                info = there.get(backend) or self._snapshotter.stat(backend)
            except NotFound:
                continue  # as in `_each`
            yield _known(row, info.kind, tuple(info.labels.items()))

    def _there(self, count: int) -> dict[str, Info]:
        """Return all that the snapshotter has, if ``count`` questions about one snapshot each would cost more."""
        return {info.name: info for info in self._snapshotter.walk()} if count >= MANY else {}

    @override
    def cleanup(self) -> None:
        self._snapshotter.cleanup()

    def _each(self, found: Sequence[SnapshotRow]) -> Iterator[Info]:
        there = self._there(len(found))
        for row in found:
            try:
                yield self._described(row, there.get(row.backend))
            except NotFound:
                continue  # removed or committed since the walk began

    def _visible(self, key: str) -> SnapshotRow:
        self._abandoned.resolve()
        return self._rows.visible(key)

    def _described(self, row: SnapshotRow, info: Info | None = None) -> Info:
        """Join what the snapshotter says, ``info`` or what it now answers, with what we know."""
        try:
            return _joined(row, info or self._snapshotter.stat(row.backend))
        except NotFound as error:
            raise self._lost(row.key) from error

    def _lost(self, key: str) -> NotFound:
        return NotFound(f"snapshot {key} is recorded, but snapshotter {self._name} does not have it")


def _joined(row: SnapshotRow, info: Info) -> Info:
    """Return a snapshot as clients see it; the snapshotter may have labels of its own."""
    return Info(info.kind, row.key, row.parent, {**info.labels, **row.labels}, row.created_at, row.updated_at)


@lru_cache(MOST)
def _known(row: tuple[Value, ...], kind: Kind, labels: tuple[tuple[str, str], ...]) -> tuple[Info, bytes]:
    """Return a snapshot and its bytes, by all that they say: its row, and what its snapshotter has of it."""
    info = _joined(SNAPSHOTS.decode(row), Info(kind, "", labels=dict(labels)))
    return info, framed(to_snapshot(info))


def _inherited_paths(fieldpaths: Sequence[str]) -> list[str]:
    """Return those field paths that concern the snapshotter."""
    return [path for path in fieldpaths if path == "labels" or inherited_labels({path.removeprefix("labels."): ""})]
