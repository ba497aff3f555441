"""Maps of sparse files: old GNU headers, pax 0.0, 0.1 and 1.0 (GNU tar manual, "Storing Sparse Files")."""

from __future__ import annotations

from collections.abc import Callable

from windlass.errors import InvalidArgument
from windlass_diff import pax

MAX_EXTENTS = 1 << 18
"""Pieces of data in one sparse file; the map is held in memory."""

BLOCK = 512
OLD_IN_HEADER = 4
OLD_IN_EXTENSION = 21
OLD_EXTENT = 24

Extents = list[tuple[int, int]]
Number = Callable[[bytes, str], int]
NextBlock = Callable[[], bytes]


def old_gnu(header: bytes, number: Number, block: NextBlock) -> tuple[Extents, int]:
    """Return extents and real size of a header of type ``S``, taking its extension blocks from the archive."""
    extents: Extents = []
    more = _old_extents(header, 386, OLD_IN_HEADER, extents, number) and header[482]
    while more:
        extension = block()
        more = _old_extents(extension, 0, OLD_IN_EXTENSION, extents, number) and extension[504]
    return extents, number(header[483:495], "real size")


def _old_extents(data: bytes, start: int, count: int, extents: Extents, number: Number) -> bool:
    for position in range(start, start + count * OLD_EXTENT, OLD_EXTENT):
        if not data[position]:
            return False
        offset = number(data[position : position + 12], "sparse offset")
        extents.append((offset, number(data[position + 12 : position + 24], "sparse length")))
    _check_count(len(extents))
    return True


def from_records(records: pax.Records) -> Extents:
    """Return the extents of version 0.0 (repeated records) or 0.1 (one record)."""
    values: list[int] = []
    for key, value in records:
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            if (key == b"GNU.sparse.offset") != (len(values) % 2 == 0):
                raise InvalidArgument("sparse map has an offset without a length")
            values.append(pax.number(key, value))
        elif key == b"GNU.sparse.map":
            values = [pax.number(key, v) for v in value.split(b",")] if value else []
        _check_count(len(values) // 2)
    return _pairs(values)


def from_data(block: NextBlock) -> tuple[Extents, int]:
    """Return the extents of version 1.0, which precede the file's data, and the length of the map in the archive."""
    numbers: list[int] = []
    rest = b""
    consumed = 0
    wanted = 1
    while len(numbers) < wanted:
        rest += block()
        consumed += BLOCK
        lines = rest.split(b"\n")
        rest = lines.pop()
        numbers += [pax.number(b"GNU.sparse.map", line) for line in lines[: wanted - len(numbers)]]
        if wanted == 1 and numbers:
            _check_count(numbers[0])
            wanted = 1 + 2 * numbers[0]
            numbers += [pax.number(b"GNU.sparse.map", line) for line in lines[1:wanted]]
        if len(rest) > BLOCK:
            raise InvalidArgument("sparse map has a line without an end")
    return _pairs(numbers[1:]), consumed


def check(extents: Extents, real_size: int, stored: int) -> None:
    """Raise InvalidArgument unless the extents ascend, fit the file and account for all ``stored`` bytes."""
    end = 0
    for offset, length in extents:
        if offset < end or offset + length > real_size:
            raise InvalidArgument(f"sparse map has an extent at {offset} that overlaps or leaves the file")
        end = offset + length
    if sum(length for _, length in extents) != stored:
        raise InvalidArgument("sparse map does not account for the bytes that are stored")


def _pairs(values: list[int]) -> Extents:
    if len(values) % 2:
        raise InvalidArgument("sparse map has an offset without a length")
    return list(zip(values[::2], values[1::2], strict=True))


def _check_count(count: int) -> None:
    if count > MAX_EXTENTS:
        raise InvalidArgument(f"sparse map has more than {MAX_EXTENTS} extents")
