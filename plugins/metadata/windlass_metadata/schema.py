"""The tables of the metadata database, as numbered migrations.

A migration, once released, never changes; what must change is a new one. Maps
are JSON, times are nanoseconds since the epoch, ``""`` is "none".
"""

from __future__ import annotations

import sqlite3

from windlass.errors import FailedPrecondition

FIRST = """
CREATE TABLE namespaces (
    name TEXT PRIMARY KEY,
    labels TEXT NOT NULL DEFAULT '{}'
) STRICT, WITHOUT ROWID;

CREATE TABLE images (
    namespace TEXT NOT NULL, name TEXT NOT NULL,
    media_type TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL, annotations TEXT NOT NULL,
    labels TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE containers (
    namespace TEXT NOT NULL, id TEXT NOT NULL,
    runtime TEXT NOT NULL, runtime_options_type TEXT, runtime_options BLOB, spec_type TEXT, spec BLOB,
    labels TEXT NOT NULL, image TEXT NOT NULL, snapshotter TEXT NOT NULL, snapshot_key TEXT NOT NULL,
    extensions TEXT NOT NULL, sandbox TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT;

CREATE TABLE sandboxes (
    namespace TEXT NOT NULL, id TEXT NOT NULL,
    runtime TEXT NOT NULL, runtime_options_type TEXT, runtime_options BLOB, spec_type TEXT, spec BLOB,
    labels TEXT NOT NULL, extensions TEXT NOT NULL, sandboxer TEXT NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT;

CREATE TABLE leases (
    namespace TEXT NOT NULL, id TEXT NOT NULL, labels TEXT NOT NULL, created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE lease_resources (
    namespace TEXT NOT NULL, lease TEXT NOT NULL, type TEXT NOT NULL, id TEXT NOT NULL,
    PRIMARY KEY (namespace, lease, type, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE content (
    namespace TEXT NOT NULL, digest TEXT NOT NULL, size INTEGER NOT NULL,
    labels TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX content_by_digest ON content (digest);

-- digest: the blob that a virtual ingest stands for, or that a commit under way will make
CREATE TABLE ingests (
    namespace TEXT NOT NULL, ref TEXT NOT NULL, backend TEXT NOT NULL,
    digest TEXT NOT NULL, size INTEGER NOT NULL, virtual INTEGER NOT NULL,
    expires_at INTEGER NOT NULL, started_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, ref)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX ingests_by_backend ON ingests (backend);
CREATE INDEX ingests_by_digest ON ingests (digest) WHERE digest != '';

-- state: 0 ready; 1 the backend is making it; 2 it is being committed; source: the key a name in state 1 is made from
CREATE TABLE snapshots (
    namespace TEXT NOT NULL, snapshotter TEXT NOT NULL, key TEXT NOT NULL,
    backend TEXT NOT NULL, kind INTEGER NOT NULL, parent TEXT NOT NULL, labels TEXT NOT NULL,
    created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    state INTEGER NOT NULL, source TEXT NOT NULL,
    PRIMARY KEY (namespace, snapshotter, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX snapshots_by_parent ON snapshots (namespace, snapshotter, parent) WHERE parent != '';
CREATE INDEX snapshots_by_backend ON snapshots (snapshotter, backend);
CREATE INDEX snapshots_under_way ON snapshots (snapshotter, state) WHERE state != 0;

-- objects of the stores behind us that no row needs any more
CREATE TABLE trash (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL, store TEXT NOT NULL, name TEXT NOT NULL, removing INTEGER NOT NULL DEFAULT 0,
    UNIQUE (kind, store, name)
) STRICT;

CREATE TABLE sequence (value INTEGER NOT NULL) STRICT;
INSERT INTO sequence VALUES (0);
"""

ENCODED = """
ALTER TABLE images ADD COLUMN encoded BLOB;
ALTER TABLE sandboxes ADD COLUMN encoded BLOB;

-- a value is found by reading all that stands before it in its row: what is small is first, what is large last
CREATE TABLE new_containers (
    namespace TEXT NOT NULL, id TEXT NOT NULL,
    runtime TEXT NOT NULL, labels TEXT NOT NULL, image TEXT NOT NULL, snapshotter TEXT NOT NULL,
    snapshot_key TEXT NOT NULL, sandbox TEXT NOT NULL, created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL,
    encoded BLOB,
    extensions TEXT NOT NULL, runtime_options_type TEXT, runtime_options BLOB, spec_type TEXT, spec BLOB,
    PRIMARY KEY (namespace, id)
) STRICT;
INSERT INTO new_containers SELECT
    namespace, id, runtime, labels, image, snapshotter, snapshot_key, sandbox, created_at, updated_at,
    NULL, extensions, runtime_options_type, runtime_options, spec_type, spec FROM containers;
DROP TABLE containers;
ALTER TABLE new_containers RENAME TO containers;

CREATE INDEX images_not_encoded ON images (namespace, name) WHERE encoded IS NULL;
CREATE INDEX sandboxes_not_encoded ON sandboxes (namespace, id) WHERE encoded IS NULL;
CREATE INDEX containers_not_encoded ON containers (namespace, id) WHERE encoded IS NULL;
"""
"""Records as bytes (`windlass_metadata.encoding` makes those of older databases)."""

MIGRATIONS: tuple[str, ...] = (FIRST, ENCODED)

SEQUENCE_LEAP = 1000
"""Numbers that are skipped at each opening: a power failure may have lost some that are in backend names."""


def migrate(db: sqlite3.Connection) -> None:
    """Bring the database to the newest schema. Raises FailedPrecondition for one from a newer Windlass."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > len(MIGRATIONS):
        raise FailedPrecondition(
            f"the metadata database has schema {version}, this Windlass knows {len(MIGRATIONS)}; install a newer one"
        )
    for number in range(version, len(MIGRATIONS)):
        # executescript commits first, so the transaction is part of the script
        db.executescript(f"BEGIN IMMEDIATE; {MIGRATIONS[number]} PRAGMA user_version = {number + 1}; COMMIT;")
    db.execute("UPDATE sequence SET value = value + ?", (SEQUENCE_LEAP,))
