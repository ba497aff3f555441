"""Writes tar archives in pax format, the same bytes for the same entries, as far as layers need it."""

# Names are bytes, which pathlib does not take:
# ruff: noqa: PTH119
from __future__ import annotations

import os
from collections.abc import Callable

from windlass.errors import Aborted
from windlass_diff import headers, pax

CHUNK = 256 << 10

_NAME = 100
_OCTAL_8 = 8**7 - 1
_OCTAL_12 = 8**11 - 1


class TarWriter:
    """Turns entries into chunks of about `CHUNK` bytes."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        """Hand chunks to ``write``."""
        self._write = write
        self._pieces: list[bytes] = []
        self._size = 0

    def add(self, entry: headers.Entry, data: int | None = None, progress: Callable[[], None] = lambda: None) -> None:
        """Append ``entry``, with its content from the descriptor ``data``; raises Aborted when that is too short."""
        self._put(_headers(entry))
        if data is None:
            return
        left = entry.size
        while left:
            piece = os.read(data, min(left, CHUNK))
            if not piece:
                raise Aborted(f"{headers.shown(entry.name)} became shorter while it was read; stop what writes to it")
            left -= len(piece)
            self._put(piece)
            progress()
        self._put(bytes(-entry.size % headers.BLOCK))

    def close(self) -> None:
        """Append the end-of-archive mark and hand over what is left."""
        self._put(bytes(2 * headers.BLOCK))
        self._flush()

    def _put(self, data: bytes) -> None:
        self._pieces.append(data)
        self._size += len(data)
        if self._size >= CHUNK:
            self._flush()

    def _flush(self) -> None:
        self._write(b"".join(self._pieces))
        self._pieces.clear()
        self._size = 0


def _headers(entry: headers.Entry) -> bytes:
    """Return the header of ``entry``, after a pax header for what does not fit it."""
    seconds = entry.mtime // 1_000_000_000
    records: pax.Records = [(b"SCHILY.xattr." + key, value) for key, value in entry.xattrs]
    for key, text in ((b"path", entry.name), (b"linkpath", entry.link)):
        if len(text) > _NAME or not text.isascii():
            records.append((key, text))
    for key, value, limit in (
        (b"size", entry.size, _OCTAL_12),
        (b"uid", entry.uid, _OCTAL_8),
        (b"gid", entry.gid, _OCTAL_8),
        (b"mtime", seconds, _OCTAL_12),
    ):
        if not 0 <= value <= limit:
            records.append((key, b"%d" % value))
    header = _header(entry, entry.type, entry.size, seconds)
    if not records:
        return header
    body = b"".join(pax.record(key, value) for key, value in sorted(records))
    extended = headers.Entry(b"PaxHeaders.0/" + os.path.basename(entry.name.rstrip(b"/"))[:80], b"x", 0o644, 0, 0, 0, 0)
    return _header(extended, b"x", len(body), 0) + body + bytes(-len(body) % headers.BLOCK) + header


def _header(entry: headers.Entry, flag: bytes, size: int, seconds: int) -> bytes:
    before = b"".join(
        (
            _text(entry.name),
            b"%07o\0" % entry.mode,
            _octal(entry.uid, 7),
            _octal(entry.gid, 7),
            _octal(size, 11),
            _octal(seconds, 11),
        )
    )
    after = b"".join(
        (
            flag,
            _text(entry.link),
            b"ustar\x0000",
            bytes(64),
            _octal(entry.major, 7),
            _octal(entry.minor, 7),
            bytes(167),
        )
    )
    return before + b"%06o\0 " % (sum(before) + sum(after) + 8 * 0x20) + after


def _text(name: bytes) -> bytes:
    """Return a name field; one that a pax record replaces is only for readers that know no pax."""
    return name.decode("ascii", "replace").replace("\ufffd", "?").encode()[:_NAME].ljust(_NAME, b"\0")


def _octal(value: int, digits: int) -> bytes:
    return b"%0*o\0" % (digits, value if 0 <= value < 8**digits else 0)
