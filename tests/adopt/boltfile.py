"""Writes small bolt databases: what containerd's would look like, and what no program would write."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TypeAlias

from google.protobuf.any_pb2 import Any as AnyMessage

PAGE_SIZE = 4096
Tree: TypeAlias = "dict[str, bytes | Tree]"


def checksum(data: bytes) -> int:
    """FNV-1a of 64 bits."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


class BoltFile:
    """A database in the making."""

    def __init__(self, per_page: int = 40, inline: int = 200) -> None:
        """Have at most ``per_page`` elements on a page, and buckets of at most ``inline`` bytes in their values."""
        self._per_page = per_page
        self._inline = inline
        self._pages: dict[int, bytes] = {}
        self._next = 3

    def write(self, path: Path, tree: Tree, version: int = 2, transactions: tuple[int, int] = (1, 2)) -> None:
        """Write a file whose root bucket holds ``tree``."""
        root = self._build(tree)
        pages = self._next
        image = bytearray(pages * PAGE_SIZE)
        for number, transaction in enumerate(transactions):
            meta = struct.pack("<IIIIQQQQQ", 0xED0CDAED, version, PAGE_SIZE, 0, root, 0, 2, pages, transaction)
            page = struct.pack("<QHHI", number, 0x04, 0, 0) + meta + struct.pack("<Q", checksum(meta))
            image[number * PAGE_SIZE : number * PAGE_SIZE + len(page)] = page
        image[2 * PAGE_SIZE : 2 * PAGE_SIZE + 16] = struct.pack("<QHHI", 2, 0x10, 0, 0)
        for id, data in self._pages.items():
            image[id * PAGE_SIZE : id * PAGE_SIZE + len(data)] = data
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)

    def _build(self, tree: Tree) -> int:
        """Return the page that a bucket's tree begins at."""
        elements = [self._element(key, tree[key]) for key in sorted(tree, key=str.encode)]
        groups = [elements[at : at + self._per_page] for at in range(0, len(elements), self._per_page)] or [[]]
        level = [(group[0][1] if group else b"", self._place(0x02, leaf(group), len(group))) for group in groups]
        while len(level) > 1:
            groups_above = [level[at : at + self._per_page] for at in range(0, len(level), self._per_page)]
            level = [(group[0][0], self._place(0x01, branch(group), len(group))) for group in groups_above]
        return level[0][1]

    def _element(self, key: str, value: bytes | Tree) -> tuple[int, bytes, bytes]:
        if isinstance(value, bytes):
            return 0, key.encode(), value
        if not any(isinstance(each, dict) for each in value.values()):
            inner = leaf([self._element(name, value[name]) for name in sorted(value, key=str.encode)])
            if len(inner) <= self._inline:
                page = struct.pack("<QHHI", 0, 0x02, len(value), 0) + inner
                return 1, key.encode(), struct.pack("<QQ", 0, 0) + page
        return 1, key.encode(), struct.pack("<QQ", self._build(value), 7)

    def _place(self, flags: int, body: bytes, count: int) -> int:
        length = 16 + len(body)
        taken = -(-length // PAGE_SIZE)
        id, self._next = self._next, self._next + taken
        self._pages[id] = struct.pack("<QHHI", id, flags, count, taken - 1) + body
        return id


def leaf(elements: list[tuple[int, bytes, bytes]]) -> bytes:
    """Return the elements of a leaf page."""
    heads, data = b"", b""
    for number, (flags, key, value) in enumerate(elements):
        position = (len(elements) - number) * 16 + len(data)
        heads += struct.pack("<IIII", flags, position, len(key), len(value))
        data += key + value
    return heads + data


def branch(children: list[tuple[bytes, int]]) -> bytes:
    """Return the elements of a branch page."""
    heads, data = b"", b""
    for number, (key, id) in enumerate(children):
        position = (len(children) - number) * 16 + len(data)
        heads += struct.pack("<IIQ", position, len(key), id)
        data += key
    return heads + data


def time(nanoseconds: int) -> bytes:
    """Return a time as Go's MarshalBinary does, in UTC."""
    seconds, rest = divmod(nanoseconds, 10**9)
    return struct.pack(">BqiH", 1, seconds + 62_135_596_800, rest, 0xFFFF)


def unsigned(number: int) -> bytes:
    """Return a number as Go's PutUvarint does."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def signed(number: int) -> bytes:
    """Return a number as Go's PutVarint does."""
    return unsigned(number << 1 if number >= 0 else (-number << 1) - 1)


def message(type_url: str, value: bytes) -> bytes:
    """Return a message of any type."""
    return AnyMessage(type_url=type_url, value=value).SerializeToString()
