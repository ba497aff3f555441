"""Records as bytes that no column has: they are made of a row, and remembered by the row.

A row that changes is another row, so nothing has to hear of changes, and what is remembered is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Generic, TypeVar

from google.protobuf.message import Message

from windlass_metadata.columns import Value
from windlass_metadata.encoded import framed
from windlass_metadata.table import Table

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")
Row = tuple[Value, ...]

MOST = 4096
"""Rows of one table whose bytes are remembered: at a kilobyte or so, 4 MB."""


class Remembered(Generic[T]):
    """The records of a table and their bytes, as `windlass.contracts.encoded` has them; used by any thread."""

    def __init__(self, table: Table[T], translate: Callable[[T], Message], most: int = MOST) -> None:
        """Remember nothing yet."""

        @lru_cache(most)
        def known(row: Row) -> tuple[T, bytes]:
            record = table.decode(row)
            return record, framed(translate(record))

        self._known = known

    def of(self, row: Row) -> bytes:
        """Return the bytes of a record, by its columns."""
        return self._known(row)[1]

    def all(self, rows: Iterable[Row]) -> Iterator[bytes]:
        """Return the bytes of each."""
        return (data for _, data in map(self._known, rows))

    def matching(self, rows: Iterable[Row], accepts: Callable[[T], bool] | None) -> Iterator[bytes]:
        """Return the bytes of those that match, of all without a filter; a filter changes no record."""
        if accepts is None:
            return self.all(rows)
        return (data for record, data in map(self._known, rows) if accepts(record))
