"""Applies the entries of a layer to the tree below ``/``, where the process has been chrooted to.

The chroot is what keeps entries inside: a link in a parent, absolute or with
``..``, ends inside the root whatever it says. The last component of a name is
never followed. Rules: docs/containerd 3.16, "Archive apply rules", and 7.8.
"""

# Names are bytes, which pathlib does not take:
# ruff: noqa: PTH101, PTH102, PTH211
from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from windlass.errors import Internal, InvalidArgument, ResourceExhausted
from windlass.records import dataclass
from windlass_diff import headers, tar
from windlass_diff.headers import Entry, shown
from windlass_diff.lowers import Lowers
from windlass_diff.paths import make_parents, remove, resolve
from windlass_diff.times import DirectoryTimes
from windlass_storage.disks import explained

WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
OVERLAY_OPAQUE = "trusted.overlay.opaque"

MAX_REMEMBERED = 1 << 21
"""Names in a tree that was there, which an opaque marker spares."""

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DAMAGED_NAME = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the place that a layer is applied to asks for."""

    overlay: bool = False
    """It is an empty upper directory: whiteouts become overlayfs' own."""
    user_namespace: bool = False
    """Device nodes cannot be made and are passed over."""
    skipped_xattrs: tuple[bytes, ...] = (b"trusted.",)
    """Prefixes of extended attributes that a layer may not set."""


class Applier:
    """Applies one layer; the process is chrooted, has a umask of 0 and works on nothing else."""

    def __init__(self, rules: Rules, lowers: Lowers, where: str) -> None:
        """Apply by ``rules``; ``where`` is how the daemon calls the root, for messages."""
        self._rules = rules
        self._lowers = lowers
        self._where = where
        self._empty = not any(os.scandir(b"/"))
        self._unpacked: set[int] = set()
        """Hashes of names, by a key that no layer knows: 60 bytes each, however long the names are."""
        self._times = DirectoryTimes()
        self._makers: dict[bytes, Callable[[tar.Archive, Entry, bytes], None]] = {
            headers.FILE: self._file,
            headers.DIRECTORY: self._directory,
            headers.SYMLINK: self._symlink,
            headers.HARDLINK: self._hardlink,
            headers.CHARACTER: self._node,
            headers.BLOCK_DEVICE: self._node,
            headers.FIFO: self._node,
        }

    def apply(self, archive: tar.Archive, progress: Callable[[], None]) -> None:
        """Apply all entries; raises the error of the first that cannot be."""
        for entry in archive:
            path = clean(entry.name)
            if path == b"/":
                continue
            try:
                self._apply(archive, entry, path)
            except OSError as error:
                self._fail(error, entry)
            progress()
        archive.drain()
        self._times.set(progress)

    def _apply(self, archive: tar.Archive, entry: Entry, path: bytes) -> None:
        base = path[path.rindex(b"/") + 1 :]
        if base.startswith(WHITEOUT):
            self._whiteout(entry, path, base)
            return
        if self._rules.user_namespace and entry.type in (headers.CHARACTER, headers.BLOCK_DEVICE):
            return
        try:
            self._makers[entry.type](archive, entry, path)
        except FileNotFoundError:
            make_parents(path, self._lowers)
            self._makers[entry.type](archive, entry, path)
        except FileExistsError:
            self._make_way(entry, path)
            self._makers[entry.type](archive, entry, path)
        if not self._rules.overlay and not self._empty:
            self._keep(path)

    def _file(self, archive: tar.Archive, entry: Entry, path: bytes) -> None:
        fd = os.open(path, _CREATE, entry.mode & 0o777)
        try:
            archive.copy_to(entry, fd)
            # The parent's set-group-ID bit and default ACL have a say in what a new file is, so it is looked at; most
            # files are right as they are, and a look costs less than a change.
            status = os.fstat(fd)
            if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
                os.fchown(fd, entry.uid, entry.gid)
            for key, value in entry.xattrs:
                self._set_xattr(entry, fd, key, value)
            if entry.xattrs or stat.S_IMODE(status.st_mode) != entry.mode:
                os.fchmod(fd, entry.mode)
            os.utime(fd, ns=_times(entry))
        finally:
            os.close(fd)

    def _directory(self, archive: tar.Archive, entry: Entry, path: bytes) -> None:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(path).st_mode):
                raise
        os.lchown(path, entry.uid, entry.gid)
        for key, value in entry.xattrs:
            self._set_xattr(entry, path, key, value)
        os.chmod(path, entry.mode)
        self._times.remember(path, os.lstat(path).st_ino, _times(entry))

    def _symlink(self, archive: tar.Archive, entry: Entry, path: bytes) -> None:
        os.symlink(entry.link, path)
        self._finish(entry, path)

    def _node(self, archive: tar.Archive, entry: Entry, path: bytes) -> None:
        if entry.type == headers.FIFO:
            os.mkfifo(path, 0o600)
        else:
            kind = stat.S_IFCHR if entry.type == headers.CHARACTER else stat.S_IFBLK
            os.mknod(path, kind | 0o600, os.makedev(entry.major, entry.minor))
        self._finish(entry, path)

    def _hardlink(self, archive: tar.Archive, entry: Entry, path: bytes) -> None:
        target = b"/" + entry.link
        try:
            os.link(target, path, follow_symlinks=False)
        except FileNotFoundError:
            # Parents of either name may be missing; a target can also pass through directories that do not exist.
            target = resolve(entry.link)
            if not os.path.lexists(target) and not self._lowers.copy_up(target):
                raise InvalidArgument(
                    f"entry {shown(entry.name)} is a hard link to {shown(entry.link)}, which does not exist"
                ) from None
            os.link(target, path, follow_symlinks=False)
        except FileExistsError:
            if not os.path.samestat(os.lstat(target), os.lstat(path)):
                raise
        self._finish(entry, path)

    def _finish(self, entry: Entry, path: bytes) -> None:
        status = os.lstat(path)
        # Any chown(2) drops capabilities, and the entry of a further name does not bring them again.
        if (status.st_uid, status.st_gid) != (entry.uid, entry.gid):
            os.lchown(path, entry.uid, entry.gid)
        for key, value in entry.xattrs:
            self._set_xattr(entry, path, key, value)
        # A hard link can be one to a symbolic link, whose target is not what the entry is about.
        if not stat.S_ISLNK(status.st_mode):
            os.chmod(path, entry.mode)
        os.utime(path, ns=_times(entry), follow_symlinks=False)

    def _set_xattr(self, entry: Entry, where: int | bytes, key: bytes, value: bytes) -> None:
        if key.startswith(self._rules.skipped_xattrs):
            return
        try:
            if isinstance(where, int):
                os.setxattr(where, key, value)
            else:
                os.setxattr(where, key, value, follow_symlinks=False)
        except OSError as error:
            if error.errno == errno.ENOTSUP:
                return
            # Linux refuses user.* on anything but files and directories (xattr(7)).
            if (
                error.errno == errno.EPERM
                and key.startswith(b"user.")
                and entry.type not in (headers.FILE, headers.DIRECTORY)
            ):
                return
            if error.errno in (errno.EINVAL, errno.ERANGE, errno.E2BIG):
                raise InvalidArgument(
                    f"entry {shown(entry.name)} has the extended attribute {shown(key)}, which Linux refuses:"
                    f" {error.strerror}"
                ) from error
            raise

    def _make_way(self, entry: Entry, path: bytes) -> None:
        """Remove what is at ``path``; the caller makes something of another type, or a new file, there."""
        status = os.lstat(path)
        remove(path)
        if (
            self._rules.overlay
            and entry.type == headers.DIRECTORY
            and stat.S_ISCHR(status.st_mode)
            and not status.st_rdev
        ):
            # It was this layer's own whiteout: what it hides below must stay hidden.
            os.mkdir(path, 0o700)
            os.setxattr(path, OVERLAY_OPAQUE, b"y")

    def _whiteout(self, entry: Entry, path: bytes, base: bytes) -> None:
        parent = path[: -len(base) - 1]
        hidden = base[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise InvalidArgument(f"entry {shown(entry.name)} is a whiteout of {shown(hidden) or 'nothing'!r}")
        if base == OPAQUE:
            self._opaque(parent or b"/")
            return
        victim = parent + b"/" + hidden
        try:
            remove(victim)
        except (FileNotFoundError, NotADirectoryError):
            pass
        if self._rules.overlay:
            try:
                os.mknod(victim, stat.S_IFCHR, 0)
            except FileNotFoundError:
                make_parents(victim, self._lowers)
                os.mknod(victim, stat.S_IFCHR, 0)
            os.lchown(victim, entry.uid, entry.gid)

    def _opaque(self, directory: bytes) -> None:
        if self._rules.overlay:
            make_parents(directory + b"/.", self._lowers)
            os.setxattr(directory, OVERLAY_OPAQUE, b"y")
        elif not self._empty:
            self._clear(directory)

    def _clear(self, directory: bytes) -> None:
        """Remove what this layer did not unpack."""
        try:
            entries = list(os.scandir(directory))
        except (FileNotFoundError, NotADirectoryError):
            return
        for item in entries:
            path = directory.rstrip(b"/") + b"/" + item.name
            if hash(path) not in self._unpacked:
                remove(path)
            elif item.is_dir(follow_symlinks=False):
                self._clear(path)

    def _keep(self, path: bytes) -> None:
        """Have an opaque marker spare ``path`` and the directories above it."""
        while path and hash(path) not in self._unpacked:
            if len(self._unpacked) >= MAX_REMEMBERED:
                raise ResourceExhausted(f"archive has more than {MAX_REMEMBERED} entries that have to be remembered")
            self._unpacked.add(hash(path))
            path = path[: path.rindex(b"/")]

    def _fail(self, error: OSError, entry: Entry) -> NoReturn:
        name = f"entry {shown(entry.name)}"
        if error.errno in _DAMAGED_NAME:
            raise InvalidArgument(f"{name} cannot be created: {error.strerror}") from error
        refused = explained(error, f"create {name}", Path(self._where))
        raise refused or Internal(f"{name} cannot be created in {self._where}: {error.strerror}") from error


def clean(name: bytes) -> bytes:
    """Return the name as an absolute path, ``.``, ``..`` and double slashes resolved by text alone."""
    name = name.removeprefix(b"./").rstrip(b"/")
    if name and not name.startswith((b"/", b".")) and b"//" not in name and b"/." not in name:
        return b"/" + name
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/" + b"/".join(parts)


def _times(entry: Entry) -> tuple[int, int]:
    """Return access and modification time, both within what containerd sets: 1970 to 2262."""
    mtime = entry.mtime if 0 <= entry.mtime < 1 << 63 else 0
    return (max(entry.atime if entry.atime < 1 << 63 else 0, mtime), mtime)
