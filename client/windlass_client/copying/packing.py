"""Writes a part of a tree as tar, walking by descriptors: what a container swaps meanwhile is never followed."""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Protocol

from windlass.errors import OutOfRange
from windlass_linux import calls as linux

CHUNK = 1 << 20
DEPTH = 2000
"""Directories in each other; each takes a descriptor."""
# statfs(2), linux/magic.h: what Linux makes up; its files have no size and no end.
MADE_UP = frozenset({0x9FA0, 0x62656572, 0x27E0EB, 0x63677270, 0x1CD1, 0x19800202, 0x64626720, 0x74726163})
XATTR = "SCHILY.xattr."
KEPT_XATTRS = ("user.", "security.capability")
KINDS = {
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
}


class Owner(Protocol):
    """Says whom a file is to belong to."""

    def __call__(self, uid: int, gid: int) -> tuple[int, int]:
        """Return user and group in the archive for those on disk."""
        ...


def kept(uid: int, gid: int) -> tuple[int, int]:
    """Keep owners as they are."""
    return uid, gid


class Stream(tarfile.TarFile):
    """An archive that is read or written once, front to back."""

    members: list[tarfile.TarInfo]
    """What tarfile keeps of each entry; it is to be cleared, or a million files take a gigabyte."""


@dataclass
class Packer:
    """Writes entries to a stream."""

    stream: IO[bytes]
    owner: Owner = kept
    _links: dict[tuple[int, int], str] = field(default_factory=dict)
    _tar: Stream = field(init=False)

    def __post_init__(self) -> None:
        self._tar = Stream.open(fileobj=self.stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK)

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()

    def add(self, descriptor: int, name: str) -> None:
        """Write what an O_PATH descriptor stands for, and all below it, under a name."""
        self._add(descriptor, name, 0)

    def add_below(self, descriptor: int) -> None:
        """Write all that is in a directory, without the directory itself."""
        for name, inner in _children(descriptor):
            try:
                self._add(inner, name, 0)
            finally:
                os.close(inner)

    def _add(self, descriptor: int, name: str, depth: int) -> None:
        if depth > DEPTH:
            raise OutOfRange(f"{name[:100]} … has more than {DEPTH} directories in each other; copy a part of it")
        status = os.fstat(descriptor)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in KINDS:
            return  # a socket
        entry = self._entry(descriptor, name, status, kind)
        if kind == stat.S_IFREG and entry.type == tarfile.REGTYPE:
            self._add_data(descriptor, entry)
        else:
            self._tar.addfile(entry)
        self._tar.members.clear()
        if kind == stat.S_IFDIR and linux.statfs_type(f"/proc/self/fd/{descriptor}") not in MADE_UP:
            for child, inner in _children(descriptor):
                try:
                    self._add(inner, child if name in ("", ".") else f"{name}/{child}", depth + 1)
                finally:
                    os.close(inner)

    def _entry(self, descriptor: int, name: str, status: os.stat_result, kind: int) -> tarfile.TarInfo:
        entry = tarfile.TarInfo(name or ".")
        entry.type, entry.mode, entry.mtime = KINDS[kind], stat.S_IMODE(status.st_mode), int(status.st_mtime)
        entry.uid, entry.gid = self.owner(status.st_uid, status.st_gid)
        inode = (status.st_dev, status.st_ino)
        if kind != stat.S_IFDIR and status.st_nlink > 1:
            if inode in self._links:
                entry.type, entry.linkname = tarfile.LNKTYPE, self._links[inode]
                return entry
            self._links[inode] = name
        if kind == stat.S_IFLNK:
            entry.linkname = os.readlink("", dir_fd=descriptor)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK):
            entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        elif kind in (stat.S_IFREG, stat.S_IFDIR):
            entry.pax_headers = _xattrs(descriptor)
        entry.size = status.st_size if kind == stat.S_IFREG else 0
        return entry

    def _add_data(self, descriptor: int, entry: tarfile.TarInfo) -> None:
        # By its descriptor: the name may be another file's by now, such as a device's or a FIFO's.
        with open(f"/proc/self/fd/{descriptor}", "rb", buffering=0) as file:  # noqa: PTH123 - no path
            self._tar.addfile(entry, Exactly(file, entry.size))


class Exactly:
    """A file as one that has a certain size, however it grows or shrinks while it is read."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        """Read ``size`` bytes from ``file``; zeros stand for those that are gone."""
        self._file = file
        self._left = size

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        wanted = self._left if size < 0 else min(size, self._left)
        parts = []
        while wanted:
            data = self._file.read(min(wanted, CHUNK)) or bytes(min(wanted, CHUNK))
            parts.append(data)
            wanted -= len(data)
            self._left -= len(data)
        return b"".join(parts)


def _children(descriptor: int) -> Iterator[tuple[str, int]]:
    """Yield the names in a directory, and a descriptor of each, which the caller closes."""
    listed = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in sorted(os.listdir(listed)):  # noqa: PTH208 - of a descriptor
            with suppress(FileNotFoundError):  # it was removed meanwhile
                flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
                yield name, linux.openat2(listed, name, flags, resolve=linux.RESOLVE_BENEATH)
    finally:
        os.close(listed)


def _xattrs(descriptor: int) -> dict[str, str]:
    path = f"/proc/self/fd/{descriptor}"
    found = {}
    with suppress(OSError):  # none on this file system
        for name in os.listxattr(path):
            if name.startswith(KEPT_XATTRS):
                found[XATTR + name] = os.getxattr(path, name).decode("utf-8", "surrogateescape")
    return found
