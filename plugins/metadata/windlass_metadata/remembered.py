"""Records as bytes that no column has: they are made of a row, and remembered by the row.

A row that changes is another row, so nothing has to hear of changes, and what is remembered is never wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
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
"""Rows of one table whose bytes are remembered: at 600 bytes or so, 2.5 MB."""


class Remembered(Generic[T]):
    """The bytes of a table's records, as `windlass.contracts.encoded` has them; used by any thread."""

    def __init__(self, table: Table[T], translate: Callable[[T], Message], most: int = MOST) -> None:
        """Remember nothing yet."""
        self._table = table

        @lru_cache(most)
        def of(row: Row) -> bytes:
            return framed(translate(table.decode(row)))

        self._of = of

    def of(self, row: Row) -> bytes:
        """Return the bytes of a record, by its columns."""
        return self._of(row)

    def all(self, rows: Iterable[Row]) -> Iterator[bytes]:
        """Return the bytes of each."""
        return map(self._of, rows)

    def matching(self, rows: Sequence[Row], accepts: Callable[[T], bool] | None) -> Iterator[bytes]:
        """Return the bytes of those that match, of all without a filter."""
        if accepts is None:
            return self.all(rows)
        decode = self._table.decode
        return (self._of(row) for row in rows if accepts(decode(row)))
