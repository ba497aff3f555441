"""Namespaces, each one tenant's scope of names (docs/containerd 3.4)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from windlass.contracts.namespaces import Namespace, NamespaceStore
from windlass.contracts.values import check_identifier, check_labels
from windlass.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from windlass.filters.fieldpaths import kept_labels, updated_labels
from windlass.plugin import quick
from windlass_api.containerd.events.namespace_pb2 import NamespaceCreate, NamespaceDelete, NamespaceUpdate
from windlass_metadata import trash
from windlass_metadata.ledger import Ledger
from windlass_metadata.rows import decode_map, encode_map

BLOCKING = (("images", "images"), ("content", "blobs"), ("containers", "containers"))
"""Tables that keep a namespace from being deleted, and what they are called in the message."""

DEPENDENT = ("ingests", "lease_resources", "leases", "sandboxes")
"""Tables whose rows go with their namespace."""


class Namespaces(NamespaceStore):
    """All namespaces and their labels."""

    def __init__(self, ledger: Ledger) -> None:
        """Read and write ``ledger``."""
        self._ledger = ledger

    @quick
    def get(self, name: str) -> Namespace:
        """See the contract; an unknown namespace is not an error, as in containerd."""
        check_identifier("namespace", name)
        with self._ledger.read() as db:
            return Namespace(name, _labels(db, name) or {})

    def list(self) -> list[Namespace]:
        """See the contract."""
        with self._ledger.read() as db:
            found = db.execute("SELECT name, labels FROM namespaces ORDER BY name").fetchall()
        return [Namespace(name, decode_map(labels)) for name, labels in found]

    def create(self, namespace: Namespace) -> Namespace:
        """See the contract."""
        check_identifier("namespace", namespace.name)
        check_labels(namespace.labels)

        def insert(db: sqlite3.Connection) -> None:
            if _labels(db, namespace.name) is not None:
                raise AlreadyExists(f"namespace {namespace.name} already exists")
            db.execute("INSERT INTO namespaces VALUES (?, ?)", (namespace.name, encode_map(namespace.labels)))

        self._ledger.change(insert)
        created = replace(namespace, labels=kept_labels(namespace.labels))
        event = NamespaceCreate(name=created.name, labels=created.labels)
        self._ledger.publish(created.name, "/namespaces/create", event)
        return created

    def update(self, namespace: Namespace, fieldpaths: Sequence[str] = ()) -> Namespace:
        """See the contract; the bare path ``labels`` is refused, as in containerd."""
        check_identifier("namespace", namespace.name)
        if "labels" in fieldpaths:
            raise InvalidArgument(
                f"cannot update field 'labels' of namespace {namespace.name}: name labels.<key>, or no field at all"
            )

        def write(db: sqlite3.Connection) -> dict[str, str]:
            current = _labels(db, namespace.name) or {}
            labels = updated_labels(current, namespace.labels, fieldpaths, f"namespace {namespace.name}")
            db.execute("INSERT OR REPLACE INTO namespaces VALUES (?, ?)", (namespace.name, encode_map(labels)))
            return labels

        labels = self._ledger.change(write)
        event = NamespaceUpdate(name=namespace.name, labels=labels)
        self._ledger.publish(namespace.name, "/namespaces/update", event)
        return Namespace(namespace.name, labels)

    def delete(self, name: str) -> None:
        """See the contract."""
        check_identifier("namespace", name)

        def remove(db: sqlite3.Connection) -> None:
            if _labels(db, name) is None:
                raise NotFound(f"namespace {name} does not exist")
            if left := _left(db, name):
                raise FailedPrecondition(f"namespace {name} must be empty, but it still has {', '.join(left)}")
            _discard_ingests(db, name)
            for table in DEPENDENT:
                db.execute(f"DELETE FROM {table} WHERE namespace = ?", (name,))  # noqa: S608 - a name of ours
            db.execute("DELETE FROM namespaces WHERE name = ?", (name,))

        self._ledger.change(remove, deletion=True)
        self._ledger.publish(name, "/namespaces/delete", NamespaceDelete(name=name))


def _labels(db: sqlite3.Connection, name: str) -> dict[str, str] | None:
    row = db.execute("SELECT labels FROM namespaces WHERE name = ?", (name,)).fetchone()
    return None if row is None else decode_map(row[0])


def _left(db: sqlite3.Connection, name: str) -> list[str]:
    left = [
        word
        for table, word in BLOCKING
        if db.execute(f"SELECT 1 FROM {table} WHERE namespace = ? LIMIT 1", (name,)).fetchone()  # noqa: S608 - ours
    ]
    snapshotters = db.execute("SELECT DISTINCT snapshotter FROM snapshots WHERE namespace = ? ORDER BY 1", (name,))
    return left + [f"snapshots on {snapshotter} snapshotter" for (snapshotter,) in snapshotters]


def _discard_ingests(db: sqlite3.Connection, name: str) -> None:
    found = db.execute("SELECT backend, digest FROM ingests WHERE namespace = ?", (name,)).fetchall()
    db.execute("DELETE FROM ingests WHERE namespace = ?", (name,))
    for backend, digest in found:
        trash.discard_ingest(db, backend)
        if digest:
            trash.discard_blob(db, digest)
