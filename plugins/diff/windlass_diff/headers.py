"""Headers of tar archives: what they say of an entry, and what no file on Linux can be."""

from __future__ import annotations

import os
import struct
import zlib

from windlass.errors import InvalidArgument
from windlass.records import dataclass
from windlass_diff import pax, sparse

BLOCK = 512
MAX_NAME = 4096
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

HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12s")
TYPES = {
    b"\0": FILE, b"0": FILE, b"7": FILE, b"S": FILE, b"1": HARDLINK, b"2": SYMLINK,
    b"3": CHARACTER, b"4": BLOCK_DEVICE, b"5": DIRECTORY, b"6": FIFO,
}  # fmt: skip
KNOWN = frozenset(TYPES.values())
DEVICES = (CHARACTER, BLOCK_DEVICE)
XATTR = b"SCHILY.xattr."


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


def is_header(block: bytes) -> bool:
    """Return whether a block has the checksum of a header. Raises InvalidArgument if the checksum is not a number."""
    # adler32's lower half is 1 + the sum of the bytes, modulo 65521: the header's own checksum at a tenth of the cost
    # of sum(). The checksum field counts as eight spaces.
    announced = number(block[148:156], "checksum")
    adler = zlib.adler32(b"        ", zlib.adler32(block[156:], zlib.adler32(block[:148]))) & 0xFFFF
    return adler == (announced + 1) % 65521 or _signed_checksum(block, announced)


def number(field: bytes, what: str, least: int = 0) -> int:
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


def read_gnu_prefix(entry: Entry, prefix: bytes) -> None:
    """Take the access time that GNU tar keeps where ustar has the prefix.

    Go before 1.8 wrote a ustar prefix into archives with GNU's magic; layers of
    that time are still around, and containerd reads them.
    """
    try:
        entry.atime = number(prefix[:12], "atime", -MAX_SIZE) * 1_000_000_000
    except InvalidArgument:
        entry.name = prefix.partition(b"\0")[0] + b"/" + entry.name


def apply_records(entry: Entry, records: pax.Records) -> dict[bytes, bytes]:
    """Let pax records replace what the header says, and return those about sparse files."""
    facts: dict[bytes, bytes] = {}
    xattrs: dict[bytes, bytes] = {}
    for key, value in records:
        if key.startswith(XATTR):
            xattrs[key[len(XATTR) :]] = value
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


def check(entry: Entry) -> None:
    """Raise InvalidArgument for what no file on Linux can be."""
    for name in (entry.name, entry.link):
        if len(name) > MAX_NAME:
            raise InvalidArgument(
                f"entry {shown(entry.name)} has a name or link of {len(name)} bytes; {MAX_NAME} is the most"
            )
        if b"\0" in name:
            raise InvalidArgument(f"entry {shown(entry.name)} has a zero byte in its name or link")
    if entry.type not in KNOWN:
        raise InvalidArgument(f"entry {shown(entry.name)} has the unknown type {shown(entry.type)!r}")
    if entry.uid > MAX_ID or entry.gid > MAX_ID:
        raise InvalidArgument(f"entry {shown(entry.name)} has owner {entry.uid}:{entry.gid}, which is out of range")
    if entry.size >= MAX_SIZE:
        raise InvalidArgument(f"entry {shown(entry.name)} announces {entry.size} bytes")
    if not (0 <= entry.major <= MAX_DEVICE and 0 <= entry.minor <= MAX_DEVICE):
        raise InvalidArgument(
            f"entry {shown(entry.name)} has device number {entry.major}:{entry.minor}, which is out of range"
        )
