"""A streaming reader of tar archives: ustar, GNU, star and pax, sparse files and extended attributes included.

Made for layers, so: names are bytes, user and group names are not looked at,
global pax headers are passed over, and everything that an archive announces is
checked against a limit before memory is spent on it. Data goes from the chunk
that the decompressor returned to the file, without a copy between.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from windlass.errors import InvalidArgument
from windlass_diff import pax, sparse

BLOCK = 512
MAX_NAME = 4096
MAX_EXTENDED = 1 << 20
"""Bytes of one pax header or GNU long name; containerd has the same limit."""
MAX_SIZE = 1 << 63
MAX_ID = (1 << 32) - 2
"""(uid_t)-1 means "leave it" to chown(2)."""
MAX_DEVICE = (1 << 32) - 1

FILE = b"0"
HARDLINK = b"1"
SYMLINK = b"2"
CHARACTER = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"

_ZERO = bytes(BLOCK)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
_TYPES = {
    b"\0": FILE, b"0": FILE, b"7": FILE, b"S": FILE, b"1": HARDLINK, b"2": SYMLINK,
    b"3": CHARACTER, b"4": BLOCK_DEVICE, b"5": DIRECTORY, b"6": FIFO,
}  # fmt: skip
_KNOWN = frozenset(_TYPES.values())
_DEVICES = (CHARACTER, BLOCK_DEVICE)
_XATTR = b"SCHILY.xattr."


@dataclass(slots=True)
class Entry:
    """One member as the archive describes it; times in nanoseconds, 0 for no access time."""

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes = b""
    atime: int = 0
    major: int = 0
    minor: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    extents: sparse.Extents | None = None
    """Of a sparse file: where its data belongs; everything else is a hole."""


def shown(name: bytes) -> str:
    """Return a name from an archive as an error message may show it."""
    text = os.fsdecode(name[:200]).encode("utf-8", "backslashreplace").decode()
    return (text if text.isprintable() else repr(text)[1:-1]) + ("…" if len(name) > 200 else "")


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

    def __next__(self) -> Entry:
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
                long_name = self._extended(header, MAX_NAME + BLOCK, "long name").partition(b"\0")[0]
            elif flag == b"K":
                long_link = self._extended(header, MAX_NAME + BLOCK, "long link name").partition(b"\0")[0]
            elif flag == b"g":
                self._skip(_padded(_number(header[124:136], "size")))
            else:
                return self._entry(header, records, long_name, long_link)

    def copy_to(self, entry: Entry, fd: int) -> None:
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
        block = self._take(BLOCK)
        if len(block) < BLOCK:
            raise self._truncated()
        return block

    def _data_block(self) -> bytes:
        if self._left < BLOCK:
            raise InvalidArgument("sparse map is longer than the file's data")
        self._left -= BLOCK
        return self._block()

    def _header(self) -> bytes | None:
        """Return the next header block, None at the end of the archive."""
        block = self._take(BLOCK)
        if not block:
            return None
        if len(block) < BLOCK:
            raise self._truncated()
        if block == _ZERO:
            if self._take(BLOCK).rstrip(b"\0"):
                raise InvalidArgument(f"archive goes on after an end-of-archive block{self._after()}")
            return None
        if not is_header(block):
            raise InvalidArgument(f"archive is damaged: a header has a wrong checksum{self._after()}")
        return block

    def _extended(self, header: bytes, limit: int, what: str) -> bytes:
        size = _number(header[124:136], "size")
        if size > limit:
            raise InvalidArgument(f"{what} of {size} bytes{self._after()} exceeds the limit of {limit}")
        data = self._take(_padded(size))
        if len(data) < _padded(size):
            raise self._truncated()
        return data[:size]

    def _entry(self, header: bytes, records: pax.Records, long_name: bytes, long_link: bytes) -> Entry:
        (name, mode, uid, gid, size, mtime, _, flag, link, magic, _, _, major, minor, prefix, tail) = _HEADER.unpack(
            header
        )
        name = name.partition(b"\0")[0]
        if prefix[0] and magic.startswith(b"ustar\0"):
            # star keeps two times in the last bytes of the prefix
            name = prefix[: 131 if tail.endswith(b"tar\0") else 155].partition(b"\0")[0] + b"/" + name
        entry = Entry(
            name,
            _TYPES.get(flag, flag),
            _number(mode, "mode") & 0o7777,
            _number(uid, "uid"),
            _number(gid, "gid"),
            _number(size, "size"),
            _number(mtime, "mtime", -MAX_SIZE) * 1_000_000_000,
            link.partition(b"\0")[0],
        )
        if prefix[0] and magic == b"ustar  \0":
            _read_gnu_prefix(entry, prefix)
        facts = _apply_records(entry, records) if records else {}
        entry.name = long_name or entry.name
        entry.link = long_link or entry.link
        self._name = entry.name
        if flag == b"\0" and entry.name.endswith(b"/"):
            entry.type = DIRECTORY
        if entry.type in _DEVICES:
            entry.major = _number(major, "device number", -MAX_SIZE)
            entry.minor = _number(minor, "device number", -MAX_SIZE)
        _check(entry)
        if entry.type == FILE:
            self._prepare_data(entry, header, records, facts)
        else:
            entry.size = 0
        return entry

    def _prepare_data(self, entry: Entry, header: bytes, records: pax.Records, facts: dict[bytes, bytes]) -> None:
        stored = entry.size
        self._padding = _padded(stored) - stored
        if header[156:157] == b"S":
            entry.extents, entry.size = sparse.old_gnu(header, _number, self._block)
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
        if entry.size >= MAX_SIZE:
            raise InvalidArgument(f"entry {shown(entry.name)} announces {entry.size} bytes")
        sparse.check(entry.extents, entry.size, stored)

    def _after(self) -> str:
        return f", after entry {shown(self._name)}" if self._name else ""

    def _truncated(self) -> InvalidArgument:
        return InvalidArgument(f"archive is truncated: it ends inside or{self._after() or ' before its first entry'}")


def is_header(block: bytes) -> bool:
    """Tell whether a block has the checksum of a header. Raises InvalidArgument for a checksum that is no number."""
    # adler32's lower half is 1 + the sum of the bytes, modulo 65521: the header's own checksum at a tenth of the cost
    # of sum(). The checksum field counts as eight spaces.
    announced = _number(block[148:156], "checksum")
    adler = zlib.adler32(b"        ", zlib.adler32(block[156:], zlib.adler32(block[:148]))) & 0xFFFF
    return adler == (announced + 1) % 65521 or _signed_checksum(block, announced)


def _padded(size: int) -> int:
    return (size + BLOCK - 1) & -BLOCK


def _number(field: bytes, what: str, least: int = 0) -> int:
    """Return a number in octal digits or, with the top bit set, in base 256."""
    if field[-1] in b" \0" and field[:-1].isdigit():
        try:
            return int(field[:-1], 8)
        except ValueError:
            pass  # 8 and 9 are digits too; said below
    if field[0] & 0x80:
        value = int.from_bytes(field, "big", signed=True)
        if field[0] != 0xFF:
            value = int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        if not least <= value < MAX_SIZE:
            raise InvalidArgument(f"header has a {what} of {value}, which is out of range")
        return value
    digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
    if not digits:
        return 0
    if not digits.isdigit() or b"8" in digits or b"9" in digits:
        raise InvalidArgument(f"header has a {what} that is not a number: {digits!r}")
    return int(digits, 8)


def _signed_checksum(block: bytes, announced: int) -> bool:
    # Old tars, Sun's among them, added the bytes up as signed characters.
    signed = sum(memoryview(block).cast("b")) - sum(memoryview(block[148:156]).cast("b")) + 8 * 0x20
    return signed == announced


def _read_gnu_prefix(entry: Entry, prefix: bytes) -> None:
    """Take the access time that GNU tar keeps where ustar has the prefix.

    Go before 1.8 wrote a ustar prefix into archives with GNU's magic; layers of
    that time are still around, and containerd reads them.
    """
    try:
        entry.atime = _number(prefix[:12], "atime", -MAX_SIZE) * 1_000_000_000
    except InvalidArgument:
        entry.name = prefix.partition(b"\0")[0] + b"/" + entry.name


def _apply_records(entry: Entry, records: pax.Records) -> dict[bytes, bytes]:
    """Let pax records replace what the header says, and return those about sparse files."""
    facts: dict[bytes, bytes] = {}
    xattrs: dict[bytes, bytes] = {}
    for key, value in records:
        if key.startswith(_XATTR):
            xattrs[key[len(_XATTR) :]] = value
        elif not value:
            continue
        elif key in (b"path", b"GNU.sparse.name"):
            # a sparse file's path is made up for readers that do not know sparse files
            if b"GNU.sparse.name" not in facts:
                entry.name = value
            facts[key] = value
        elif key == b"linkpath":
            entry.link = value
        elif key == b"size":
            entry.size = pax.number(key, value)
        elif key == b"uid":
            entry.uid = pax.number(key, value)
        elif key == b"gid":
            entry.gid = pax.number(key, value)
        elif key == b"mtime":
            entry.mtime = pax.nanoseconds(key, value)
        elif key == b"atime":
            entry.atime = pax.nanoseconds(key, value)
        elif key.startswith(b"GNU.sparse."):
            facts[key] = value
    entry.xattrs = tuple(xattrs.items())
    return facts


def _check(entry: Entry) -> None:
    """Raise InvalidArgument for what no file on Linux can be."""
    for name in (entry.name, entry.link):
        if len(name) > MAX_NAME:
            raise InvalidArgument(
                f"entry {shown(entry.name)} has a name or link of {len(name)} bytes; {MAX_NAME} is the most"
            )
        if b"\0" in name:
            raise InvalidArgument(f"entry {shown(entry.name)} has a zero byte in its name or link")
    if entry.type not in _KNOWN:
        raise InvalidArgument(f"entry {shown(entry.name)} has the unknown type {shown(entry.type)!r}")
    if entry.uid > MAX_ID or entry.gid > MAX_ID:
        raise InvalidArgument(f"entry {shown(entry.name)} has owner {entry.uid}:{entry.gid}, which is out of range")
    if entry.size >= MAX_SIZE:
        raise InvalidArgument(f"entry {shown(entry.name)} announces {entry.size} bytes")
    if not (0 <= entry.major <= MAX_DEVICE and 0 <= entry.minor <= MAX_DEVICE):
        raise InvalidArgument(
            f"entry {shown(entry.name)} has device number {entry.major}:{entry.minor}, which is out of range"
        )
