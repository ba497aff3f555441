"""A reader of bolt databases: the file format of go.etcd.io/bbolt, version 2, without writing and without a lock.

The file is pages. Two meta pages, of which the newer whole one counts, name the root of a tree of buckets. A bucket
is a tree of pages of its own, or, when it is small, a page within the value that names it. The file may be damaged or
hostile: every length is checked, and no page can be read so often that a loop would not end.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from windlass.errors import DataLoss, FailedPrecondition

MAGIC = 0xED0CDAED
VERSION = 2
BRANCH, LEAF, META = 0x01, 0x02, 0x04
BUCKET = 0x01
"""Flag of an element whose value is a bucket."""

PAGE = struct.Struct("<QHHI")
"""ID, flags, count, overflow."""
META_PAGE = struct.Struct("<IIIIQQQQQQ")
"""Magic, version, page size, flags, root, sequence, freelist, high water mark, transaction, checksum."""
BRANCH_ELEMENT = struct.Struct("<IIQ")
"""Position, length of the key, page."""
LEAF_ELEMENT = struct.Struct("<IIII")
"""Flags, position, length of the key, length of the value."""
BUCKET_HEADER = struct.Struct("<QQ")
"""Root page, 0 for one that follows; sequence."""

PAGE_SIZES = tuple(1024 << shift for shift in range(7))
DEEPEST = 32
LARGEST_PAGE = 256 << 20
READS_PER_PAGE = 16
"""How often the pages of a file may be read on average before that is a loop."""

FNV_OFFSET, FNV_PRIME = 0xCBF29CE484222325, 0x100000001B3


class Bolt:
    """An open database; use it as a context manager, or `close` it."""

    def __init__(self, path: Path) -> None:
        """Open ``path``. Raises DataLoss for a damaged file, FailedPrecondition for one of a newer format, OSError."""
        self.path = path
        self._file = path.open("rb")
        try:
            self._length = os.fstat(self._file.fileno()).st_size
            self._page_size, self._root, self._pages = self._newest_meta()
        except BaseException:
            self._file.close()
            raise
        self._budget = READS_PER_PAGE * self._pages + 1024

    def __enter__(self) -> Self:
        """Return this."""
        return self

    def __exit__(self, _type: type[BaseException] | None, _value: object, _traceback: TracebackType | None) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def fileno(self) -> int:
        """Return the descriptor, to lock the file by."""
        return self._file.fileno()

    @property
    def root(self) -> Bucket:
        """The bucket that holds all others."""
        return Bucket(self, self._root, None, "")

    def damaged(self, page: int, reason: str) -> DataLoss:
        """Return the error for a page that cannot be used."""
        return DataLoss(f"{self.path} is damaged: page {page}: {reason}; restore it from a backup")

    def page(self, id: int) -> Page:
        """Read a page. Raises DataLoss."""
        if not 2 <= id < self._pages:
            raise self.damaged(id, f"there are pages 2 to {self._pages - 1}")
        self._budget -= 1
        if self._budget < 0:
            raise self.damaged(id, "pages refer to each other in a loop")
        head = self._read(id, 0, PAGE.size)
        number, flags, count, overflow = PAGE.unpack(head)
        if number != id:
            raise self.damaged(id, f"it says that it is page {number}")
        size = (overflow + 1) * self._page_size
        if size > LARGEST_PAGE or id + overflow >= self._pages:
            raise self.damaged(id, f"it is {overflow} pages too long")
        return Page(self, id, flags, count, self._read(id, PAGE.size, size - PAGE.size))

    def _read(self, id: int, offset: int, length: int) -> bytes:
        data = os.pread(self._file.fileno(), length, id * self._page_size + offset)
        if len(data) != length:
            raise self.damaged(id, "the file ends within it")
        return data

    def _newest_meta(self) -> tuple[int, int, int]:
        """Return page size, root page and number of pages of the newer meta page that is whole."""
        found, refusal = [], "the file is too short"
        head = os.pread(self._file.fileno(), PAGE.size + META_PAGE.size, 0)
        sizes = PAGE_SIZES
        for offset in (0, *sizes):
            data = head if offset == 0 else os.pread(self._file.fileno(), PAGE.size + META_PAGE.size, offset)
            if len(data) < PAGE.size + META_PAGE.size:
                break
            _, flags, _, _ = PAGE.unpack_from(data)
            fields = META_PAGE.unpack_from(data, PAGE.size)
            magic, version, size, _, root, _, _, pages, transaction, checksum = fields
            if magic != MAGIC or not flags & META:
                refusal = refusal if offset else "it is not bolt's"
                continue
            if version != VERSION:
                raise FailedPrecondition(
                    f"{self.path} has version {version} of bolt's format on page 0, known is {VERSION}; "
                    "install a newer Windlass"
                )
            if _checksum(data[PAGE.size : PAGE.size + META_PAGE.size - 8]) != checksum:
                refusal = "its checksum is wrong"
            elif size not in PAGE_SIZES or offset not in (0, size):
                refusal = f"its page size is {size}"
            else:
                found.append((transaction, size, root, pages))
        if not found:
            raise self.damaged(0, refusal)
        _, size, root, pages = max(found)
        if pages * size > self._length:
            raise self.damaged(pages - 1, f"the file ends before it, after {self._length} bytes")
        return size, root, pages


class Page:
    """A page of a tree, its keys and values checked as they are taken."""

    def __init__(self, bolt: Bolt, id: int, flags: int, count: int, data: bytes) -> None:
        """``data`` is what follows the page's header."""
        self._bolt = bolt
        self._id = id
        self._count = count
        self._data = data
        self.is_branch = flags & BRANCH != 0
        if not flags & (BRANCH | LEAF):
            raise bolt.damaged(id, f"its kind {flags:#x} does not belong into a tree")
        element = BRANCH_ELEMENT if self.is_branch else LEAF_ELEMENT
        if count * element.size > len(data):
            raise bolt.damaged(id, f"it is too short for {count} elements")

    def children(self) -> Iterator[int]:
        """Yield the pages that a branch refers to."""
        for number in range(self._count):
            yield BRANCH_ELEMENT.unpack_from(self._data, number * BRANCH_ELEMENT.size)[2]

    def elements(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield flags, key and value of each element of a leaf. They share no bytes: a page bounds their size."""
        left = len(self._data)
        for number in range(self._count):
            at = number * LEAF_ELEMENT.size
            flags, position, key, value = LEAF_ELEMENT.unpack_from(self._data, at)
            begin = at + position
            middle, end = begin + key, begin + key + value
            if end > len(self._data):
                raise self._bolt.damaged(self._id, f"element {number} reaches beyond its end")
            left -= key + value
            if left < 0:
                raise self._bolt.damaged(self._id, f"element {number} has bytes of another one")
            yield flags, self._data[begin:middle], self._data[middle:end]


class Bucket:
    """Keys with values, and buckets, by name; read once, when first asked."""

    def __init__(self, bolt: Bolt, root: int, inline: bytes | None, name: str, depth: int = 0) -> None:
        """A bucket whose tree begins at page ``root``, or is the page that ``inline`` is; ``name`` for messages."""
        self.name = name
        self._depth = depth
        self._bolt = bolt
        self._root = root
        self._inline = inline
        self._read: tuple[dict[bytes, bytes], dict[bytes, bytes]] | None = None

    @property
    def values(self) -> dict[bytes, bytes]:
        """The values, by key."""
        return self._all()[0]

    def names(self) -> list[bytes]:
        """Return the names of the buckets within."""
        return list(self._all()[1])

    def get(self, key: str) -> bytes | None:
        """Return a value, None if there is none."""
        return self.values.get(key.encode())

    def text(self, key: str) -> str:
        """Return a value as text, "" if there is none. Raises DataLoss for one that is not UTF-8."""
        return self.decoded(self.get(key) or b"")

    def decoded(self, data: bytes) -> str:
        """Return a key or a value of this bucket as text. Raises DataLoss."""
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise self.wrong(f"{data[:64]!r} is not UTF-8") from None

    def find(self, *path: str | bytes) -> Bucket | None:
        """Return the bucket at ``path``, None if there is none."""
        found: Bucket | None = self
        for part in path:
            if found is None:
                return None
            found = found._child(part.encode() if isinstance(part, str) else part)
        return found

    def each(self, *path: str | bytes) -> Iterator[tuple[str, Bucket]]:
        """Yield name and bucket of each bucket in the one at ``path``, nothing if there is none."""
        parent = self.find(*path)
        if parent is not None:
            for name in parent.names():
                child = parent._child(name)
                if child is not None:
                    yield parent.decoded(name), child

    def wrong(self, reason: str) -> DataLoss:
        """Return the error for what cannot be in this bucket."""
        return self._bolt.damaged(self._root, f"bucket {self.name}: {reason}")

    def _child(self, name: bytes) -> Bucket | None:
        header = self._all()[1].get(name)
        if header is None:
            return None
        full = f"{self.name}/{name.decode(errors='replace')}"
        if len(header) < BUCKET_HEADER.size:
            raise self.wrong(f"{full} is no bucket")
        if self._depth == DEEPEST:
            raise self.wrong("buckets are in each other without end")
        root, _ = BUCKET_HEADER.unpack_from(header)
        inline = None if root else header[BUCKET_HEADER.size :]
        return Bucket(self._bolt, root or self._root, inline, full, self._depth + 1)

    def _all(self) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
        if self._read is None:
            values: dict[bytes, bytes] = {}
            buckets: dict[bytes, bytes] = {}
            for page in self._leaves():
                for flags, key, value in page.elements():
                    (buckets if flags & BUCKET else values)[key] = value
            self._read = values, buckets
        return self._read

    def _leaves(self) -> Iterator[Page]:
        if self._inline is not None:
            if len(self._inline) < PAGE.size:
                raise self.wrong("it is shorter than a page's header")
            _, flags, count, _ = PAGE.unpack_from(self._inline)
            page = Page(self._bolt, self._root, flags, count, self._inline[PAGE.size :])
            if page.is_branch:
                raise self.wrong("a small bucket cannot refer to pages")
            yield page
            return
        yield from self._below(self._root, set(), 0)

    def _below(self, id: int, seen: set[int], depth: int) -> Iterator[Page]:
        if id in seen or depth > DEEPEST:
            raise self._bolt.damaged(id, f"bucket {self.name} refers to it twice")
        seen.add(id)
        page = self._bolt.page(id)
        if not page.is_branch:
            yield page
            return
        for child in page.children():
            yield from self._below(child, seen, depth + 1)


def _checksum(data: bytes) -> int:
    """FNV-1a of 64 bits."""
    value = FNV_OFFSET
    for byte in data:
        value = (value ^ byte) * FNV_PRIME & 0xFFFFFFFFFFFFFFFF
    return value
