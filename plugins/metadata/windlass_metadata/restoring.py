"""Records as another daemon kept them, into an empty database and out of one, with their names and times."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import field

from windlass.contracts.containers import Container
from windlass.contracts.content import Info
from windlass.contracts.images import Image
from windlass.contracts.leases import Lease, Resource
from windlass.contracts.namespaces import Namespace
from windlass.contracts.sandboxes import Sandbox
from windlass.contracts.snapshots import Kind
from windlass.records import dataclass
from windlass_metadata.containers import CONTAINERS
from windlass_metadata.database import Database
from windlass_metadata.images import IMAGES
from windlass_metadata.ingest_rows import BLOBS
from windlass_metadata.ledger import ensure_namespace
from windlass_metadata.namespaces import NAMESPACES
from windlass_metadata.request_lease import LEASES
from windlass_metadata.sandboxes import SANDBOXES
from windlass_metadata.snapshot_rows import SNAPSHOTS, RowState, SnapshotRow

TABLES = ("images", "containers", "sandboxes", "content", "snapshots", "leases")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as a namespace has it; ``backend`` is its key or name in the snapshotter."""

    snapshotter: str
    key: str
    backend: str
    kind: Kind
    parent: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    created_at: int = 0
    updated_at: int = 0


@dataclass(slots=True)
class Contents:
    """All that is kept in one namespace, but for what is being written."""

    namespace: Namespace
    images: list[Image] = field(default_factory=list)
    containers: list[Container] = field(default_factory=list)
    sandboxes: list[Sandbox] = field(default_factory=list)
    blobs: list[Info] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    leases: list[tuple[Lease, list[Resource]]] = field(default_factory=list)


def restore(database: Database, contents: Sequence[Contents]) -> None:
    """Write what other daemons kept, all of it or nothing. No row may be there yet."""

    def write(db: sqlite3.Connection) -> None:
        for each in contents:
            _write(db, each)
        last = max((_number(row.backend) for each in contents for row in each.snapshots), default=0)
        db.execute("UPDATE sequence SET value = max(value, ?)", (last,))

    database.write(write)


def kept(database: Database) -> list[Contents]:
    """Return all that is kept; snapshots and blobs by their keys alone."""
    with database.read() as db:
        found = [Contents(namespace) for namespace in NAMESPACES.all(db)]
        for each in found:
            name = each.namespace.name
            each.images = IMAGES.table.all(db, name)
            each.containers = CONTAINERS.table.all(db, name)
            each.sandboxes = SANDBOXES.table.all(db, name)
            each.blobs = BLOBS.all(db, name)
            query = "SELECT snapshotter, key, backend, kind FROM snapshots WHERE namespace = ? ORDER BY 1, 2"
            each.snapshots = [
                Snapshot(one, key, backend, Kind(kind)) for one, key, backend, kind in db.execute(query, (name,))
            ]
    return found


def is_empty(database: Database) -> bool:
    """Return whether no record is kept."""
    with database.read() as db:
        return not any(db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() for table in TABLES)  # noqa: S608 - ours


def _write(db: sqlite3.Connection, each: Contents) -> None:
    name = each.namespace.name
    ensure_namespace(db, name)
    NAMESPACES.write(db, each.namespace)
    for image in each.images:
        IMAGES.table.write(db, image, name)
    for container in each.containers:
        CONTAINERS.table.write(db, container, name)
    for sandbox in each.sandboxes:
        SANDBOXES.table.write(db, sandbox, name)
    for blob in each.blobs:
        BLOBS.write(db, blob, name)
    for one in each.snapshots:
        row = SnapshotRow(
            one.key, one.backend, one.kind, one.parent, one.labels, one.created_at, one.updated_at, RowState.READY
        )
        SNAPSHOTS.write(db, row, name, one.snapshotter)
    for lease, resources in each.leases:
        LEASES.write(db, lease, name)
        held = [(name, lease.id, resource.type, resource.id) for resource in resources]
        db.executemany("INSERT OR IGNORE INTO lease_resources (namespace, lease, type, id) VALUES (?, ?, ?, ?)", held)


def _number(backend: str) -> int:
    """Return the number in the name that a snapshotter knows a snapshot by, `namespace/number/key`."""
    parts = backend.split("/", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdecimal() else 0
