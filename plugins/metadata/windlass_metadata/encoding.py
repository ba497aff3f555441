"""The rows whose encoded records are missing or wrong: those of an older Windlass, and those that were damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from windlass_metadata.containers import CONTAINERS
from windlass_metadata.images import IMAGES
from windlass_metadata.sandboxes import SANDBOXES

TABLES = (IMAGES.table, CONTAINERS.table, SANDBOXES.table)


def complete(db: sqlite3.Connection) -> None:
    """Encode the records that are not, inside a change; an index has them."""
    for table in TABLES:
        table.encode_missing(db)


def wrong(db: sqlite3.Connection) -> Iterator[tuple[str, str, str]]:
    """Yield table, namespace and key of each row whose encoded record is not what its columns say."""
    for table in TABLES:
        yield from ((table.name, *row) for row in table.wrong(db))


def encode(db: sqlite3.Connection) -> int:
    """Encode them again, inside a change, and return how many there were."""
    return sum(table.encode_wrong(db) for table in TABLES)
