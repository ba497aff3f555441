"""Rows of ingests: writes not yet committed, and virtual ones whose bytes another namespace has already."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

from windlass.errors import NotFound
from windlass_metadata import nodes, trash
from windlass_metadata.ledger import Ledger, ensure_namespace, hold, let_go, next_number
from windlass_metadata.rows import encode_map, now

COLUMNS = "ref, backend, digest, size, virtual, expires_at, started_at"

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


class IngestRows:
    """One namespace's ingests; every method works on a connection that it is given."""

    def __init__(self, ledger: Ledger, namespace: str, lease: str) -> None:
        """What is opened and committed is held by ``lease`` if it is not empty."""
        self._ledger = ledger
        self._namespace = namespace
        self._lease = lease

    def find(self, db: sqlite3.Connection, ref: str) -> IngestRow | None:
        """Return the row of a ref."""
        row = db.execute(
            f"SELECT {COLUMNS} FROM ingests WHERE namespace = ? AND ref = ?",  # noqa: S608 - columns of ours
            (self._namespace, ref),
        ).fetchone()
        return row and _row(*row)

    def existing(self, db: sqlite3.Connection, ref: str) -> IngestRow:
        """Return the row of a ref. Raises NotFound."""
        row = self.find(db, ref)
        if row is None:
            raise NotFound(f"ingest {ref} does not exist")
        return row

    def all(self, db: sqlite3.Connection) -> list[IngestRow]:
        """Return every row, by ref."""
        found = db.execute(
            f"SELECT {COLUMNS} FROM ingests WHERE namespace = ? ORDER BY ref",  # noqa: S608 - columns of ours
            (self._namespace,),
        )
        return [_row(*row) for row in found]

    def open(self, db: sqlite3.Connection, ref: str, digest: str, size: int) -> IngestRow:
        """Write the row of an ingest that is opened; with a digest it is virtual. An old one is continued."""
        ensure_namespace(db, self._namespace)
        moment = now()
        old = self.find(db, ref)
        row = old or IngestRow(ref, f"{self._namespace}/{next_number(db)}/{ref}", started_at=moment)
        expires_at = row.expires_at if self._lease else moment + UNLEASED_LIFETIME
        row = replace(row, digest=digest, size=size if digest else 0, virtual=bool(digest), expires_at=expires_at)
        self.write(db, row)
        if old and old.digest != digest:
            self._discard_blob(db, old.digest)
        hold(self._ledger, db, self._namespace, self._lease, "ingests", ref)
        return row

    def write(self, db: sqlite3.Connection, row: IngestRow) -> None:
        """Write a whole row."""
        db.execute(
            "INSERT OR REPLACE INTO ingests VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._namespace,
                row.ref,
                row.backend,
                row.digest,
                row.size,
                row.virtual,
                row.expires_at,
                row.started_at,
            ),
        )
        self._ledger.touch(nodes.ingest(self._namespace, row.ref))

    def set_digest(self, db: sqlite3.Connection, ref: str, digest: str) -> None:
        """Say which blob an ingest that is not virtual needs; ``""`` is none. Raises NotFound."""
        row = self.existing(db, ref)
        self.write(db, replace(row, digest=digest, size=0, virtual=False))
        if row.digest != digest:
            self._discard_blob(db, row.digest)

    def remove(self, db: sqlite3.Connection, row: IngestRow) -> None:
        """Forget an ingest; its bytes and the blob it needed are discarded."""
        db.execute("DELETE FROM ingests WHERE namespace = ? AND ref = ?", (self._namespace, row.ref))
        trash.discard_ingest(db, row.backend)
        self._discard_blob(db, row.digest)

    def close(self, db: sqlite3.Connection, row: IngestRow) -> None:
        """Forget an ingest, in the lease too."""
        self.remove(db, row)
        let_go(db, self._namespace, self._lease, "ingests", row.ref)

    def commit(self, db: sqlite3.Connection, row: IngestRow, digest: str, size: int, labels: dict[str, str]) -> None:
        """Turn an ingest into a blob of this namespace; the content store has the bytes."""
        moment = now()
        db.execute(
            "INSERT INTO content VALUES (?, ?, ?, ?, ?, ?)",
            (self._namespace, digest, size, encode_map(labels), moment, moment),
        )
        self._ledger.touch(nodes.content(self._namespace, digest))
        self.close(db, row)
        hold(self._ledger, db, self._namespace, self._lease, "content", digest)

    def _discard_blob(self, db: sqlite3.Connection, digest: str) -> None:
        if digest:
            trash.discard_blob(db, digest)


def _row(ref: str, backend: str, digest: str, size: int, virtual: int, expires_at: int, started_at: int) -> IngestRow:
    return IngestRow(ref, backend, digest, size, bool(virtual), expires_at, started_at)
