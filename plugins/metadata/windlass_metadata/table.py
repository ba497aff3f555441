"""One table of the database, whose rows are records of one class."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Generic, TypeVar

from windlass.errors import AlreadyExists, NotFound
from windlass_metadata.columns import Codec, Value

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class Table(Generic[T]):
    """The records of a dataclass, in columns that are named as its fields are.

    The first field is the key, which is unique within the ``scope``, columns that the record does not have itself.
    Every method works on a connection that it is given; ``at`` is a scope and a key.
    """

    def __init__(
        self, name: str, what: str, record: type[T], codecs: Sequence[Codec] = (), scope: Sequence[str] = ("namespace",)
    ) -> None:
        """Take ``what`` for messages: ``what`` and key name a record."""
        self.what = what
        self._make: Callable[..., T] = record
        codec_of = {codec.field: codec for codec in codecs}
        self._fields = [(field.name, codec_of.get(field.name)) for field in fields(record)]
        names: list[str] = []
        self._decoders: list[tuple[slice, Callable[..., object]]] = []
        for field, codec in self._fields:
            if codec:
                place = slice(len(names), len(names) + len(codec.columns))
                self._decoders.insert(0, (place, codec.decode))  # last first: earlier columns keep their places
            names += codec.columns if codec else (field,)
        self.columns = ", ".join(names)
        key = names[0]
        within = _where(scope)
        at = _where((*scope, key))
        self._select_all = f"SELECT {self.columns} FROM {name}{within} ORDER BY {key}"  # noqa: S608 - names of ours
        self._select = f"SELECT {self.columns} FROM {name}{at}"  # noqa: S608 - names of ours
        self._exists = f"SELECT 1 FROM {name}{at}"  # noqa: S608 - names of ours
        self._delete = f"DELETE FROM {name}{at}"  # noqa: S608 - names of ours
        marks = ", ".join("?" * (len(scope) + len(names)))
        self._write = f"INSERT OR REPLACE INTO {name} ({', '.join((*scope, *names))}) VALUES ({marks})"  # noqa: S608

    def has(self, db: sqlite3.Connection, *at: str) -> bool:
        """Return whether there is a record."""
        return db.execute(self._exists, at).fetchone() is not None

    def find(self, db: sqlite3.Connection, *at: str) -> T | None:
        """Return a record, None if there is none."""
        row = db.execute(self._select, at).fetchone()
        return None if row is None else self.decode(row)

    def existing(self, db: sqlite3.Connection, *at: str) -> T:
        """Return a record. Raises NotFound."""
        record = self.find(db, *at)
        if record is None:
            raise NotFound(f"{self.what} {at[-1]} does not exist")
        return record

    def all(self, db: sqlite3.Connection, *scope: str) -> list[T]:
        """Return the records of a scope, by key."""
        return [self.decode(row) for row in db.execute(self._select_all, scope)]

    def rows(self, db: sqlite3.Connection, *scope: str) -> list[tuple[Value, ...]]:
        """Return what `decode` makes the records of a scope from, by key."""
        return db.execute(self._select_all, scope).fetchall()

    def write(self, db: sqlite3.Connection, record: T, *scope: str) -> None:
        """Write a record, over one with its key."""
        db.execute(self._write, (*scope, *self.encode(record)))

    def require(self, db: sqlite3.Connection, *at: str) -> None:
        """Raise NotFound unless there is a record."""
        if not self.has(db, *at):
            raise NotFound(f"{self.what} {at[-1]} does not exist")

    def refuse(self, db: sqlite3.Connection, *at: str) -> None:
        """Raise AlreadyExists if there is a record."""
        if self.has(db, *at):
            raise AlreadyExists(f"{self.what} {at[-1]} already exists")

    def delete(self, db: sqlite3.Connection, *at: str) -> bool:
        """Delete a record, and return whether there was one."""
        return db.execute(self._delete, at).rowcount > 0

    def encode(self, record: T) -> list[Value]:
        """Return the columns of a record."""
        row: list[Value] = []
        for field, codec in self._fields:
            value = getattr(record, field)
            if codec:
                row += codec.encode(value)
            else:
                row.append(value)
        return row

    def decode(self, row: Sequence[Value]) -> T:
        """Return the record of a row, in the order of `columns`."""
        values: list[object] = [*row]
        for place, decode in self._decoders:
            values[place] = (decode(*values[place]),)
        return self._make(*values)


def _where(columns: Sequence[str]) -> str:
    return " WHERE " + " AND ".join(f"{column} = ?" for column in columns) if columns else ""
