"""Operations on snapshots whose outcome is not known, because the daemon died or the snapshotter did not answer.

They are looked into when the snapshotter is next used: a commit that the
snapshotter has carried out is finished, everything else is undone.
"""

from __future__ import annotations

import sqlite3
import threading

from windlass.contracts.snapshots import Snapshotter
from windlass.errors import NotFound
from windlass_metadata.ledger import Ledger
from windlass_metadata.snapshot_rows import RowState, SnapshotRow, SnapshotRows, reservations


class Abandoned:
    """The reservations of one snapshotter that no thread is working on."""

    def __init__(self, ledger: Ledger, name: str, snapshotter: Snapshotter) -> None:
        """Take over every reservation that is in the database: its operation was in a daemon that is gone."""
        self._ledger = ledger
        self._name = name
        self._snapshotter = snapshotter
        self._guard = threading.Lock()
        with ledger.read() as db:
            self._keys = {(namespace, row.key) for namespace, row in reservations(db, name)}

    def add(self, namespace: str, key: str) -> None:
        """Leave a reservation to be looked into later."""
        with self._guard:
            self._keys.add((namespace, key))

    def resolve(self) -> None:
        """Look into each; one that the snapshotter still gives no answer about stays, and its error is raised."""
        while self._keys:
            with self._guard:
                if not self._keys:
                    return
                namespace, key = self._keys.pop()
            try:
                self._resolve(SnapshotRows(self._ledger, self._name, namespace), key)
            except BaseException:
                self.add(namespace, key)
                raise

    def _resolve(self, snapshots: SnapshotRows, key: str) -> None:
        with self._ledger.read() as db:
            row = snapshots.find(db, key)
        if row is None or row.state != RowState.MAKING:
            return
        parent = self._committed_parent(snapshots, row) if row.source else None

        def decide(db: sqlite3.Connection) -> None:
            if parent is None:
                snapshots.undo(db, row)
            else:
                snapshots.finish_commit(db, row, parent)

        self._ledger.settle(decide, deletion=True)

    def _committed_parent(self, snapshots: SnapshotRows, row: SnapshotRow) -> str | None:
        """Return the parent of a commit if the snapshotter has carried it out."""
        try:
            info = self._snapshotter.stat(row.backend)
        except NotFound:
            return None
        return row.parent if info.parent else ""
