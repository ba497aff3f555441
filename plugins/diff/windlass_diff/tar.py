"""A streaming reader of tar archives: ustar, GNU, star and pax, sparse files and extended attributes included.

Made for layers, so: names are bytes, user and group names are not looked at,
global pax headers are passed over, and everything that an archive announces is
checked against a limit before memory is spent on it. Data goes from the chunk
that the decompressor returned to the file, without a copy between.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from windlass.errors import InvalidArgument
from windlass_diff import headers, pax, sparse

MAX_EXTENDED = 1 << 20
"""Bytes of one pax header or GNU long name; containerd has the same limit."""
_ZERO = bytes(headers.BLOCK)


class Archive:
    """Reads entries one after the other; what is not copied of an entry's data is passed over."""

    def __init__(self, read: Callable[[], bytes]) -> None:
        """Read from ``read``, which returns the next chunk of any length, and nothing at the end."""
        self._read = read
        self._chunk = b""
        self._view = memoryview(b"")
        self._position = 0
        self._left = 0
        """Bytes of the current entry, padding included, that have not been passed."""
        self._padding = 0
        """How many of them at most may be missing at the end: Go's reader does without the last padding, too."""
        self._name = b""

    def __iter__(self) -> Archive:
        """Iterate over the entries."""
        return self

    def __next__(self) -> headers.Entry:
        """Return the next entry; raises InvalidArgument where the archive is damaged."""
        self._skip(self._left, self._padding)
        self._left = self._padding = 0
        records: pax.Records = []
        long_name = long_link = b""
        while True:
            header = self._header()
            if header is None:
                raise StopIteration
            flag = header[156:157]
            if flag == b"x":
                records = pax.parse(self._extended(header, MAX_EXTENDED, "pax header"))
            elif flag == b"L":
                long_name = self._extended(header, headers.MAX_NAME + headers.BLOCK, "long name").partition(b"\0")[0]
            elif flag == b"K":
                long_link = self._extended(header, headers.MAX_NAME + headers.BLOCK, "long link name").partition(b"\0")[
                    0
                ]
            elif flag == b"g":
                self._skip(_padded(headers.number(header[124:136], "size")))
            else:
                return self._entry(header, records, long_name, long_link)

    def copy_to(self, entry: headers.Entry, fd: int) -> None:
        """Write the data of the entry that was returned last to ``fd``, leaving holes where a sparse file has them."""
        if entry.extents is None:
            self._copy(entry.size, fd)
            return
        os.ftruncate(fd, entry.size)
        for offset, length in entry.extents:
            os.lseek(fd, offset, os.SEEK_SET)
            self._copy(length, fd)

    def drain(self) -> None:
        """Read what follows the archive's end to the end of the stream."""
        while self._fill():
            pass

    def _copy(self, size: int, fd: int) -> None:
        self._left -= size
        while size:
            start = self._position
            piece = self._view[start : start + size]
            if not piece and not self._fill():
                raise self._truncated()
            if piece:
                written = os.write(fd, piece)
                self._position = start + written
                size -= written

    def _fill(self) -> bool:
        self._chunk = self._read()
        self._view = memoryview(self._chunk)
        self._position = 0
        return bool(self._chunk)

    def _skip(self, size: int, padding: int = 0) -> None:
        """Pass over bytes, of which the last may be missing at the end of the stream if they are ``padding``."""
        while size:
            step = min(size, len(self._chunk) - self._position)
            self._position += step
            size -= step
            if size and not self._fill():
                if size <= padding:
                    return
                raise self._truncated()

    def _take(self, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end; sizes are checked by the callers."""
        start = self._position
        data = self._chunk[start : start + size]
        self._position = start + len(data)
        while len(data) < size and self._fill():
            self._position = min(size - len(data), len(self._chunk))
            data += self._chunk[: self._position]
        return data

    def _block(self) -> bytes:
        block = self._take(headers.BLOCK)
        if len(block) < headers.BLOCK:
            raise self._truncated()
        return block

    def _data_block(self) -> bytes:
        if self._left < headers.BLOCK:
            raise InvalidArgument("sparse map is longer than the file's data")
        self._left -= headers.BLOCK
        return self._block()

    def _header(self) -> bytes | None:
        """Return the next header block, None at the end of the archive."""
        block = self._take(headers.BLOCK)
        if not block:
            return None
        if len(block) < headers.BLOCK:
            raise self._truncated()
        if block == _ZERO:
            if self._take(headers.BLOCK).rstrip(b"\0"):
                raise InvalidArgument(f"archive goes on after an end-of-archive block{self._after()}")
            return None
        if not headers.is_header(block):
            raise InvalidArgument(f"archive is damaged: a header has a wrong checksum{self._after()}")
        return block

    def _extended(self, header: bytes, limit: int, what: str) -> bytes:
        size = headers.number(header[124:136], "size")
        if size > limit:
            raise InvalidArgument(f"{what} of {size} bytes{self._after()} exceeds the limit of {limit}")
        data = self._take(_padded(size))
        if len(data) < _padded(size):
            raise self._truncated()
        return data[:size]

    def _entry(self, header: bytes, records: pax.Records, long_name: bytes, long_link: bytes) -> headers.Entry:
        (name, mode, uid, gid, size, mtime, _, flag, link, magic, _, _, major, minor, prefix, tail) = (
            headers.HEADER.unpack(header)
        )
        name = name.partition(b"\0")[0]
        if prefix[0] and magic.startswith(b"ustar\0"):
            # star keeps two times in the last bytes of the prefix
            name = prefix[: 131 if tail.endswith(b"tar\0") else 155].partition(b"\0")[0] + b"/" + name
        entry = headers.Entry(
            name,
            headers.TYPES.get(flag, flag),
            headers.number(mode, "mode") & 0o7777,
            headers.number(uid, "uid"),
            headers.number(gid, "gid"),
            headers.number(size, "size"),
            headers.number(mtime, "mtime", -headers.MAX_SIZE) * 1_000_000_000,
            link.partition(b"\0")[0],
        )
        if prefix[0] and magic == b"ustar  \0":
            headers.read_gnu_prefix(entry, prefix)
        facts = headers.apply_records(entry, records) if records else {}
        entry.name = long_name or entry.name
        entry.link = long_link or entry.link
        self._name = entry.name
        if flag == b"\0" and entry.name.endswith(b"/"):
            entry.type = headers.DIRECTORY
        if entry.type in headers.DEVICES:
            entry.major = headers.number(major, "device number", -headers.MAX_SIZE)
            entry.minor = headers.number(minor, "device number", -headers.MAX_SIZE)
        headers.check(entry)
        if entry.type == headers.FILE:
            self._prepare_data(entry, header, records, facts)
        else:
            entry.size = 0
        return entry

    def _prepare_data(
        self, entry: headers.Entry, header: bytes, records: pax.Records, facts: dict[bytes, bytes]
    ) -> None:
        stored = entry.size
        self._padding = _padded(stored) - stored
        if header[156:157] == b"S":
            entry.extents, entry.size = sparse.old_gnu(header, headers.number, self._block)
            self._left = _padded(stored)
        elif b"GNU.sparse.major" in facts or b"GNU.sparse.size" in facts or b"GNU.sparse.map" in facts:
            self._left = _padded(stored)
            size = facts.get(b"GNU.sparse.realsize") or facts.get(b"GNU.sparse.size") or b"0"
            entry.size = pax.number(b"GNU.sparse.realsize", size)
            if facts.get(b"GNU.sparse.major", b"0") == b"0":
                entry.extents = sparse.from_records(records)
            else:
                entry.extents, length = sparse.from_data(self._data_block)
                stored -= length
        else:
            self._left = _padded(stored)
            return
        if entry.size >= headers.MAX_SIZE:
            raise InvalidArgument(f"entry {headers.shown(entry.name)} announces {entry.size} bytes")
        sparse.check(entry.extents, entry.size, stored)

    def _after(self) -> str:
        return f", after entry {headers.shown(self._name)}" if self._name else ""

    def _truncated(self) -> InvalidArgument:
        return InvalidArgument(f"archive is truncated: it ends inside or{self._after() or ' before its first entry'}")


def _padded(size: int) -> int:
    return (size + headers.BLOCK - 1) & -headers.BLOCK
