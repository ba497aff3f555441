"""The lease that a request came with, which holds what the request makes."""

from __future__ import annotations

import sqlite3

from windlass.contracts.leases import Lease
from windlass_metadata.columns import strings
from windlass_metadata.ledger import Ledger
from windlass_metadata.nodes import resource
from windlass_metadata.table import Table

LEASES = Table("leases", "lease", Lease, (strings("labels"),))


class RequestLease:
    """A lease of one namespace, or none; every method is part of a change."""

    def __init__(self, ledger: Ledger, namespace: str, id: str) -> None:
        """Without an ``id`` there is none, and nothing to do."""
        self.id = id
        self._ledger = ledger
        self._namespace = namespace

    def require(self, db: sqlite3.Connection) -> None:
        """Raise NotFound for a lease that does not exist."""
        if self.id:
            LEASES.require(db, self._namespace, self.id)

    def hold(self, db: sqlite3.Connection, type: str, id: str) -> None:
        """Add a resource, unless the lease has been deleted meanwhile."""
        if self.id:
            db.execute(
                "INSERT OR IGNORE INTO lease_resources SELECT namespace, id, ?, ? FROM leases"
                " WHERE namespace = ? AND id = ?",
                (type, id, self._namespace, self.id),
            )
            self._ledger.touch(resource(self._namespace, type, id))

    def let_go(self, db: sqlite3.Connection, type: str, id: str) -> None:
        """Take a resource away, if the lease has it."""
        if self.id:
            db.execute(
                "DELETE FROM lease_resources WHERE namespace = ? AND lease = ? AND type = ? AND id = ?",
                (self._namespace, self.id, type, id),
            )
