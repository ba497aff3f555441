"""Rows for snapshotter authors: names, kinds, parents, labels and usage of snapshots, kept in SQLite.

A snapshotter keeps files, one directory (or volume) for each snapshot, named by
the record's ``id``; everything else that the contract promises is kept here.
The files must be there before the row is, and the row must be gone before the
files are; then a crash leaves files without a row, which `Metastore.ids_held` tells,
and never a row without files::

    record = store.create(kind, key, parent, labels, place=lambda r: rename(temporary, root / str(r.id)))
    …
    record = store.remove(key)
    rmtree(root / str(record.id))

Durability: every change survives the death of the process. A power cut may take
back what was created, updated or removed since the last `commit` or `flush`,
newest first, but never what was committed: an active snapshot's files would not
survive it either, and a removal that is taken back can be repeated. So preparing
costs no fsync, and committing costs one, outside the lock.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from windlass import errors, faults
from windlass.contracts.snapshots import Info, Kind, Usage
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from windlass.filters.expressions import parse
from windlass_storage import databases, snapshot_fields, snapshot_table
from windlass_storage.databases import reuse_log
from windlass_storage.disks import disk_errors
from windlass_storage.reserve import Reserve
from windlass_storage.snapshot_table import Record

__all__ = ["RESERVE", "Metastore", "Record"]

BUSY_SECONDS = 10.0
RESERVE = 256 << 10
"""Bytes kept back for removals: the log and its index, and some pages for each."""


class Metastore:
    """The rows of one snapshotter, in the database at ``path``; to be used by any number of threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._reserve = Reserve(path.with_name(path.name + "-reserve"), RESERVE)
        self._writer, self._reader = databases.opened(path, self._reserve, self._open)

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        with self._errors(), disk_errors(f"open {self._path}", self._path.parent):
            writer = self._connect()
            try:
                snapshot_table.migrate(writer, self._path)
                # SQLite itself syncs the directory only when it syncs the log, which `flush` does instead.
                _fsync(self._path.parent)
                reader = self._connect()
            except BaseException:
                writer.close()
                raise
        return writer, reader

    def _connect(self) -> sqlite3.Connection:
        db = databases.connect(self._path, BUSY_SECONDS)
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        return db

    def close(self) -> None:
        """Close the database; a second time is nothing."""
        with self._writing, self._reading:
            self._reader.close()
            databases.close(self._writer, self._path, self._reserve)

    def flush(self) -> None:
        """Return when every change so far would survive a power cut."""
        # Transactions are only appended to the log before; a checkpoint syncs it first by itself.
        log = databases.log_of(self._path)
        with disk_errors(f"write {log}", log.parent):
            _fsync(log)

    def check(self, key: str, parent: str = "") -> tuple[int, ...]:
        """Raise what `create` would raise now, and return the IDs of what would be beneath, nearest first."""
        with self._read() as db:
            below = snapshot_table.creatable(db, key, parent)
            return () if below is None else snapshot_table.chain(db, below)

    def create(
        self,
        kind: Kind,
        key: str,
        parent: str = "",
        labels: Mapping[str, str] | None = None,
        place: Callable[[Record], None] | None = None,
    ) -> Record:
        """Make the row of an active snapshot or a view.

        ``place`` puts the snapshot's files in their place; when it raises there will be no row.
        Raises AlreadyExists, NotFound (parent), InvalidArgument (parent is not committed).
        """
        now = time.time_ns()
        with self._write() as db:
            below = snapshot_table.creatable(db, key, parent)
            row = (key, kind, below, snapshot_table.dump(labels), now, now)
            sql = "INSERT INTO snapshot (name, kind, parent, labels, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?)"
            db.execute(sql, row)
            record = snapshot_table.record(db, key)
            if place is not None:
                place(record)
            return record

    def restore(self, snapshots: Iterable[snapshot_table.Kept]) -> None:
        """Make the rows of snapshots that another program kept, with their IDs, all or none; durable on return."""
        with self._write() as db:
            # A parent may come after its children.
            db.execute("PRAGMA defer_foreign_keys = ON")
            db.executemany(snapshot_table.RESTORE, (snapshot_table.columns(each) for each in snapshots))
        self.flush()

    def lookup(self, key: str) -> Record:
        """Return the record of a snapshot of any kind. Raises NotFound."""
        with self._read() as db:
            return snapshot_table.record(db, key)

    def get(self, key: str) -> Record:
        """Return the record of an active snapshot or view. Raises NotFound; FailedPrecondition if committed."""
        record = self.lookup(key)
        if record.kind == Kind.COMMITTED:
            raise FailedPrecondition(f"snapshot {key} is committed, only active snapshots and views can be mounted")
        return record

    def stat(self, key: str) -> Info:
        """Describe a snapshot of any kind. Raises NotFound."""
        with self._errors(), self._reading:  # one statement needs no transaction
            return snapshot_table.stat(self._reader, key)

    def update(self, info: Info, fieldpaths: Sequence[str] = ()) -> Info:
        """Change labels as `windlass.contracts.snapshots.Snapshotter.update` says, and return the result."""
        with self._write() as db:
            labels = snapshot_fields.changed_labels(snapshot_table.stat(db, info.name).labels, info.labels, fieldpaths)
            values = (snapshot_table.dump(labels), time.time_ns(), info.name)
            db.execute("UPDATE snapshot SET labels = ?, updated_at = ? WHERE name = ?", values)
            return snapshot_table.stat(db, info.name)

    def walk(self, filters: Sequence[str] = ()) -> Iterator[Info]:
        """Yield what matches one of ``filters``, as it was when the walk began; nothing is locked meanwhile."""
        accepts = parse(filters)
        with self._read() as db:
            rows = db.execute(snapshot_table.INFO).fetchall()
        return (info for info in map(snapshot_table.info, rows) if accepts(snapshot_fields.adaptor(info)))

    def commit(
        self,
        name: str,
        key: str,
        usage: Usage,
        labels: Mapping[str, str] | None = None,
        parent: str = "",
    ) -> Record:
        """Freeze the active snapshot ``key`` as ``name``, which is durable on return; the id stays.

        ``parent`` gives a parent to a snapshot that has none, and is otherwise ignored (docs/containerd 3.7).
        Raises as `windlass.contracts.snapshots.Snapshotter.commit`.
        """
        if not name:
            raise InvalidArgument("a snapshot's name must not be empty")
        with self._write() as db:
            record = snapshot_table.record(db, key)
            if record.kind != Kind.ACTIVE:
                raise FailedPrecondition(
                    f"snapshot {key} is {record.kind.name.lower()}, only active ones can be committed"
                )
            if snapshot_table.find(db, name) is not None:
                raise AlreadyExists(f"snapshot {name} exists already")
            if parent and not record.parents:
                rebased = snapshot_table.committed_parent(db, parent)
                db.execute("UPDATE snapshot SET parent = ? WHERE id = ?", (rebased, record.id))
            kept, now = snapshot_table.dump(labels), time.time_ns()
            db.execute(
                "UPDATE snapshot SET name = ?, kind = ?, labels = ?, inodes = ?, size = ?, updated_at = ? WHERE id = ?",
                (name, Kind.COMMITTED, kept, usage.inodes, usage.size, now, record.id),
            )
            record = snapshot_table.record(db, name)
        faults.point("snapshots.committed")
        self.flush()
        return record

    def remove(self, key: str) -> Record:
        """Delete the row and return what it was. Raises NotFound; FailedPrecondition if it has children."""
        try:
            return self._remove(key)
        except errors.ResourceExhausted:
            with self._writing:
                if not self._reserve.spend():
                    raise
                reuse_log(self._writer)
            try:
                return self._remove(key)
            finally:
                self._reserve.refill()

    def _remove(self, key: str) -> Record:
        with self._write() as db:
            record = snapshot_table.record(db, key)
            child = db.execute("SELECT name FROM snapshot WHERE parent = ? LIMIT 1", (record.id,)).fetchone()
            if child is not None:
                raise FailedPrecondition(f"cannot remove snapshot with child: {key} is the parent of {child[0]}")
            db.execute("DELETE FROM snapshot WHERE id = ?", (record.id,))
            return record

    @contextmanager
    def ids_held(self) -> Iterator[dict[int, str]]:
        """Yield the key or name of every ID; nothing is created or removed meanwhile.

        Files of any other ID may be put aside meanwhile, and deleted after a `flush`.
        """
        with self._write() as db:
            yield dict(db.execute("SELECT id, name FROM snapshot"))

    def _errors(self) -> AbstractContextManager[None]:
        return databases.sqlite_errors(self._path, closed=FailedPrecondition)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        with self._errors(), self._reading:
            # A transaction, so that several statements see one state.
            self._reader.execute("BEGIN")
            try:
                yield self._reader
            finally:
                self._reader.execute("COMMIT")

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._errors(), self._writing:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                databases.fault_point("snapshots.commit")
                self._writer.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            self._reserve.refill()


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
