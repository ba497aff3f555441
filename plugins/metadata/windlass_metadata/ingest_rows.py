"""Rows of ingests: writes not yet committed, and virtual ones whose bytes another namespace has already."""

from __future__ import annotations

import sqlite3
from dataclasses import replace

from windlass.contracts.content import Info
from windlass.records import dataclass
from windlass_metadata import nodes, trash
from windlass_metadata.columns import now, number, strings
from windlass_metadata.ledger import Ledger, ensure_namespace, next_number
from windlass_metadata.request_lease import RequestLease
from windlass_metadata.table import Table

UNLEASED_LIFETIME = 24 * 3600 * 1_000_000_000
"""How long an ingest that no lease holds is kept (docs/containerd 3.5)."""


@dataclass(frozen=True, slots=True)
class IngestRow:
    """What we know of an ingest; ``backend`` is its ref in the content store.

    ``digest`` and ``size`` are those of the blob that a virtual ingest stands for;
    while a commit is under way ``digest`` is the blob's that it will make.
    """

    ref: str
    backend: str
    digest: str = ""
    size: int = 0
    virtual: bool = False
    expires_at: int = 0
    started_at: int = 0


INGESTS = Table("ingests", "ingest", IngestRow, (number("virtual", bool),))
BLOBS = Table("content", "content", Info, (strings("labels"),))


class IngestRows:
    """One namespace's ingests; every method works on a connection that it is given."""

    def __init__(self, ledger: Ledger, namespace: str, lease: RequestLease) -> None:
        """What is opened and committed is held by ``lease``."""
        self._ledger = ledger
        self._namespace = namespace
        self._lease = lease

    def existing(self, db: sqlite3.Connection, ref: str) -> IngestRow:
        """Return the row of a ref. Raises NotFound."""
        return INGESTS.existing(db, self._namespace, ref)

    def all(self, db: sqlite3.Connection) -> list[IngestRow]:
        """Return every row, by ref."""
        return INGESTS.all(db, self._namespace)

    def open(self, db: sqlite3.Connection, ref: str, digest: str, size: int) -> IngestRow:
        """Write the row of an ingest that is opened; with a digest it is virtual. An old one is continued."""
        ensure_namespace(db, self._namespace)
        moment = now()
        old = INGESTS.find(db, self._namespace, ref)
        row = old or IngestRow(ref, f"{self._namespace}/{next_number(db)}/{ref}", started_at=moment)
        expires_at = row.expires_at if self._lease.id else moment + UNLEASED_LIFETIME
        row = replace(row, digest=digest, size=size if digest else 0, virtual=bool(digest), expires_at=expires_at)
        self.write(db, row)
        if old and old.digest != digest:
            _discard_blob(db, old.digest)
        self._lease.hold(db, "ingests", ref)
        return row

    def write(self, db: sqlite3.Connection, row: IngestRow) -> None:
        """Write a whole row."""
        INGESTS.write(db, row, self._namespace)
        self._ledger.touch(nodes.ingest(self._namespace, row.ref))

    def set_digest(self, db: sqlite3.Connection, ref: str, digest: str) -> None:
        """Say which blob an ingest that is not virtual needs; ``""`` is none. Raises NotFound."""
        row = self.existing(db, ref)
        self.write(db, replace(row, digest=digest, size=0, virtual=False))
        if row.digest != digest:
            _discard_blob(db, row.digest)

    def close(self, db: sqlite3.Connection, row: IngestRow) -> None:
        """Forget an ingest, in the lease too."""
        remove_ingest(db, self._namespace, row)
        self._lease.let_go(db, "ingests", row.ref)

    def commit(self, db: sqlite3.Connection, row: IngestRow, digest: str, size: int, labels: dict[str, str]) -> None:
        """Turn an ingest into a blob of this namespace; the content store has the bytes."""
        moment = now()
        BLOBS.write(db, Info(digest, size, moment, moment, labels), self._namespace)
        self._ledger.touch(nodes.content(self._namespace, digest))
        self.close(db, row)
        self._lease.hold(db, "content", digest)


def remove_ingest(db: sqlite3.Connection, namespace: str, row: IngestRow) -> None:
    """Forget an ingest; its bytes and the blob it needed are discarded."""
    INGESTS.delete(db, namespace, row.ref)
    trash.discard_ingest(db, row.backend)
    _discard_blob(db, row.digest)


def _discard_blob(db: sqlite3.Connection, digest: str) -> None:
    if digest:
        trash.discard_blob(db, digest)
