"""One table of the database, whose rows are records of one class."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import fields
from types import SimpleNamespace
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
        self,
        name: str,
        what: str,
        record: type[T],
        codecs: Sequence[Codec] = (),
        scope: Sequence[str] = ("namespace",),
        encoded: Callable[[T], bytes] | None = None,
    ) -> None:
        """Take ``what`` for messages: ``what`` and key name a record.

        With ``encoded`` a column of that name has what it makes of the record; NULL if nothing has made it yet.
        """
        self.what = what
        self.name = name
        self._encoded = encoded
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
        self._key = key = names[0]
        within = _where(scope)
        at = _where((*scope, key))
        self._select_all = f"SELECT {self.columns} FROM {name}{within} ORDER BY {key}"  # noqa: S608 - names of ours
        self._select = f"SELECT {self.columns} FROM {name}{at}"  # noqa: S608 - names of ours
        self._exists = f"SELECT 1 FROM {name}{at}"  # noqa: S608 - names of ours
        self._delete = f"DELETE FROM {name}{at}"  # noqa: S608 - names of ours
        self._encoded_at = f"SELECT encoded FROM {name}{at}"  # noqa: S608 - names of ours
        self._each_encoded = f"SELECT encoded FROM {name}{within} ORDER BY {key}"  # noqa: S608 - names of ours
        self._some_columns = f"SELECT {key}{{more}} FROM {name}{within} ORDER BY {key}"  # noqa: S608 - names of ours
        written = (*scope, *names, "encoded") if encoded else (*scope, *names)
        marks = ", ".join("?" * len(written))
        self._write = f"INSERT OR REPLACE INTO {name} ({', '.join(written)}) VALUES ({marks})"  # noqa: S608

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

    def row(self, row: Callable[[str, Sequence[str]], Sequence[Value] | None], *at: str) -> tuple[Value, ...]:
        """Return what `decode` makes a record from, by what looks for one row. Raises NotFound."""
        found = row(self._select, at)
        if found is None:
            raise NotFound(f"{self.what} {at[-1]} does not exist")
        return tuple(found)

    def write(self, db: sqlite3.Connection, record: T, *scope: str) -> None:
        """Write a record, over one with its key."""
        row = self.encode(record)
        if self._encoded:
            row.append(self._encoded(record))
        db.execute(self._write, (*scope, *row))

    def encoded(self, record: T) -> bytes:
        """Return a record as the column ``encoded`` has it."""
        assert self._encoded
        return self._encoded(record)

    def find_encoded(self, row: Callable[[str, Sequence[str]], Sequence[Value] | None], *at: str) -> bytes:
        """Return a record as bytes, by what looks for one row. Raises NotFound."""
        found = row(self._encoded_at, at)
        if found is None:
            raise NotFound(f"{self.what} {at[-1]} does not exist")
        if isinstance(found[0], bytes):
            return found[0]
        whole = row(self._select, at)
        if whole is None:
            raise NotFound(f"{self.what} {at[-1]} does not exist")
        return self.encoded(self.decode(whole))

    def all_encoded(self, db: sqlite3.Connection, *scope: str) -> list[bytes | None]:
        """Return the records of a scope as bytes, by key."""
        return [data for (data,) in db.execute(self._each_encoded, scope)]

    def wrong(self, db: sqlite3.Connection) -> Iterator[tuple[str, str]]:
        """Yield scope and key of each record whose bytes are not what its columns say; only of tables of namespaces."""
        for namespace, encoded, *row in db.execute(f"SELECT namespace, encoded, {self.columns} FROM {self.name}"):  # noqa: S608 - names of ours
            if encoded != self.encoded(self.decode(row)):
                yield namespace, row[0]

    def encode_missing(self, db: sqlite3.Connection) -> None:
        """Make the bytes of each record that has none."""
        query = f"SELECT namespace, {self._key} FROM {self.name} WHERE encoded IS NULL"  # noqa: S608 - names of ours
        for at in db.execute(query).fetchall():
            self.write(db, self.existing(db, *at), at[0])

    def encode_wrong(self, db: sqlite3.Connection) -> int:
        """Make the bytes of those again, and return how many there were."""
        found = list(self.wrong(db))
        for at in found:
            self.write(db, self.existing(db, *at), at[0])
        return len(found)

    def some_encoded(self, db: sqlite3.Connection, keys: Collection[str], *scope: str) -> list[bytes | None]:
        """Return the records with these keys as bytes, in their order."""
        find = self._encoded_at
        return [db.execute(find, (*scope, key)).fetchone()[0] for key in keys]

    def parts(
        self, db: sqlite3.Connection, fields: Collection[str], *scope: str
    ) -> Iterator[tuple[str, SimpleNamespace]]:
        """Yield the key of each record of a scope, and the ``fields`` of it, by key."""
        chosen = [(field, codec) for field, codec in self._fields if field in fields]
        columns = [name for field, codec in chosen for name in (codec.columns if codec else (field,))]
        more = "".join(f", {name}" for name in columns)
        for key, *row in db.execute(self._some_columns.format(more=more), scope):
            part, at = SimpleNamespace(), 0
            for field, codec in chosen:
                size = len(codec.columns) if codec else 1
                values = row[at : at + size]
                setattr(part, field, codec.decode(*values) if codec else values[0])
                at += size
            yield key, part

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

    def delete_each(self, db: sqlite3.Connection, each: Iterable[Sequence[str]]) -> int:
        """Delete many records, and return how many there were."""
        return max(0, db.executemany(self._delete, each).rowcount)

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
