"""Namespaces, each one tenant's scope of names (docs/containerd 3.4)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from windlass.contracts.namespaces import Namespace, NamespaceStore
from windlass.contracts.values import check_identifier, check_labels
from windlass.errors import FailedPrecondition, InvalidArgument, NotFound
from windlass.filters.fieldpaths import kept_labels, updated_labels
from windlass.plugin import quick
from windlass.typing import override
from windlass_api.containerd.events.namespace_pb2 import NamespaceCreate, NamespaceDelete, NamespaceUpdate
from windlass_metadata.columns import strings
from windlass_metadata.encoded import framed
from windlass_metadata.ingest_rows import INGESTS, remove_ingest
from windlass_metadata.ledger import Ledger
from windlass_metadata.remembered import Remembered
from windlass_metadata.table import Table
from windlass_remote.records import to_namespace

NAMESPACES = Table("namespaces", "namespace", Namespace, (strings("labels"),), scope=())
ENCODED = Remembered(NAMESPACES, to_namespace)

BLOCKING = (("images", "images"), ("content", "blobs"), ("containers", "containers"))
"""Tables that keep a namespace from being deleted, and what they are called in the message."""

DEPENDENT = ("lease_resources", "leases", "sandboxes")
"""Tables whose rows go with their namespace."""


class Namespaces(NamespaceStore):
    """All namespaces and their labels."""

    def __init__(self, ledger: Ledger) -> None:
        """Read and write ``ledger``."""
        self._ledger = ledger

    @override
    @quick
    def get(self, name: str) -> Namespace:
        """An unknown namespace is not an error, as in containerd."""
        check_identifier("namespace", name)
        with self._ledger.read() as db:
            return NAMESPACES.find(db, name) or Namespace(name)

    @quick
    def get_encoded(self, name: str) -> bytes:
        """Return what `get` does as bytes, see `windlass.contracts.encoded`."""
        check_identifier("namespace", name)
        try:
            return ENCODED.of(NAMESPACES.row(self._ledger.row, name))
        except NotFound:
            return framed(to_namespace(Namespace(name)))

    def list_encoded(self, filters: Sequence[str] = ()) -> Sequence[bytes]:
        """Return what `list` does as bytes; ``filters`` are ignored, as in containerd (docs/containerd 3.1)."""
        with self._ledger.read() as db:
            rows = NAMESPACES.rows(db)
        return [*ENCODED.all(rows)]

    @override
    def list(self) -> list[Namespace]:
        with self._ledger.read() as db:
            return NAMESPACES.all(db)

    @override
    def create(self, namespace: Namespace) -> Namespace:
        check_identifier("namespace", namespace.name)
        check_labels(namespace.labels)

        created = replace(namespace, labels=kept_labels(namespace.labels))

        def insert(db: sqlite3.Connection) -> None:
            NAMESPACES.refuse(db, created.name)
            NAMESPACES.write(db, created)

        self._ledger.change(insert)
        event = NamespaceCreate(name=created.name, labels=created.labels)
        self._ledger.publish(created.name, "/namespaces/create", event)
        return created

    @override
    def update(self, namespace: Namespace, fieldpaths: Sequence[str] = ()) -> Namespace:
        """The bare path ``labels`` is refused, as in containerd."""
        check_identifier("namespace", namespace.name)
        if "labels" in fieldpaths:
            raise InvalidArgument(
                f"cannot update field 'labels' of namespace {namespace.name}: name labels.<key>, or no field at all"
            )

        def write(db: sqlite3.Connection) -> Namespace:
            current = NAMESPACES.find(db, namespace.name) or Namespace(namespace.name)
            what = f"namespace {namespace.name}"
            labels = updated_labels(current.labels, namespace.labels, fieldpaths, what)
            updated = replace(current, labels=labels)
            NAMESPACES.write(db, updated)
            return updated

        updated = self._ledger.change(write)
        event = NamespaceUpdate(name=updated.name, labels=updated.labels)
        self._ledger.publish(updated.name, "/namespaces/update", event)
        return updated

    @override
    def delete(self, name: str) -> None:
        check_identifier("namespace", name)

        def remove(db: sqlite3.Connection) -> None:
            NAMESPACES.require(db, name)
            if left := _left(db, name):
                raise FailedPrecondition(f"namespace {name} must be empty, but it still has {', '.join(left)}")
            for ingest in INGESTS.all(db, name):
                remove_ingest(db, name, ingest)
            for table in DEPENDENT:
                db.execute(f"DELETE FROM {table} WHERE namespace = ?", (name,))  # noqa: S608 - a name of ours
            NAMESPACES.delete(db, name)

        self._ledger.change(remove, deletion=True)
        self._ledger.publish(name, "/namespaces/delete", NamespaceDelete(name=name))


def _left(db: sqlite3.Connection, name: str) -> list[str]:
    left = [
        word
        for table, word in BLOCKING
        if db.execute(f"SELECT 1 FROM {table} WHERE namespace = ? LIMIT 1", (name,)).fetchone()  # noqa: S608 - ours
    ]
    snapshotters = db.execute("SELECT DISTINCT snapshotter FROM snapshots WHERE namespace = ? ORDER BY 1", (name,))
    return left + [f"snapshots on {snapshotter} snapshotter" for (snapshotter,) in snapshotters]
