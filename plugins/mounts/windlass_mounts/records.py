"""The rows of activations, in a SQLite database that is lost at boot, as mounts are.

Nothing is synced: a power cut takes the mounts away too.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from typing import TypedDict

from windlass.contracts.activations import Activation, ActiveMount
from windlass.contracts.mounts import Mount
from windlass.records import dataclass
from windlass_storage import databases

# AUTOINCREMENT: a number names a directory, and must not come to name another one's.
SCHEMA = """
CREATE TABLE IF NOT EXISTS activation (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    state INTEGER NOT NULL,
    lease TEXT NOT NULL,
    labels TEXT NOT NULL,
    mounts TEXT NOT NULL DEFAULT '{}',
    UNIQUE (namespace, name)
) STRICT
"""
COLUMNS = "SELECT id, namespace, name, state, lease, labels, mounts FROM activation"
BUSY_SECONDS = 10.0


class State(IntEnum):
    """What is known of an activation's mounts."""

    UNDER_WAY = 0
    """Some may be there: they are being made, or unmounted, or a daemon died over it."""
    ACTIVE = 1


@dataclass(frozen=True, slots=True)
class Row:
    """An activation as it is recorded."""

    id: int
    namespace: str
    state: State
    lease: str
    activation: Activation


class Records:
    """The rows; for any number of threads."""

    def __init__(self, path: Path) -> None:
        """Open the database at ``path``, or make it."""
        self._path = path
        databases.make_private(path)
        self._lock = threading.Lock()
        self._db = databases.connect(path, BUSY_SECONDS)
        try:
            with self._open() as db:
                for statement in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = OFF", SCHEMA):
                    db.execute(statement)
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database; a second time is nothing."""
        with self._lock:
            self._db.close()

    def add(self, namespace: str, name: str, lease: str, labels: Mapping[str, str]) -> int | None:
        """Make a row that is under way and return its ID; None when there is one of that name."""
        query = (
            "INSERT INTO activation (namespace, name, state, lease, labels) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING RETURNING id"
        )
        with self._open() as db:
            # All rows, or the statement would not be finished.
            found = db.execute(query, (namespace, name, State.UNDER_WAY, lease, json.dumps(dict(labels)))).fetchall()
        return int(found[0][0]) if found else None

    def finish(self, id: int, active: tuple[ActiveMount, ...], system: tuple[Mount, ...]) -> None:
        """Record that the mounts of a row are there."""
        mounts = json.dumps({"active": [asdict(each) for each in active], "system": [asdict(each) for each in system]})
        with self._open() as db:
            db.execute("UPDATE activation SET state = ?, mounts = ? WHERE id = ?", (State.ACTIVE, mounts, id))

    def suspect(self, id: int) -> None:
        """Record that the mounts of a row may be going."""
        with self._open() as db:
            db.execute("UPDATE activation SET state = ? WHERE id = ?", (State.UNDER_WAY, id))

    def label(self, id: int, labels: Mapping[str, str]) -> None:
        """Change the labels of a row."""
        with self._open() as db:
            db.execute("UPDATE activation SET labels = ? WHERE id = ?", (json.dumps(dict(labels)), id))

    def remove(self, id: int) -> None:
        """Forget a row."""
        with self._open() as db:
            db.execute("DELETE FROM activation WHERE id = ?", (id,))

    def find(self, namespace: str, name: str) -> Row | None:
        """Return the row of that name."""
        with self._open() as db:
            found = db.execute(f"{COLUMNS} WHERE namespace = ? AND name = ?", (namespace, name)).fetchone()
        return _row(found) if found else None

    def by_id(self, id: int) -> Row | None:
        """Return the row of that ID."""
        with self._open() as db:
            found = db.execute(f"{COLUMNS} WHERE id = ?", (id,)).fetchone()
        return _row(found) if found else None

    def all(self, namespace: str = "") -> list[Row]:
        """Return the rows of one namespace, or of all, by namespace and name."""
        with self._open() as db:
            found = db.execute(
                f"{COLUMNS} WHERE ?1 IN ('', namespace) ORDER BY namespace, name", (namespace,)
            ).fetchall()
        return [_row(each) for each in found]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock, databases.sqlite_errors(self._path, "database of mounts"):
            yield self._db


class _KeptMount(TypedDict):
    type: str
    source: str
    options: list[str]
    target: str


class _KeptActive(TypedDict):
    mount: _KeptMount
    mount_point: str
    mounted_at: int
    data: dict[str, str]


class _Kept(TypedDict, total=False):
    """The column ``mounts``, as JSON."""

    active: list[_KeptActive]
    system: list[_KeptMount]


def _row(row: tuple[int, str, str, int, str, str, str]) -> Row:
    id, namespace, name, state, lease, labels, mounts = row
    kept: _Kept = json.loads(mounts)
    active = tuple(_active(each) for each in kept.get("active", ()))
    system = tuple(_mount(each) for each in kept.get("system", ()))
    return Row(id, namespace, State(state), lease, Activation(name, active, system, json.loads(labels)))


def _active(kept: _KeptActive) -> ActiveMount:
    return ActiveMount(_mount(kept["mount"]), kept["mount_point"], kept["mounted_at"], kept["data"])


def _mount(kept: _KeptMount) -> Mount:
    return Mount(kept["type"], kept["source"], tuple(kept["options"]), kept["target"])
