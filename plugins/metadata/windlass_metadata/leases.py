"""Leases, which keep things from garbage collection while a client works on them (docs/containerd 3.8)."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from functools import lru_cache

from windlass.contracts.leases import Lease, LeaseStore, Resource
from windlass.contracts.values import check_digest, check_label_keys
from windlass.errors import InvalidArgument, Unimplemented
from windlass.filters.fieldpaths import kept_labels
from windlass.typing import override
from windlass_api.containerd.services.leases.v1 import leases_pb2
from windlass_metadata import nodes
from windlass_metadata.columns import now
from windlass_metadata.encoded import framed
from windlass_metadata.fields import Visible
from windlass_metadata.ledger import Ledger, ensure_namespace
from windlass_metadata.remembered import MOST, Remembered
from windlass_metadata.request_lease import LEASES, RequestLease
from windlass_remote.records import to_lease

NANOSECONDS = 1_000_000_000


VISIBLE = Visible[Lease]({"id": "id"}, {"labels": "labels"})
ENCODED = Remembered(LEASES, to_lease)


class Leases(LeaseStore):
    """One namespace's leases."""

    def __init__(self, ledger: Ledger, namespace: str) -> None:
        """Read and write ``ledger``."""
        self._ledger = ledger
        self._namespace = namespace

    @override
    def create(self, id: str = "", labels: Mapping[str, str] | None = None) -> Lease:
        check_label_keys(labels or {})
        moment = now()
        lease = Lease(id or random_id(moment), kept_labels(labels or {}), moment)

        def insert(db: sqlite3.Connection) -> None:
            LEASES.refuse(db, self._namespace, lease.id)
            ensure_namespace(db, self._namespace)
            LEASES.write(db, lease, self._namespace)
            self._ledger.touch(nodes.lease(self._namespace, lease.id))

        # not durable: what a lease protects is made durable after it, and takes it along
        self._ledger.change(insert, durable=False)
        return lease

    @override
    def delete(self, id: str) -> None:
        def remove(db: sqlite3.Connection) -> None:
            LEASES.require(db, self._namespace, id)
            remove_lease(db, self._namespace, id)

        # not durable: a lease that comes back keeps things, and loses none
        self._ledger.change(remove, deletion=True, durable=False)

    @override
    def add_resource(self, id: str, resource: Resource) -> None:
        check_resource(resource)

        def add(db: sqlite3.Connection) -> None:
            LEASES.require(db, self._namespace, id)
            RequestLease(self._ledger, self._namespace, id).hold(db, resource.type, resource.id)

        self._ledger.change(add)

    @override
    def delete_resource(self, id: str, resource: Resource) -> None:
        check_resource(resource)

        def remove(db: sqlite3.Connection) -> None:
            LEASES.require(db, self._namespace, id)
            RequestLease(self._ledger, self._namespace, id).let_go(db, resource.type, resource.id)

        self._ledger.change(remove, deletion=True)

    @override
    def resources(self, id: str) -> list[Resource]:
        return [Resource(*row) for row in self._resources(id)]

    def resources_encoded(self, id: str) -> bytes:
        """Return what `resources` does as the response of ListResources."""
        return b"".join(map(_resource_bytes, self._resources(id)))

    def _resources(self, id: str) -> Sequence[tuple[str, str]]:
        """Return ID and type of what a lease holds."""
        with self._ledger.read() as db:
            LEASES.require(db, self._namespace, id)
            return db.execute(
                "SELECT id, type FROM lease_resources WHERE namespace = ? AND lease = ? ORDER BY type, id",
                (self._namespace, id),
            ).fetchall()

    def list_encoded(self, filters: Sequence[str] = ()) -> Sequence[bytes]:
        """Return what `list` does as bytes, see `windlass.contracts.encoded`."""
        accepts = VISIBLE.test(filters) if filters else None
        with self._ledger.read() as db:
            rows = LEASES.rows(db, self._namespace)
        return [*ENCODED.matching(rows, accepts)]

    @override
    def list(self, filters: Sequence[str] = ()) -> list[Lease]:
        accepts = VISIBLE.test(filters)
        with self._ledger.read() as db:
            leases = LEASES.all(db, self._namespace)
        return [lease for lease in leases if accepts(lease)]


@lru_cache(MOST)
def _resource_bytes(row: tuple[str, str]) -> bytes:
    id, type = row
    return framed(leases_pb2.Resource(id=id, type=type))


def random_id(moment: int) -> str:
    """Return an ID as containerd makes them: the nanoseconds of the time, and four characters."""
    return f"{moment % NANOSECONDS}-{secrets.token_urlsafe(3)}"


def remove_lease(db: sqlite3.Connection, namespace: str, id: str) -> bool:
    """Forget a lease and what it holds, and return whether there was one."""
    db.execute("DELETE FROM lease_resources WHERE namespace = ? AND lease = ?", (namespace, id))
    return LEASES.delete(db, namespace, id)


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
