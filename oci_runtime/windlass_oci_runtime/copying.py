"""Fills a tmpfs with what the directory below it has (the mount option `tmpcopyup`)."""

from __future__ import annotations

import os
import stat

CHUNK = 1 << 20
MOST_DEPTH = 200


def copy_up(source: int, target: int, depth: int = 0) -> None:
    """Copy all that is in one directory into another, with owners, modes and times; both are descriptors.

    Raises OSError. Nothing is followed, so the image's links lead nowhere.
    """
    if depth > MOST_DEPTH:
        raise OSError(40, "directories are nested too deeply to be copied")
    with os.scandir(source) as entries:
        names = [entry.name for entry in entries]
    for name in names:
        found = os.stat(name, dir_fd=source, follow_symlinks=False)
        _copy(name, found, source, target, depth)
        os.chown(name, found.st_uid, found.st_gid, dir_fd=target, follow_symlinks=False)
        if not stat.S_ISLNK(found.st_mode):
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=target)
        times = (found.st_atime_ns, found.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)


def _copy(name: str, found: os.stat_result, source: int, target: int, depth: int) -> None:
    if stat.S_ISDIR(found.st_mode):
        os.mkdir(name, 0o700, dir_fd=target)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        inner, copy = os.open(name, flags, dir_fd=source), os.open(name, flags, dir_fd=target)
        try:
            copy_up(inner, copy, depth + 1)
        finally:
            os.close(inner)
            os.close(copy)
    elif stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISREG(found.st_mode):
        _copy_file(name, source, target)
    else:
        os.mknod(name, found.st_mode, found.st_rdev, dir_fd=target)


def _copy_file(name: str, source: int, target: int) -> None:
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writer = os.open(name, flags, 0o600, dir_fd=target)
        try:
            while data := os.read(reader, CHUNK):
                os.write(writer, data)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
