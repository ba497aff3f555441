"""Leases, which keep things from garbage collection while somebody works on them (docs/containerd 3.8)."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping, Sequence

from windlass.contracts.leases import Lease, LeaseStore, Resource
from windlass.contracts.values import check_digest, check_label_keys
from windlass.errors import AlreadyExists, InvalidArgument, NotFound, Unimplemented
from windlass.filters import expressions as filter_expressions
from windlass.filters.fieldpaths import kept_labels
from windlass_metadata import nodes
from windlass_metadata.ledger import Ledger, ensure_namespace
from windlass_metadata.rows import decode_map, encode_map, now

NANOSECONDS = 1_000_000_000


class Leases(LeaseStore):
    """One namespace's leases."""

    def __init__(self, ledger: Ledger, namespace: str) -> None:
        """Read and write ``ledger``."""
        self._ledger = ledger
        self._namespace = namespace

    def create(self, id: str = "", labels: Mapping[str, str] | None = None) -> Lease:
        """See the contract."""
        check_label_keys(labels or {})
        moment = now()
        lease = Lease(id or random_id(moment), kept_labels(labels or {}), moment)

        def insert(db: sqlite3.Connection) -> None:
            if self._is_there(db, lease.id):
                raise AlreadyExists(f"lease {lease.id} already exists")
            ensure_namespace(db, self._namespace)
            db.execute(
                "INSERT INTO leases VALUES (?, ?, ?, ?)", (self._namespace, lease.id, encode_map(lease.labels), moment)
            )
            self._ledger.touch(nodes.lease(self._namespace, lease.id))

        # not durable: what a lease protects is made durable after it, and takes it along
        self._ledger.change(insert, durable=False)
        return lease

    def delete(self, id: str) -> None:
        """See the contract."""

        def remove(db: sqlite3.Connection) -> None:
            self._require(db, id)
            remove_lease(db, self._namespace, id)

        # not durable: a lease that comes back keeps things, and loses none
        self._ledger.change(remove, deletion=True, durable=False)

    def add_resource(self, id: str, resource: Resource) -> None:
        """See the contract; a resource that is there already is fine."""
        check_resource(resource)

        def add(db: sqlite3.Connection) -> None:
            self._require(db, id)
            db.execute(
                "INSERT OR IGNORE INTO lease_resources VALUES (?, ?, ?, ?)",
                (self._namespace, id, resource.type, resource.id),
            )
            self._ledger.touch(nodes.resource(self._namespace, resource.type, resource.id))

        self._ledger.change(add)

    def delete_resource(self, id: str, resource: Resource) -> None:
        """See the contract; a resource that is not there is fine."""
        check_resource(resource)

        def remove(db: sqlite3.Connection) -> None:
            self._require(db, id)
            db.execute(
                "DELETE FROM lease_resources WHERE namespace = ? AND lease = ? AND type = ? AND id = ?",
                (self._namespace, id, resource.type, resource.id),
            )

        self._ledger.change(remove, deletion=True)

    def resources(self, id: str) -> list[Resource]:
        """See the contract."""
        with self._ledger.read() as db:
            self._require(db, id)
            found = db.execute(
                "SELECT id, type FROM lease_resources WHERE namespace = ? AND lease = ? ORDER BY type, id",
                (self._namespace, id),
            ).fetchall()
        return [Resource(*row) for row in found]

    def list(self, filters: Sequence[str] = ()) -> list[Lease]:
        """See the contract."""
        accepts = filter_expressions.parse(filters)
        with self._ledger.read() as db:
            found = db.execute(
                "SELECT id, labels, created_at FROM leases WHERE namespace = ? ORDER BY id", (self._namespace,)
            ).fetchall()
        leases = [Lease(id, decode_map(labels), created_at) for id, labels, created_at in found]
        return [lease for lease in leases if accepts(adaptor(lease))]

    def _is_there(self, db: sqlite3.Connection, id: str) -> bool:
        query = "SELECT 1 FROM leases WHERE namespace = ? AND id = ?"
        return db.execute(query, (self._namespace, id)).fetchone() is not None

    def _require(self, db: sqlite3.Connection, id: str) -> None:
        if not self._is_there(db, id):
            raise NotFound(f"lease {id} does not exist")


def random_id(moment: int) -> str:
    """Return an ID as containerd makes them: the nanoseconds of the time, and four characters."""
    return f"{moment % NANOSECONDS}-{secrets.token_urlsafe(3)}"


def remove_lease(db: sqlite3.Connection, namespace: str, id: str) -> None:
    """Forget a lease and what it holds."""
    db.execute("DELETE FROM lease_resources WHERE namespace = ? AND lease = ?", (namespace, id))
    db.execute("DELETE FROM leases WHERE namespace = ? AND id = ?", (namespace, id))


def check_resource(resource: Resource) -> None:
    """Raise InvalidArgument or Unimplemented unless leases can hold such a resource."""
    kind, *rest = resource.type.split("/")
    if kind == "snapshots":
        if len(rest) != 1 or not rest[0]:
            raise InvalidArgument(f"resource type {resource.type[:128]!r}: write snapshots/<snapshotter>")
    elif resource.type not in nodes.RESOURCES:
        raise Unimplemented(
            f"leases cannot hold resources of type {resource.type[:128]!r}, only content, ingests, images and snapshots"
        )
    if not resource.id:
        raise InvalidArgument(f"the ID of a resource of type {resource.type} must not be empty")
    if resource.type == nodes.CONTENT:
        check_digest(resource.id)


def adaptor(lease: Lease) -> filter_expressions.Adaptor:
    """Show a lease to a filter."""

    def field(path: Sequence[str]) -> tuple[str, bool]:
        match path:
            case ["id"]:
                return filter_expressions.value_of(lease.id)
            case ["labels", *_]:
                return filter_expressions.label_of(lease.labels, path)
        return filter_expressions.ABSENT

    return field
