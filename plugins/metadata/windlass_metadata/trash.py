"""Objects of the stores behind us that no row needs any more, until they are gone from there.

A row of ``trash`` is written in the transaction that takes the last reference
away, so a crash cannot lose it. Somebody who wants the object again rescues it,
unless its removal has begun; then they wait until it is over.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence

from windlass_metadata.ledger import Busy

BLOB = "blob"
INGEST = "ingest"
SNAPSHOT = "snapshot"


def discard_blob(rows: sqlite3.Connection, digest: str) -> None:
    """Discard a blob, unless a namespace has it or is about to."""
    if not blob_is_needed(rows, digest):
        _discard(rows, BLOB, "", digest)


def discard_ingest(rows: sqlite3.Connection, backend: str) -> None:
    """Discard an ingest of the store behind us; its row is gone."""
    _discard(rows, INGEST, "", backend)


def discard_snapshot(rows: sqlite3.Connection, snapshotter: str, backend: str) -> None:
    """Discard a snapshot of the snapshotter behind us, unless a row has it: adopted ones are shared."""
    if not snapshot_is_needed(rows, snapshotter, backend):
        _discard(rows, SNAPSHOT, snapshotter, backend)


def rescue(rows: sqlite3.Connection, kind: str, store: str, name: str) -> None:
    """Take an object out of the trash, if it is there. Raises Busy if its removal has begun."""
    row = rows.execute(
        "SELECT id, removing FROM trash WHERE kind = ? AND store = ? AND name = ?", (kind, store, name)
    ).fetchone()
    if row is None:
        return
    if row[1]:
        raise Busy(f"{kind} {name}")
    rows.execute("DELETE FROM trash WHERE id = ?", (row[0],))


def discard_unknown(rows: sqlite3.Connection, kind: str, store: str, names: Iterable[str]) -> int:
    """Discard what a store has and no row knows; returns how many there were."""
    before = rows.total_changes
    for name in names:
        if not _is_needed(rows, kind, store, name):
            _discard(rows, kind, store, name)
    return rows.total_changes - before


def has_any(rows: sqlite3.Connection, kind: str, store: str, after: int = 0) -> bool:
    """Tell whether something is to be removed from a store, of those that were discarded after ``after``."""
    query = "SELECT 1 FROM trash WHERE kind = ? AND store = ? AND id > ? LIMIT 1"
    return rows.execute(query, (kind, store, after)).fetchone() is not None


def claim(rows: sqlite3.Connection, kind: str, store: str, after: int, limit: int) -> list[tuple[int, str]]:
    """Begin the removal of up to ``limit`` objects, oldest first; from here on they cannot be rescued."""
    claimed: list[tuple[int, str]] = rows.execute(
        "SELECT id, name FROM trash WHERE kind = ? AND store = ? AND id > ? ORDER BY id LIMIT ?",
        (kind, store, after, limit),
    ).fetchall()
    rows.executemany("UPDATE trash SET removing = 1 WHERE id = ?", [(id,) for id, _ in claimed])
    return claimed


def conclude(rows: sqlite3.Connection, gone: Sequence[int], there: Sequence[int]) -> None:
    """End the removal of some objects: forget those that are gone, keep those that could not be removed."""
    rows.executemany("DELETE FROM trash WHERE id = ?", [(id,) for id in gone])
    rows.executemany("UPDATE trash SET removing = 0 WHERE id = ?", [(id,) for id in there])


def blob_is_needed(rows: sqlite3.Connection, digest: str) -> bool:
    """Tell whether any namespace has a blob, or a commit or a virtual ingest is about to need it."""
    found = rows.execute(
        "SELECT EXISTS (SELECT 1 FROM content WHERE digest = ?1)"
        " OR EXISTS (SELECT 1 FROM ingests WHERE digest = ?1 AND digest != '')",
        (digest,),
    ).fetchone()
    return bool(found[0])


def snapshot_is_needed(rows: sqlite3.Connection, snapshotter: str, backend: str) -> bool:
    """Tell whether any row, one under way included, has a snapshot of the snapshotter behind us."""
    found = rows.execute(
        "SELECT EXISTS (SELECT 1 FROM snapshots WHERE snapshotter = ? AND backend = ?)", (snapshotter, backend)
    ).fetchone()
    return bool(found[0])


def _is_needed(rows: sqlite3.Connection, kind: str, store: str, name: str) -> bool:
    if kind == BLOB:
        return blob_is_needed(rows, name)
    if kind == SNAPSHOT:
        return snapshot_is_needed(rows, store, name)
    return bool(rows.execute("SELECT EXISTS (SELECT 1 FROM ingests WHERE backend = ?)", (name,)).fetchone()[0])


def _discard(rows: sqlite3.Connection, kind: str, store: str, name: str) -> None:
    rows.execute("INSERT OR IGNORE INTO trash (kind, store, name) VALUES (?, ?, ?)", (kind, store, name))
