"""HPACK (RFC 7541): reads a peer's header blocks, and writes ours without a dynamic table.

Four times as fast as the decoder of the library `hpack`, whose Huffman code and
static table are used: fields are checked and turned into strings once, when they
enter the table, and short Huffman strings are remembered.
"""

from __future__ import annotations

import re
from collections import deque
from functools import lru_cache
from typing import NamedTuple

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

TABLE_SIZE = 4096
"""The peer's dynamic table, in bytes as RFC 7541 section 4.1 counts; the default, which we do not change."""
ENTRY_OVERHEAD = 32
LARGEST_INTEGER = 1 << 24
REMEMBERED = 128
"""Strings of more bytes are decoded, and fields with such values checked, each time."""

NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+|:(?:method|scheme|path|authority|status)")
BAD_VALUE = re.compile(rb"[\x00\r\n]")


class HeaderFailure(Exception):
    """A block that does not parse; the peer's table and ours differ from here on."""


class Field(NamedTuple):
    """A header; its name is empty when RFC 9113 sections 8.2.1 and 8.3 forbid what it was."""

    name: str
    value: str
    size: int


def _field(name: bytes, value: bytes) -> Field:
    size = ENTRY_OVERHEAD + len(name) + len(value)
    if NAME.fullmatch(name) is None or BAD_VALUE.search(value) is not None:
        return Field("", "", size)
    try:
        return Field(name.decode("ascii"), value.decode("utf-8"), size)
    except UnicodeDecodeError:
        return Field(name.decode("ascii"), value.decode("latin-1"), size)


_field_short = lru_cache(maxsize=2048)(_field)

STATIC = tuple(_field(name, value) for name, value in HeaderTable.STATIC_TABLE)
STATIC_NAMES = {field.name: index for index, field in reversed(list(enumerate(STATIC, 1)))}


def _unhuffman(data: bytes) -> bytes:
    try:
        return bytes(decode_huffman(data))
    except HPACKError as error:
        raise HeaderFailure(str(error)) from None


_unhuffman_short = lru_cache(maxsize=2048)(_unhuffman)


class Decoder:
    """One connection's reader of header blocks; blocks must come in order, all of them."""

    __slots__ = ("_limit", "_most", "_size", "_table")

    def __init__(self, most: int) -> None:
        """Keep at most ``most`` bytes of fields of one block."""
        self._most = most
        self._table: deque[Field] | None = None  # until there is an entry: an empty one takes 600 bytes
        self._size = 0
        self._limit = TABLE_SIZE

    def decode(self, block: bytes) -> list[Field] | None:
        """Return the fields of a block, None when they are too many. Raises HeaderFailure."""
        fields: list[Field] = []
        total = position = 0
        end = len(block)
        try:
            while position < end:
                first = block[position]
                if first & 0x80:
                    index, position = _integer(block, position, 0x7F)
                    field = self._entry(index)
                elif first & 0x40:
                    field, position = self._literal(block, position, 0x3F)
                    self._add(field)
                elif first & 0x20:
                    if total:
                        raise HeaderFailure("the table's size changes within a block")
                    size, position = _integer(block, position, 0x1F)
                    self._resize(size)
                    continue
                else:
                    field, position = self._literal(block, position, 0x0F)
                total += field.size
                if total <= self._most:
                    fields.append(field)
        except IndexError:
            raise HeaderFailure("the block ends in the middle of a field") from None
        return fields if total <= self._most else None

    def _entry(self, index: int) -> Field:
        if 0 < index <= len(STATIC):
            return STATIC[index - 1]
        if not index or self._table is None or index > len(STATIC) + len(self._table):
            raise HeaderFailure(f"no entry {index} in the table")
        return self._table[index - len(STATIC) - 1]

    def _literal(self, block: bytes, position: int, mask: int) -> tuple[Field, int]:
        index, position = _integer(block, position, mask)
        if index:
            name = self._entry(index).name.encode("ascii")
        else:
            name, position = _string(block, position)
        value, position = _string(block, position)
        short = len(name) <= REMEMBERED and len(value) <= REMEMBERED
        return (_field_short if short else _field)(name, value), position

    def _add(self, field: Field) -> None:
        if self._table is None:
            self._table = deque()
        self._table.appendleft(field)
        self._size += field.size
        self._shrink()

    def _resize(self, size: int) -> None:
        if size > TABLE_SIZE:
            raise HeaderFailure(f"a table of {size} bytes, {TABLE_SIZE} were offered")
        self._limit = size
        self._shrink()

    def _shrink(self) -> None:
        while self._table and self._size > self._limit:
            self._size -= self._table.pop().size


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        octet = block[position]
        position += 1
        value += (octet & 0x7F) << shift
        if value > LARGEST_INTEGER or shift > 28:
            raise HeaderFailure("an integer is too large")
        if octet < 0x80:
            return value, position
        shift += 7


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    huffman = block[position] & 0x80
    size, position = _integer(block, position, 0x7F)
    end = position + size
    if end > len(block):
        raise HeaderFailure("a string is longer than its block")
    data = block[position:end]
    if not huffman:
        return data, end
    return (_unhuffman_short if size <= REMEMBERED else _unhuffman)(data), end


def encode(name: str, value: bytes) -> bytes:
    """Return a field as a literal that enters no table."""
    index = STATIC_NAMES.get(name, 0)
    head = _encode_integer(0x00, 0x0F, index)
    if not index:
        head += _encode_integer(0x00, 0x7F, len(name)) + name.encode("ascii")
    return head + _encode_integer(0x00, 0x7F, len(value)) + value


def _encode_integer(start: int, mask: int, value: int) -> bytes:
    if value < mask:
        return bytes((start | value,))
    octets = [start | mask]
    value -= mask
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)
