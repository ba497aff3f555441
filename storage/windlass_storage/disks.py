"""What a disk refuses, in the words of the contracts: each errno is one class of error everywhere.

A caller can make room, raise a limit, mount writable or look at the disk; so each of these is an error of
its own, and only a lack of space says so.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from windlass.errors import FULL, DataLoss, Error, FailedPrecondition, NoSpace, PermissionDenied, ResourceExhausted

TOO_MANY_FILES = frozenset({errno.EMFILE, errno.ENFILE})
BROKEN = frozenset({errno.EIO, errno.EUCLEAN})
"""EUCLEAN is what ext4 and xfs say when they find themselves damaged."""

BLOCK = 4096
PRIVATE = 0o700


@contextmanager
def disk_errors(doing: str, where: Path) -> Iterator[None]:
    """Turn an OSError that an operator can do something about into one that says what failed and where."""
    try:
        yield
    except OSError as error:
        refused = explained(error, doing, where)
        if refused is None:
            raise
        try:
            raise refused from error
        finally:
            # Else this frame and the error would keep each other, and what was being written with them.
            del refused


def explained(error: OSError, doing: str, where: Path) -> Error | None:
    """Return the error that the caller gets, None if ``error`` says nothing of the disk or of our limits."""
    if error.errno == errno.EDQUOT:
        return NoSpace(f"cannot {doing}: no space left in {where} under its quota; raise the quota or make room")
    if error.errno in FULL:
        return NoSpace(f"cannot {doing}: no space left in {where}; make room and try again")
    if error.errno in TOO_MANY_FILES:
        return ResourceExhausted(f"cannot {doing}: too many open files; raise LimitNOFILE of the daemon")
    if error.errno == errno.EROFS:
        return FailedPrecondition(f"cannot {doing}: {where} is on a read-only file system; mount it writable")
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDenied(f"cannot {doing}: no permission in {where}")
    if error.errno in BROKEN:
        return DataLoss(f"cannot {doing}: input/output error in {where}; look at the disk")
    return None


def private_directory(path: Path) -> None:
    """Make a directory of ours and what is missing above it, or take it from everybody but its owner."""
    for each in (*reversed(path.parents), path):
        # mkdir's own `parents` would give those above the mode of the process's mask.
        if not each.exists():
            each.mkdir(mode=PRIVATE, exist_ok=True)
    if stat.S_IMODE(path.stat().st_mode) & ~PRIVATE:
        path.chmod(PRIVATE)


def refusal(directory: Path) -> OSError | None:
    """Write a block below ``directory``, in a file without a name, and return what the system has against it."""
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, BLOCK)
            file.write(bytes(BLOCK))
            os.fsync(file.fileno())
    except OSError as error:
        return error
    return None
