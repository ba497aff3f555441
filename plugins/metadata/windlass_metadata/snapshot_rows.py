"""Rows of snapshots, and the two halves of each operation that a snapshotter takes part in.

====================  ===========================================================
state                 meaning
====================  ===========================================================
READY                 the snapshotter has it as the row says
MAKING                the snapshotter is making it; clients do not see it yet
COMMITTING            an active one that a MAKING row names as its ``source``
====================  ===========================================================
"""

from __future__ import annotations

import sqlite3
from dataclasses import fields
from enum import IntEnum

from windlass.contracts.snapshots import Kind
from windlass.errors import FailedPrecondition, NotFound
from windlass.records import dataclass
from windlass_metadata import nodes, trash
from windlass_metadata.columns import Value, now, number, strings
from windlass_metadata.ledger import Busy, Ledger, next_number
from windlass_metadata.table import Table


class RowState(IntEnum):
    """How far the operation on a snapshot has come; see the module's text."""

    READY = 0
    MAKING = 1
    COMMITTING = 2


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """What we know of a snapshot; ``backend`` is its key or name in the snapshotter."""

    key: str
    backend: str
    kind: Kind
    parent: str
    labels: dict[str, str]
    created_at: int
    updated_at: int
    state: RowState
    source: str = ""


SNAPSHOTS = Table(
    "snapshots",
    "snapshot",
    SnapshotRow,
    (number("kind", Kind), strings("labels"), number("state", RowState)),
    scope=("namespace", "snapshotter"),
)


STATE = [field.name for field in fields(SnapshotRow)].index("state")
"""Its place in a row; each field of a snapshot has one column."""


class SnapshotRows:
    """One namespace's rows for one snapshotter."""

    def __init__(self, ledger: Ledger, snapshotter: str, namespace: str) -> None:
        """Every method works inside a change, or on a reader's connection, that it is given."""
        self.ledger = ledger
        self.snapshotter = snapshotter
        self.namespace = namespace
        self.type = f"snapshots/{snapshotter}"
        """Of resources of leases."""
        self._scope = (namespace, snapshotter)

    def find(self, db: sqlite3.Connection, key: str) -> SnapshotRow | None:
        """Return a row of any state."""
        return SNAPSHOTS.find(db, *self._scope, key)

    def visible(self, key: str) -> SnapshotRow:
        """Return a row that clients may see; needs no connection. Raises NotFound."""
        row = SNAPSHOTS.decode(SNAPSHOTS.row(self.ledger.row, *self._scope, key))
        if row.state == RowState.MAKING:
            raise NotFound(f"snapshot {key} does not exist")
        return row

    def settled(self, db: sqlite3.Connection, key: str) -> SnapshotRow | None:
        """Return a row that no operation is changing, inside a change. Raises Busy."""
        row = self.find(db, key)
        if row and row.state != RowState.READY:
            raise Busy(f"snapshot {key}")
        return row

    def existing(self, db: sqlite3.Connection, key: str) -> SnapshotRow:
        """Return a row as `settled` does. Raises NotFound."""
        row = self.settled(db, key)
        if row is None:
            raise NotFound(f"snapshot {key} does not exist")
        return row

    def all(self, db: sqlite3.Connection) -> list[SnapshotRow]:
        """Return every row that clients may see."""
        return [row for row in SNAPSHOTS.all(db, *self._scope) if row.state != RowState.MAKING]

    def raw(self, db: sqlite3.Connection) -> list[tuple[Value, ...]]:
        """Return what `SNAPSHOTS.decode` makes every row that clients may see from."""
        return [row for row in SNAPSHOTS.rows(db, *self._scope) if row[STATE] != RowState.MAKING]

    def insert(
        self,
        db: sqlite3.Connection,
        key: str,
        kind: Kind,
        parent: str,
        labels: dict[str, str],
        source: str = "",
    ) -> SnapshotRow:
        """Reserve a key, and return its row with the name that the snapshotter is to use."""
        backend = f"{self.namespace}/{next_number(db)}/{key}"
        moment = now()
        row = SnapshotRow(key, backend, kind, parent, labels, moment, moment, RowState.MAKING, source)
        self.write(db, row)
        return row

    def write(self, db: sqlite3.Connection, row: SnapshotRow) -> None:
        """Write a whole row."""
        SNAPSHOTS.write(db, row, *self._scope)
        self.ledger.touch(nodes.snapshot(self.namespace, self.snapshotter, row.key))

    def set_state(self, db: sqlite3.Connection, key: str, state: RowState) -> None:
        """Say how far the operation on a snapshot has come."""
        query = "UPDATE snapshots SET state = ? WHERE namespace = ? AND snapshotter = ? AND key = ?"
        db.execute(query, (state, *self._scope, key))

    def delete(self, db: sqlite3.Connection, row: SnapshotRow) -> None:
        """Forget a snapshot, and have the snapshotter remove it unless another row has it."""
        SNAPSHOTS.delete(db, *self._scope, row.key)
        trash.discard_snapshot(db, self.snapshotter, row.backend)

    def remove(self, db: sqlite3.Connection, key: str) -> None:
        """Delete a snapshot that has no child. Raises NotFound, FailedPrecondition, Busy."""
        row = self.existing(db, key)
        if self.has_child(db, key):
            raise FailedPrecondition(f"snapshot {key}: cannot remove snapshot with child")
        self.delete(db, row)

    def has_child(self, db: sqlite3.Connection, key: str) -> bool:
        """Return whether a snapshot is some other's parent, be that one still in the making."""
        query = (
            "SELECT 1 FROM snapshots WHERE namespace = ? AND snapshotter = ? AND parent = ? AND parent != '' LIMIT 1"
        )
        return db.execute(query, (*self._scope, key)).fetchone() is not None

    def finish_commit(self, db: sqlite3.Connection, row: SnapshotRow, parent: str) -> None:
        """Make the name of a commit visible and its key free; the snapshotter has done its part."""
        moment = now()
        SNAPSHOTS.delete(db, *self._scope, row.source)
        self.write(db, SnapshotRow(row.key, row.backend, row.kind, parent, row.labels, moment, moment, RowState.READY))

    def undo(self, db: sqlite3.Connection, row: SnapshotRow) -> None:
        """Take a reservation back; what the snapshotter may have made of it is discarded."""
        self.delete(db, row)
        if row.source:
            self.set_state(db, row.source, RowState.READY)


def reservations(db: sqlite3.Connection, snapshotter: str) -> list[tuple[str, SnapshotRow]]:
    """Return every row in the making, with its namespace."""
    found = db.execute(
        f"SELECT namespace, {SNAPSHOTS.columns} FROM snapshots WHERE snapshotter = ? AND state = ?",  # noqa: S608 - ours
        (snapshotter, RowState.MAKING),
    )
    return [(namespace, SNAPSHOTS.decode(columns)) for namespace, *columns in found]
