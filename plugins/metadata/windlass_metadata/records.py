"""What the stores of containers, images and sandboxes have in common: one namespace's records of one kind."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

from google.protobuf.message import Message

from windlass.filters.fieldpaths import kept_labels
from windlass.plugin import quick
from windlass.records import dataclass
from windlass_metadata.columns import now
from windlass_metadata.fields import Mutable, Visible
from windlass_metadata.ledger import Ledger, ensure_namespace
from windlass_metadata.nodes import Node
from windlass_metadata.table import Table

if TYPE_CHECKING:
    from windlass_metadata.fields import Labelled

T = TypeVar("T", bound="Labelled")


@dataclass(frozen=True)
class Events(Generic[T]):
    """The events of a kind of records, whose topics begin with ``topic``."""

    topic: str
    create: Callable[[T], Message]
    update: Callable[[T], Message]
    delete: Callable[[str], Message]


@dataclass(frozen=True)
class Kind(Generic[T]):
    """How records of one kind are kept, checked, filtered, updated and published."""

    table: Table[T]
    key: Callable[[T], str]
    node: Callable[[str, str], Node]
    check: Callable[[T], None]
    """Raises InvalidArgument for a record that must not be kept."""
    visible: Visible[T]
    mutable: Mutable[T]
    events: Events[T] | None = None
    update_makes_garbage: bool = False


class Records(Generic[T]):
    """One namespace's records of a kind; the base of the store that its contract describes."""

    def __init__(self, kind: Kind[T], ledger: Ledger, namespace: str) -> None:
        """Read and write ``ledger``."""
        self._kind = kind
        self._ledger = ledger
        self._namespace = namespace

    @quick
    def get(self, key: str) -> T:
        """Return a record. Raises NotFound."""
        with self._ledger.read() as db:
            return self._kind.table.existing(db, self._namespace, key)

    def list(self, filters: Sequence[str] = ()) -> list[T]:
        """Return the records that match one of ``filters``, by key."""
        accepts = self._kind.visible.test(filters)
        with self._ledger.read() as db:
            records = self._kind.table.all(db, self._namespace)
        return [record for record in records if accepts(record)]

    @quick
    def get_encoded(self, key: str) -> bytes:
        """Return a record as bytes, see `windlass.contracts.encoded`. Raises NotFound."""
        return self._kind.table.find_encoded(self._ledger.row, self._namespace, key)

    def list_encoded(self, filters: Sequence[str] = ()) -> Sequence[bytes]:
        """Return the records that match one of ``filters`` as bytes, by key; of the others only what filters read."""
        fields, accepts = self._kind.visible.reading(filters)
        table = self._kind.table
        with self._ledger.read() as db:
            if fields:
                keys = [key for key, part in table.parts(db, fields, self._namespace) if accepts(part)]
                found = table.some_encoded(db, keys, self._namespace)
            else:
                found = table.all_encoded(db, self._namespace) if accepts(None) else []
        kept = [data for data in found if data is not None]
        # rows that something else than `Table.write` has put in are not encoded
        return kept if len(kept) == len(found) else [*map(table.encoded, self.list(filters))]

    def create(self, record: T, at: int | None = None) -> T:
        """Keep a record, as of ``at`` (default: now). Raises AlreadyExists, InvalidArgument."""
        kind = self._kind
        kind.check(record)
        moment = now() if at is None else at
        kept = kept_labels(record.labels)

        def insert(db: sqlite3.Connection) -> T:
            kind.table.refuse(db, self._namespace, kind.key(record))
            ensure_namespace(db, self._namespace)
            return self._write(db, replace(record, labels=kept, created_at=moment, updated_at=moment))

        created = self._ledger.change(insert)
        if kind.events:
            self._publish("create", kind.events.create(created))
        return created

    def update(self, record: T, fieldpaths: Sequence[str] = (), at: int | None = None) -> T:
        """Change what ``fieldpaths`` name, or all that may change, as of ``at``. Raises NotFound, InvalidArgument."""
        kind = self._kind

        def write(db: sqlite3.Connection) -> T:
            current = kind.table.existing(db, self._namespace, kind.key(record))
            changed = self._changed(current, record, fieldpaths)
            kind.check(changed)
            return self._write(db, replace(changed, updated_at=now() if at is None else at))

        updated = self._ledger.change(write, deletion=kind.update_makes_garbage)
        if kind.events:
            self._publish("update", kind.events.update(updated))
        return updated

    def delete(self, key: str) -> None:
        """Delete a record. Raises NotFound."""
        self._delete(key)

    def _delete(self, key: str, before: Callable[[sqlite3.Connection, T], None] = lambda _db, _record: None) -> None:
        """Delete a record; ``before`` is part of the change, and may refuse it."""
        kind = self._kind

        def remove(db: sqlite3.Connection) -> None:
            before(db, kind.table.existing(db, self._namespace, key))
            kind.table.delete(db, self._namespace, key)

        self._ledger.change(remove, deletion=True)
        if kind.events:
            self._publish("delete", kind.events.delete(key))

    def _changed(self, current: T, wanted: T, fieldpaths: Sequence[str]) -> T:
        """Return ``current`` with what an update changes of it."""
        what = f"{self._kind.table.what} {self._kind.key(current)}"
        return self._kind.mutable.changed(current, wanted, fieldpaths, what)

    def _write(self, db: sqlite3.Connection, record: T) -> T:
        """Write a record inside a change, and return it as it is kept."""
        self._kind.table.write(db, record, self._namespace)
        self._ledger.touch(self._kind.node(self._namespace, self._kind.key(record)))
        return record

    def _publish(self, verb: str, event: Message) -> None:
        if self._kind.events:
            self._ledger.publish(self._namespace, f"{self._kind.events.topic}/{verb}", event)
