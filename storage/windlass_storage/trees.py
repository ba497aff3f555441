"""Trees of files: copied with all they have, measured, removed.

For snapshotters. Every function keeps to the filesystem entries that it is given
and follows no symbolic link.
"""

from __future__ import annotations

# Entries are named relative to descriptors, which pathlib does not do:
import errno
import itertools
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from windlass.contracts.snapshots import Usage
from windlass.errors import FailedPrecondition
from windlass_linux import calls as linux

BLOCK = 512
"""stat(2): st_blocks counts these."""
CHUNK = 1 << 30
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

SPAN = 512
"""Characters; with a name more it is within what Linux takes, which is 4096 bytes."""
MOST_SPANS = 128
"""Each takes a descriptor while it is walked."""
SHOWN = 40
TOO_DEEP = "directories are nested more deeply than can be measured; remove them, or the snapshot"

_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)


def measure(top: Path, base: Path | None = None) -> Usage:
    """Count the inodes at and below ``top`` and the bytes they take; one with several names counts once.

    ``base`` is a tree of which ``top`` is a copy with the same inode numbers, as a snapshot of the filesystem
    is: only what has changed since is counted.
    Raises FailedPrecondition for a tree with paths of more than some 64,000 characters.
    """
    known = {_state(status) for status in _statuses(base)} if base is not None else set()
    seen, blocks = set(), 0
    for status in _statuses(top):
        inode = (status.st_dev, status.st_ino)
        if inode not in seen and _state(status) not in known:
            seen.add(inode)
            blocks += status.st_blocks
    return Usage(inodes=len(seen), size=blocks * BLOCK)


def _state(status: os.stat_result) -> tuple[int, int]:
    # Nothing changes an inode, or gives its number away, and leaves the time of the change.
    return status.st_ino, status.st_ctime_ns


def _statuses(top: Path) -> Iterator[os.stat_result]:
    yield top.lstat()
    with _closing(os.open(top, DIRECTORY)) as directory:
        yield from _walk(directory)


def _walk(directory: int, spans: int = MOST_SPANS) -> Iterator[os.stat_result]:
    """Yield the status of everything below a directory.

    Without recursion, but for paths too long for Linux, which are walked in spans. What goes meanwhile is left out,
    as active snapshots are in use.
    """
    pending = ["."]
    while pending:
        path = pending.pop()
        try:
            here = os.open(path, DIRECTORY, dir_fd=directory)
        except (FileNotFoundError, NotADirectoryError):
            continue
        with _closing(here):
            if len(path) > SPAN:
                if not spans:
                    raise FailedPrecondition(f"{TOO_DEEP}: …{path[-SHOWN:]}")
                yield from _walk(here, spans - 1)
                continue
            with os.scandir(here) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):
                        yield entry.stat(follow_symlinks=False)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(f"{path}/{entry.name}")


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def remove(top: Path) -> None:
    """Delete ``top`` and everything below it, of any depth; nothing there is not an error."""
    try:
        empty(top)
        top.rmdir()
    except FileNotFoundError:
        if top.exists():
            raise


def empty(top: Path) -> None:
    """Delete everything below the directory ``top``, of any depth."""
    with _closing(os.open(top, DIRECTORY)) as root:
        _empty(root)


def _empty(root: int) -> None:
    """Delete everything in a directory; those in it are moved up to it first, so that none is ever deep."""
    token = secrets.token_hex(8)
    names = (f"{token}-{number}" for number in itertools.count())
    waiting = _strip(root, root, names)
    while waiting:
        name = waiting.pop()
        with _closing(os.open(name, DIRECTORY, dir_fd=root)) as directory:
            waiting += _strip(directory, root, names)
        os.rmdir(name, dir_fd=root)


def _strip(directory: int, root: int, names: Iterator[str]) -> list[str]:
    """Delete what is in a directory and return the new names, in ``root``, of those in it that were not empty."""
    moved = []
    with os.scandir(directory) as entries:
        # At once, as what is moved to the root would turn up in it again.
        found = list(entries)
    for entry in found:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.name, dir_fd=directory)
            continue
        try:
            os.rmdir(entry.name, dir_fd=directory)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            moved.append(next(names))
            os.rename(entry.name, moved[-1], src_dir_fd=directory, dst_dir_fd=root)
    return moved


def copy(source: Path, destination: Path) -> None:
    """Copy the directory ``source`` onto the existing, empty ``destination``.

    Owners, modes, times, extended attributes, hard links, devices, FIFOs and holes
    are kept; sockets are left out. Data is shared where the filesystem can.
    Raises FailedPrecondition for a tree with paths longer than Linux takes.
    """
    try:
        _copy(source, destination)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise FailedPrecondition(f"{source} is nested too deeply to be copied") from error
        raise


def _copy(source: Path, destination: Path) -> None:
    links: dict[tuple[int, int], str] = {}
    directories = [(os.fspath(source), os.fspath(destination))]
    for from_directory, to_directory in directories:
        with os.scandir(from_directory) as entries:
            for entry in entries:
                to = f"{to_directory}/{entry.name}"
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    Path(to).mkdir(0o700)
                    # The list grows while it is walked: parents come before what is in them.
                    directories.append((entry.path, to))
                else:
                    _copy_entry(entry.path, to, status, links)
    # Children first, as a directory's time changes with each new entry.
    for from_directory, to_directory in reversed(directories):
        _copy_attributes(from_directory, to_directory, os.lstat(from_directory))


def _copy_entry(source: str, to: str, status: os.stat_result, links: dict[tuple[int, int], str]) -> None:
    inode = (status.st_dev, status.st_ino)
    if inode in links:
        os.link(links[inode], to, follow_symlinks=False)
        return
    if status.st_nlink > 1:
        links[inode] = to
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        _copy_data(source, to)
    elif kind == stat.S_IFLNK:
        Path(to).symlink_to(Path(source).readlink())
    elif kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO):
        os.mknod(to, status.st_mode, status.st_rdev)
    else:
        links.pop(inode, None)
        return
    _copy_attributes(source, to, status)


def _copy_attributes(source: str, to: str, status: os.stat_result) -> None:
    os.chown(to, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        # After chown, which takes set-user-ID away.
        Path(to).chmod(stat.S_IMODE(status.st_mode))
    # After chown as well: it drops file capabilities.
    for name in os.listxattr(source, follow_symlinks=False):
        try:
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(to, name, value, follow_symlinks=False)
        except OSError as error:
            # A security module's own attribute is not ours to write, the others are.
            if error.errno not in (errno.ENOTSUP, errno.ENODATA) and not name.startswith("security."):
                raise
    os.utime(to, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def copy_file(source: Path, to: Path) -> None:
    """Copy the data of a file to a new one; holes are kept, and data is shared where the filesystem can."""
    _copy_data(os.fspath(source), os.fspath(to))


def _copy_data(source: str, to: str) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writing = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(reading).st_size
            if size and not _shared(writing, reading):
                os.truncate(writing, size)
                _copy_extents(reading, writing, size)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _shared(writing: int, reading: int) -> bool:
    try:
        linux.ficlone(writing, reading)
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def _copy_extents(reading: int, writing: int, size: int) -> None:
    """Copy the parts of a file that are not holes."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(reading, offset, os.SEEK_DATA)
        except OSError as error:
            # Nothing but a hole is left.
            if error.errno == errno.ENXIO:
                return
            raise
        offset = os.lseek(reading, start, os.SEEK_HOLE)
        os.lseek(writing, start, os.SEEK_SET)
        while start < offset:
            sent = os.sendfile(writing, reading, start, min(offset - start, CHUNK))
            if not sent:
                return
            start += sent
