"""Reads tar into a tree: every entry is made in a directory that is open, so that no link leads out of the tree."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import sys
import tarfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from windlass.errors import DataLoss, FailedPrecondition, InvalidArgument
from windlass_client.copying.packing import CHUNK, KEPT_XATTRS, XATTR, Stream
from windlass_client.copying.tree import INSIDE, PATH, Tree, made_directory
from windlass_linux import calls as linux

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
HARMLESS = 0o1777
"""Mode bits that files get on the host: one's set-user-ID bit comes from a stranger."""


@dataclass
class Unpacker:
    """Makes the entries of archives below ``base``, a directory of a tree."""

    tree: Tree
    base: str = ""
    trusted: bool = True
    """Whether devices, set-user-ID bits and capabilities of files come along."""
    owners: bool = True
    """Whether files belong to whom the archive says, and otherwise to the user of this process."""
    size: int = 0
    """Bytes of files that were written."""
    _parent: tuple[str, int] = ("", -1)
    _later: list[tuple[str, tarfile.TarInfo]] = field(default_factory=list)

    def unpack(self, stream: IO[bytes]) -> None:
        """Make all entries. Raises DataLoss for a broken archive, FailedPrecondition where one cannot be made."""
        try:
            with Stream.open(fileobj=stream, mode="r|*", bufsize=CHUNK) as archive:
                while (entry := archive.next()) is not None:
                    self._make(archive, entry)
                    archive.members.clear()
            # Last: each file that is made in a directory changes its time, and a mode may forbid making one.
            for path, entry in reversed(self._later):
                self._finish_directory(path, entry)
        except tarfile.TarError as error:
            raise DataLoss(f"the archive is broken: {error}") from None
        finally:
            self._leave()

    def _make(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        path = _clean(entry.name)
        if not path:
            if entry.isdir():
                return  # the base itself, which stays as it is
            raise InvalidArgument(f"the archive has an entry {entry.name[:100]!r} without a name")
        directory, name = posixpath.split(path)
        parent = self._directory(directory)
        try:
            self._make_in(parent, name, path, archive, entry)
        except OSError as error:
            raise self.tree.problem(f"{self.base}/{path}", error) from None

    def _make_in(self, parent: int, name: str, path: str, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        if entry.isdir():
            self._make_directory(parent, name, path)
            self._later.append((path, entry))
        elif entry.isreg():
            self._make_file(parent, name, path, archive, entry)
        elif entry.issym():
            self._make_room(parent, name, path)
            os.symlink(entry.linkname, name, dir_fd=parent)
            self._own(parent, name, entry)
        elif entry.islnk():
            self._make_room(parent, name, path)
            self._link(parent, name, entry)
        elif entry.isfifo() or (entry.isdev() and self.trusted):
            self._make_room(parent, name, path)
            self._make_node(parent, name, entry)
        elif entry.isdev():
            sys.stderr.write(f"windlass: device {path} is left out: it could give access to this machine\n")

    def _directory(self, path: str) -> int:
        """Return a descriptor of a directory below the base, which is made if it is not there."""
        known, descriptor = self._parent
        if descriptor >= 0 and known == path:
            return descriptor
        self._leave()
        full = posixpath.join(self.base.lstrip("/"), path) or "."
        try:
            found = made_directory(self.tree.descriptor, full)
        except OSError as error:
            raise self.tree.problem(f"/{full}", error) from None
        self._parent = (path, found)
        return found

    def _leave(self) -> None:
        if self._parent[1] >= 0:
            os.close(self._parent[1])
        self._parent = ("", -1)

    def _make_directory(self, parent: int, name: str, path: str) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            # Of a link to a directory, what is in the archive comes into that directory, as with tar and docker.
            place = posixpath.join(self.base.lstrip("/"), path)
            if not stat.S_ISDIR(_mode(self.tree.open(place))):
                raise FailedPrecondition(
                    f"{self.tree.name}/{place} is not a directory; a directory cannot take its place"
                ) from None

    def _make_room(self, parent: int, name: str, path: str) -> None:
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            place = posixpath.join(self.base, path)
            raise FailedPrecondition(f"{self.tree.name}{place} is a directory; a file cannot take its place") from None

    def _make_file(self, parent: int, name: str, path: str, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        try:
            self._make_room(parent, name, path)
            descriptor = linux.openat2(parent, name, CREATE, 0o600, linux.RESOLVE_BENEATH)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # Something is mounted on the file: it gets other content.
            descriptor = os.open(name, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            source = archive.extractfile(entry)
            assert source is not None
            while data := source.read(CHUNK):
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
                self.size += len(data)
            self._dress(file.fileno(), entry)

    def _dress(self, descriptor: int, entry: tarfile.TarInfo) -> None:
        """Give an open file or directory its owner, mode, attributes and time."""
        if self.owners:
            os.fchown(descriptor, entry.uid, entry.gid)
        # After chown, which takes set-user-ID and capabilities away.
        os.fchmod(descriptor, entry.mode & (0o7777 if self.trusted else HARMLESS))
        for key, value in entry.pax_headers.items():
            name = key.removeprefix(XATTR)
            if key.startswith(XATTR) and name.startswith(KEPT_XATTRS if self.trusted else "user."):
                with suppress(OSError):  # not on this file system
                    os.setxattr(descriptor, name, value.encode("utf-8", "surrogateescape"))
        os.utime(descriptor, (entry.mtime, entry.mtime))

    def _finish_directory(self, path: str, entry: tarfile.TarInfo) -> None:
        place = posixpath.join(self.base.lstrip("/"), path)
        try:
            descriptor = linux.openat2(
                self.tree.descriptor, place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, resolve=INSIDE
            )
        except OSError:
            return  # it was removed, or replaced, meanwhile
        try:
            self._dress(descriptor, entry)
        finally:
            os.close(descriptor)

    def _own(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        if self.owners:
            os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        with suppress(OSError):
            os.utime(name, (entry.mtime, entry.mtime), dir_fd=parent, follow_symlinks=False)

    def _link(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        directory, target = posixpath.split(_clean(entry.linkname))
        full = posixpath.join(self.base.lstrip("/"), directory) or "."
        there = self.tree.open(full, PATH | os.O_DIRECTORY)
        try:
            os.link(target, name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(there)

    def _make_node(self, parent: int, name: str, entry: tarfile.TarInfo) -> None:
        kind = stat.S_IFIFO if entry.isfifo() else stat.S_IFCHR if entry.ischr() else stat.S_IFBLK
        mode = entry.mode & (0o7777 if self.trusted else HARMLESS)
        os.mknod(name, kind | mode, os.makedev(entry.devmajor, entry.devminor), dir_fd=parent)
        self._own(parent, name, entry)


def _mode(descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_mode
    finally:
        os.close(descriptor)


def _clean(name: str) -> str:
    """Return an entry's path without what means nothing. Raises InvalidArgument for one that leads up."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise InvalidArgument(f"the archive has an entry {name[:100]!r}, which leads out of its directory")
    return "/".join(parts)
