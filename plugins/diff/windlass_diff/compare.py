"""Makes a layer from two trees: changed entries after their parents, hard links, whiteouts."""

# Names are bytes, which pathlib does not take:
# ruff: noqa: PTH115
from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from typing import Protocol

import zstandard
from isal import isal_zlib

from windlass_diff import headers
from windlass_diff.apply import WHITEOUT
from windlass_diff.messages import Result
from windlass_diff.tarwriter import TarWriter
from windlass_diff.walk import Change, Kind, changes, open_file, xattrs

GZIP_LEVEL = 3
"""isal's best; the others are for speed."""
GZIP_WINDOW = 31
"""zlib's way of asking for 32 KiB and a gzip header, which then has no time in it."""
ZSTD_LEVEL = 3

_TYPES = {
    stat.S_IFREG: headers.FILE,
    stat.S_IFDIR: headers.DIRECTORY,
    stat.S_IFLNK: headers.SYMLINK,
    stat.S_IFCHR: headers.CHARACTER,
    stat.S_IFBLK: headers.BLOCK_DEVICE,
    stat.S_IFIFO: headers.FIFO,
}


class Compressor(Protocol):
    """What zlib and zstandard have in common."""

    def compress(self, data: bytes, /) -> bytes:
        """Return what of the output is ready."""
        ...

    def flush(self) -> bytes:
        """Return the rest."""
        ...


class Plain:
    """Compresses nothing."""

    def compress(self, data: bytes, /) -> bytes:
        """Return ``data``."""
        return data

    def flush(self) -> bytes:
        """Return nothing."""
        return b""


def compressor(name: str) -> Compressor:
    """Return a compressor by name: gzip, zstd or none."""
    if name == "gzip":
        gzip: Compressor = isal_zlib.compressobj(GZIP_LEVEL, wbits=GZIP_WINDOW)
        return gzip
    if name == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
    return Plain()


class LayerWriter:
    """Writes the changes of one walk as an archive."""

    def __init__(self, upper: bytes, writer: TarWriter, epoch: int | None, progress: Callable[[], None]) -> None:
        """Take contents from ``upper``; no time in the layer is later than ``epoch``, in nanoseconds."""
        self._upper = upper
        self._writer = writer
        self._epoch = epoch
        self._progress = progress
        self._parents: set[bytes] = set()
        self._sources: dict[tuple[int, int], bytes] = {}
        """Of every inode with several names: the one that carries the content."""
        self._unwritten: dict[tuple[int, int], list[bytes]] = {}
        """Names of inodes that have not changed under them, should another name turn out to be new."""

    def write(self, change: Change) -> None:
        """Write what ``change`` asks for, which may be nothing."""
        self._progress()
        status = change.status
        if status is None:
            parent, _, base = change.path.rpartition(b"/")
            self._write_parents(change.path)
            name = parent + b"/" + WHITEOUT + base if parent else WHITEOUT + base
            self._writer.add(headers.Entry(name, headers.FILE, 0, 0, 0, 0, 0))
            return
        if stat.S_ISSOCK(status.st_mode):
            return
        linked = status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode)
        inode = (status.st_dev, status.st_ino)
        if linked and inode in self._sources:
            self._write_link(change.path, status, self._sources[inode])
        elif change.kind is Kind.UNMODIFIED:
            if linked:
                self._unwritten.setdefault(inode, []).append(change.path)
        else:
            self._write_entry(change.path, status)
            if linked:
                self._sources[inode] = change.path
                for other in self._unwritten.pop(inode, ()):
                    self._write_link(other, status, change.path)

    def _write_entry(self, path: bytes, status: os.stat_result) -> None:
        self._write_parents(path)
        entry = self._entry(path, status)
        if entry.type == headers.DIRECTORY:
            self._parents.add(path)
        if entry.type == headers.FILE and entry.size:
            fd = open_file(self._upper + b"/" + path)
            try:
                self._writer.add(entry, fd, self._progress)
            finally:
                os.close(fd)
        else:
            self._writer.add(entry)

    def _write_link(self, path: bytes, status: os.stat_result, source: bytes) -> None:
        self._write_parents(path)
        entry = self._entry(path, status)
        entry.type, entry.size, entry.link = headers.HARDLINK, 0, source
        self._writer.add(entry)

    def _write_parents(self, path: bytes) -> None:
        parts = path.split(b"/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = b"/".join(parts[:depth])
            if parent not in self._parents:
                self._parents.add(parent)
                self._writer.add(self._entry(parent, os.lstat(self._upper + b"/" + parent)))

    def _entry(self, path: bytes, status: os.stat_result) -> headers.Entry:
        kind = _TYPES[stat.S_IFMT(status.st_mode)]
        full = self._upper + b"/" + path
        mtime = status.st_mtime_ns if self._epoch is None else min(status.st_mtime_ns, self._epoch)
        device = kind in (headers.CHARACTER, headers.BLOCK_DEVICE)
        return headers.Entry(
            path + b"/" if kind == headers.DIRECTORY else path,
            kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_size if kind == headers.FILE else 0,
            mtime,
            os.readlink(full) if kind == headers.SYMLINK else b"",
            major=os.major(status.st_rdev) if device else 0,
            minor=os.minor(status.st_rdev) if device else 0,
            xattrs=xattrs(full),
        )


def write_layer(
    lower: bytes, upper: bytes, fd: int, compression: str, epoch: int | None, progress: Callable[[], None]
) -> Result:
    """Write the layer that turns ``lower`` into ``upper`` to ``fd``; return digest and size of its plain tar."""
    digest = hashlib.sha256()
    packer = compressor(compression)
    size = 0

    def emit(chunk: bytes) -> None:
        nonlocal size
        size += len(chunk)
        digest.update(chunk)
        _write_all(fd, packer.compress(chunk))

    writer = TarWriter(emit)
    layer = LayerWriter(upper, writer, epoch, progress)
    for change in changes(lower, upper):
        layer.write(change)
    writer.close()
    _write_all(fd, packer.flush())
    return Result(digest="sha256:" + digest.hexdigest(), size=size)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
