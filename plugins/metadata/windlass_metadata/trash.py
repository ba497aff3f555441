"""Objects of the stores behind us that no row needs any more, until they are gone from there.

A row of ``trash`` is written in the transaction that takes the last reference
away, so a crash cannot lose it. A change that needs the object again rescues it;
once its removal has begun, the change waits until that is over.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from windlass_metadata.ledger import Busy

BLOB = "blob"
INGEST = "ingest"
SNAPSHOT = "snapshot"

BLOB_IS_NEEDED = (
    "EXISTS (SELECT 1 FROM content WHERE digest = ?1)"
    " OR EXISTS (SELECT 1 FROM ingests WHERE digest = ?1 AND digest != '')"
)
DISCARD_BLOB = f"INSERT OR IGNORE INTO trash (kind, store, name) SELECT '{BLOB}', '', ?1 WHERE NOT ({BLOB_IS_NEEDED})"


def discard_blob(db: sqlite3.Connection, digest: str) -> None:
    """Discard a blob, unless a namespace has it or is about to."""
    discard_blobs(db, (digest,))


def discard_blobs(db: sqlite3.Connection, digests: Iterable[str]) -> None:
    """Discard many blobs, but for those that a namespace has or is about to have."""
    db.executemany(DISCARD_BLOB, ((digest,) for digest in digests))


def discard_ingest(db: sqlite3.Connection, backend: str) -> None:
    """Discard an ingest of the store behind us; its row is gone."""
    _discard(db, INGEST, "", backend)


def discard_snapshot(db: sqlite3.Connection, snapshotter: str, backend: str) -> None:
    """Discard a snapshot of the snapshotter behind us, unless a row has it: adopted ones are shared."""
    if not snapshot_is_needed(db, snapshotter, backend):
        _discard(db, SNAPSHOT, snapshotter, backend)


def rescue(db: sqlite3.Connection, kind: str, store: str, name: str) -> None:
    """Take an object out of the trash, if it is there. Raises Busy if its removal has begun."""
    row = db.execute(
        "SELECT id, removing FROM trash WHERE kind = ? AND store = ? AND name = ?", (kind, store, name)
    ).fetchone()
    if row is None:
        return
    if row[1]:
        raise Busy(f"{kind} {name}")
    db.execute("DELETE FROM trash WHERE id = ?", (row[0],))


def discard_unknown(db: sqlite3.Connection, kind: str, store: str, names: Iterable[str]) -> int:
    """Discard what a store has and no row knows; returns how many there were."""
    before = db.total_changes
    for name in names:
        if not _is_needed(db, kind, store, name):
            _discard(db, kind, store, name)
    return db.total_changes - before


def has_any(db: sqlite3.Connection, kind: str, store: str, after: int = 0) -> bool:
    """Return whether something is to be removed from a store, of those that were discarded after ``after``."""
    query = "SELECT 1 FROM trash WHERE kind = ? AND store = ? AND id > ? LIMIT 1"
    return db.execute(query, (kind, store, after)).fetchone() is not None


def claim(db: sqlite3.Connection, kind: str, store: str, after: int, limit: int) -> list[tuple[int, str]]:
    """Begin the removal of up to ``limit`` objects, oldest first; from here on they cannot be rescued."""
    claimed: list[tuple[int, str]] = db.execute(
        "SELECT id, name FROM trash WHERE kind = ? AND store = ? AND id > ? ORDER BY id LIMIT ?",
        (kind, store, after, limit),
    ).fetchall()
    if claimed:
        db.execute(
            "UPDATE trash SET removing = 1 WHERE kind = ? AND store = ? AND id > ? AND id <= ?",
            (kind, store, after, claimed[-1][0]),
        )
    return claimed


def conclude(db: sqlite3.Connection, gone: Sequence[int], there: Sequence[int]) -> None:
    """End the removal of some objects: forget those that are gone, keep those that could not be removed."""
    db.executemany("DELETE FROM trash WHERE id = ?", [(id,) for id in gone])
    db.executemany("UPDATE trash SET removing = 0 WHERE id = ?", [(id,) for id in there])


def blob_is_needed(db: sqlite3.Connection, digest: str) -> bool:
    """Return whether any namespace has a blob, or a commit or a virtual ingest is about to need it."""
    found = db.execute(f"SELECT {BLOB_IS_NEEDED}", (digest,)).fetchone()
    return bool(found[0])


def snapshot_is_needed(db: sqlite3.Connection, snapshotter: str, backend: str) -> bool:
    """Return whether any row, one under way included, has a snapshot of the snapshotter behind us."""
    found = db.execute(
        "SELECT EXISTS (SELECT 1 FROM snapshots WHERE snapshotter = ? AND backend = ?)", (snapshotter, backend)
    ).fetchone()
    return bool(found[0])


def _is_needed(db: sqlite3.Connection, kind: str, store: str, name: str) -> bool:
    if kind == BLOB:
        return blob_is_needed(db, name)
    if kind == SNAPSHOT:
        return snapshot_is_needed(db, store, name)
    return bool(db.execute("SELECT EXISTS (SELECT 1 FROM ingests WHERE backend = ?)", (name,)).fetchone()[0])


def _discard(db: sqlite3.Connection, kind: str, store: str, name: str) -> None:
    db.execute("INSERT OR IGNORE INTO trash (kind, store, name) VALUES (?, ?, ?)", (kind, store, name))
