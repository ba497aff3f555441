"""The table of `windlass_storage.metastore`, its migrations, and what is read from it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from windlass.contracts.snapshots import Info, Kind, Usage
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

MIGRATIONS: tuple[str, ...] = (
    # AUTOINCREMENT: a number is never given twice, so a left-over directory cannot become another snapshot's.
    """
    CREATE TABLE snapshot (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL UNIQUE,
        kind INTEGER NOT NULL CHECK (kind IN (1, 2, 3)),
        parent INTEGER REFERENCES snapshot (id),
        labels TEXT NOT NULL,
        inodes INTEGER NOT NULL DEFAULT 0,
        size INTEGER NOT NULL DEFAULT 0,
        created_at INTEGER NOT NULL,
        updated_at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX snapshot_parent ON snapshot (parent);
    """,
)
"""Each brings the schema to the version that is its place in the list, counted from 1 (PRAGMA user_version)."""

CHAIN = """
    WITH RECURSIVE chain (id, parent, depth) AS (
        SELECT id, parent, 0 FROM snapshot WHERE id = ?
        UNION ALL
        SELECT s.id, s.parent, depth + 1 FROM snapshot s JOIN chain c ON s.id = c.parent
    ) SELECT id FROM chain ORDER BY depth
"""
INFO = """
    SELECT s.kind, s.name, coalesce(p.name, ''), s.labels, s.created_at, s.updated_at
    FROM snapshot s LEFT JOIN snapshot p ON p.id = s.parent
"""
RESTORE = """
    INSERT INTO snapshot (id, name, kind, parent, labels, inodes, size, created_at, updated_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


@dataclass(frozen=True, slots=True)
class Record:
    """What a snapshotter needs to find a snapshot's files."""

    id: int
    kind: Kind
    parents: tuple[int, ...]
    """IDs of all snapshots beneath, nearest first."""
    labels: Mapping[str, str]
    usage: Usage
    """As stored at commit; zero before."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A snapshot as it is kept, ``parent`` by its ID."""

    id: int
    name: str
    kind: Kind
    parent: int | None
    labels: Mapping[str, str]
    usage: Usage
    created_at: int
    updated_at: int


def columns(kept: Kept) -> tuple[int | str | None, ...]:
    """Return the values for `RESTORE`."""
    usage, labels = kept.usage, dump(kept.labels)
    return (
        *(kept.id, kept.name, kept.kind, kept.parent, labels),
        *(usage.inodes, usage.size, kept.created_at, kept.updated_at),
    )


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the database to the newest schema. Raises FailedPrecondition for a newer one."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise FailedPrecondition(
            f"{path} has schema version {version}, newer than this program's {len(MIGRATIONS)}; upgrade it"
        )
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        db.executescript(f"BEGIN IMMEDIATE; {script}; PRAGMA user_version = {number}; COMMIT")


def find(db: sqlite3.Connection, key: str) -> tuple[int, int, str, int, int] | None:
    """Return ID, kind, labels, inodes and size of a snapshot, None if there is none."""
    found = db.execute("SELECT id, kind, labels, inodes, size FROM snapshot WHERE name = ?", (key,))
    row: tuple[int, int, str, int, int] | None = found.fetchone()
    return row


def chain(db: sqlite3.Connection, id: int) -> tuple[int, ...]:
    """Return the ID and those of all snapshots beneath, nearest first."""
    return tuple(below for (below,) in db.execute(CHAIN, (id,)))


def committed_parent(db: sqlite3.Connection, parent: str) -> int:
    """Return the ID of a parent. Raises NotFound, InvalidArgument."""
    row = find(db, parent)
    if row is None:
        raise NotFound(f"parent snapshot {parent} does not exist")
    if row[1] != Kind.COMMITTED:
        raise InvalidArgument(f"parent snapshot {parent} is not committed; commit it first")
    return row[0]


def creatable(db: sqlite3.Connection, key: str, parent: str) -> int | None:
    """Return the parent's ID when a snapshot ``key`` can be created on it, None for no parent."""
    if not key:
        raise InvalidArgument("a snapshot's key must not be empty")
    if find(db, key) is not None:
        raise AlreadyExists(f"snapshot {key} exists already")
    return committed_parent(db, parent) if parent else None


def record(db: sqlite3.Connection, key: str) -> Record:
    """Return the record of a snapshot of any kind. Raises NotFound."""
    row = find(db, key)
    if row is None:
        raise NotFound(f"snapshot {key} does not exist")
    id, kind, labels, inodes, size = row
    return Record(id, Kind(kind), chain(db, id)[1:], json.loads(labels), Usage(inodes, size))


def stat(db: sqlite3.Connection, key: str) -> Info:
    """Describe a snapshot of any kind. Raises NotFound."""
    row = db.execute(INFO + " WHERE s.name = ?", (key,)).fetchone()
    if row is None:
        raise NotFound(f"snapshot {key} does not exist")
    return info(row)


def info(row: tuple[int, str, str, str, int, int]) -> Info:
    """Return what a row of `INFO` describes."""
    kind, name, parent, labels, created_at, updated_at = row
    return Info(Kind(kind), name, parent, {} if labels == "{}" else json.loads(labels), created_at, updated_at)


def dump(labels: Mapping[str, str] | None) -> str:
    """Return labels as they are kept."""
    return json.dumps(dict(labels or {}), ensure_ascii=False)
